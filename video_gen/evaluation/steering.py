"""Steering: what becomes of a stream whose caption changes, and whether one whose caption stays keeps what it shows.

A switch goes from a caption of the world `bounce` to one that differs by a colour, a shape, both, an object more or less, or the
speed. Times count from the first frame that can show it (`Streams.begins_at`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

from video_gen.data.captions import Scene, caption, parse_caption, random_scene
from video_gen.data.changes import CHANGE_FRAMES, Kind, changed, possible
from video_gen.data.config import WorldConfig
from video_gen.data.state import PIXELS_PER_FRAME
from video_gen.data.worlds import draw, simulate_change
from video_gen.evaluation.drift import sharpness
from video_gen.evaluation.intervals import median, share
from video_gen.evaluation.physics import measure_video
from video_gen.evaluation.recover import find_objects
from video_gen.sampling.pipeline import VideoPipeline

SWITCHES: tuple[Kind, ...] = ("colour", "shape", "both", "more", "less", "speed")
SHOWN_BEFORE = 2.0
"""Seconds of a stream before its caption changes."""
AFTER = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds after which it is looked at."""
STAYS = (10.0, 60.0)
"""Seconds after which a stream whose caption stays is looked at."""
LOOKED_AT = 5
"""Frames up to a moment, most of which must show what the caption says."""
SPEED_FRAMES = 8
"""Frames over which speed is measured."""
WINDOW = 17
"""Frames of a window before, at and after a switch."""
WHOLE = 3
"""Streams whose caption stays that are kept to be looked at."""
BATCH = 20


@dataclass(frozen=True)
class Switch:
    kind: Kind
    before: Scene
    after: Scene
    seed: int


@dataclass(frozen=True)
class Switched:
    """Streams through a switch."""

    videos: np.ndarray
    """(n, f, h, w, 3) uint8"""
    at: tuple[int, ...]
    """The first frame of each that can show it."""
    delay: float = 0.0
    """Seconds from the moment that the change is asked for to that frame."""


def draw_switches(count: int, seed: int) -> list[Switch]:
    """As many of each kind, of scenes that training may show."""
    rng = np.random.default_rng([seed, 0x57EE])
    found: list[Switch] = []
    while len(found) < count:
        kind, scene = SWITCHES[len(found) % len(SWITCHES)], random_scene(rng, "train")
        if kind in possible(scene):
            found.append(Switch(kind, scene, changed(scene, kind, rng, "train"), seed + len(found)))
    return found


# -------------------- where the videos come from


def roll_switches(
    pipeline: VideoPipeline,
    wanted: Sequence[Switch],
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Switched:
    """A stream through each switch. `settings`: `block_frames`, and fields of `SamplingConfig`."""
    fps, videos, ats, delay = pipeline.config.clip.fps, [], [], 0.0
    for start in range(0, len(wanted), BATCH):
        some = wanted[start : start + BATCH]
        with pipeline.streams([caption(s.before) for s in some], seeds=[s.seed for s in some], **settings) as streams:
            parts: list[np.ndarray] = []
            while streams.seconds < SHOWN_BEFORE:
                parts.append(next(streams))
            at, delay = round(streams.begins_at * fps), streams.begins_at - streams.seconds
            streams.steer([caption(s.after) for s in some])
            end = at + frames_after(fps)
            while sum(part.shape[1] for part in parts) < end:
                parts.append(next(streams))
        videos.append(np.concatenate(parts, axis=1)[:, :end])
        ats += [at] * len(some)
        if progress:
            progress(start + len(some), len(wanted))
    return Switched(np.concatenate(videos), tuple(ats), delay)


def true_switches(wanted: Sequence[Switch], fps: float, height: int, width: int) -> Switched:
    """The world's own videos of the switches; one that has no room for an object more waits until it has."""
    at = 1 + CHANGE_FRAMES * round(SHOWN_BEFORE * fps / CHANGE_FRAMES)
    config = WorldConfig(num_frames=at + frames_after(fps), fps=fps, height=height, width=width)
    worlds = [simulate_change(config.replace(seed=s.seed), s.before, s.after, at) for s in wanted]
    return Switched(np.stack([draw(world) for world in worlds]), (at,) * len(wanted))


def frames_after(fps: float) -> int:
    """Frames that are measured from a switch on."""
    return max(round(AFTER[-1] * fps) + 1, 2 * WINDOW)


@dataclass(frozen=True)
class Staying:
    """Streams whose caption stays."""

    captions: list[str]
    seen: dict[float, np.ndarray]
    """Seconds -> (n, `LOOKED_AT`, h, w, 3) uint8, the frames up to then."""
    shown: list[np.ndarray]
    """(f, h, w, 3) uint8, some of them whole."""


def roll_staying(
    pipeline: VideoPipeline,
    captions: list[str],
    seed: int,
    seconds: Sequence[float],
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Staying:
    """Streams of these captions, of which the frames at `seconds` are kept, and the first few whole."""
    fps = pipeline.config.clip.fps
    ends = [round(s * fps) + 1 for s in seconds]
    seen: dict[float, list[np.ndarray]] = {s: [] for s in seconds}
    whole: list[np.ndarray] = []
    for start in range(0, len(captions), BATCH):
        some = captions[start : start + BATCH]
        with pipeline.streams(some, seeds=[seed + start + i for i in range(len(some))], **settings) as streams:
            last: np.ndarray | None = None
            done, kept = 0, []
            for frames in streams:
                last = frames if last is None else np.concatenate([last[:, -LOOKED_AT:], frames], axis=1)
                kept.append(frames[: max(0, WHOLE - start)])
                for s, end in zip(seconds, ends):
                    if done < end <= done + frames.shape[1]:
                        place = last.shape[1] - (done + frames.shape[1] - end)
                        seen[s].append(last[:, place - LOOKED_AT : place])
                done += frames.shape[1]
                if progress:
                    progress(start * ends[-1] + min(done, ends[-1]) * len(some), len(captions) * ends[-1])
                if done >= ends[-1]:
                    break
        whole += list(np.concatenate(kept, axis=1))
    return Staying(captions, {s: np.concatenate(parts) for s, parts in seen.items()}, whole)


def true_staying(
    captions: list[str], seed: int, seconds: Sequence[float], fps: float, size: tuple[int, int]
) -> Staying:
    """The world's own videos of these captions."""
    seen: dict[float, list[np.ndarray]] = {s: [] for s in seconds}
    for index, text in enumerate(captions):
        scene = parse_caption(text)
        assert scene is not None
        config = WorldConfig(
            num_frames=round(max(seconds) * fps) + 1, fps=fps, height=size[0], width=size[1], seed=seed + index
        )
        world = simulate_change(config, scene, scene, config.num_frames)
        for s in seconds:
            part = slice(round(s * fps) + 1 - LOOKED_AT, round(s * fps) + 1)
            shares = None if world.shares is None else world.shares[part]
            seen[s].append(draw(replace(world, positions=world.positions[part], shares=shares)))
    return Staying(captions, {s: np.stack(parts) for s, parts in seen.items()}, [])


# -------------------- measuring


def measure_switches(wanted: Sequence[Switch], shown: Switched, fps: float) -> dict[str, Any]:
    """`followed`: by kind, and of `all`, the share by seconds; `around`: figures `before`, `at` and `after` the switch."""
    rows = [
        {t: follows(video, switch, at + round(t * fps)) for t in AFTER}
        for video, switch, at in zip(shown.videos, wanted, shown.at)
    ]
    kinds = {kind: [r for r, s in zip(rows, wanted) if s.kind == kind] for kind in SWITCHES}
    followed = {
        name: {f"{t:g}": asdict(share([row[t] for row in some])) for t in AFTER}
        for name, some in {**kinds, "all": rows}.items()
    }
    around = {"before": [], "at": [], "after": []}
    for video, switch, at in zip(shown.videos, wanted, shown.at):
        around["before"].append(_window(video[at - WINDOW : at], switch.before))
        around["at"].append(_at(video[at : at + WINDOW], switch))
        around["after"].append(_window(video[at + WINDOW : at + 2 * WINDOW], switch.after))
    return {"followed": followed, "around": {when: _summary(rows) for when, rows in around.items()}}


def follows(video: np.ndarray, switch: Switch, frame: int) -> bool:
    """Whether most of the frames up to this one show the objects of the new caption, and, where it asks for another speed, they
    move more like it than like the old one."""
    asked = Counter(switch.after.objects)
    frames = video[frame - LOOKED_AT + 1 : frame + 1]
    right = sum(looks_of(one) == asked for one in frames)
    if 2 * right <= len(frames):
        return False
    if switch.kind != "speed":
        return True
    speed = measure_video(video[frame - SPEED_FRAMES : frame + 1]).speed / min(video.shape[1:3])
    between = sqrt(PIXELS_PER_FRAME["slow"] * PIXELS_PER_FRAME["fast"])
    return (speed > between) == (switch.after.speed == "fast")


def looks_of(frame: np.ndarray) -> Counter[tuple[str, str]]:
    """(colour, shape) of the objects of a frame."""
    return Counter((found.colour, found.shape) for found in find_objects(frame))


def measure_staying(staying: Staying) -> dict[str, Any]:
    """By seconds, the shares of streams most of whose frames then show as many objects as the caption says, `there`, and those
    that it says, `right`."""
    scenes = [parse_caption(text) for text in staying.captions]
    found: dict[str, Any] = {"there": {}, "right": {}}
    for seconds, videos in staying.seen.items():
        there, right = [], []
        for video, scene in zip(videos, scenes):
            assert scene is not None
            looks = [looks_of(frame) for frame in video]
            there.append(2 * sum(look.total() == len(scene.objects) for look in looks) > len(looks))
            right.append(2 * sum(look == Counter(scene.objects) for look in looks) > len(looks))
        found["there"][f"{seconds:g}"] = asdict(share(there))
        found["right"][f"{seconds:g}"] = asdict(share(right))
    return found


def _window(frames: np.ndarray, scene: Scene) -> dict[str, Any]:
    measures = measure_video(frames, caption(scene))
    return {
        "persistence": measures.persists,
        "residuals": measures.residuals.tolist(),
        "motion": measures.motion,
        "sharpness": sharpness(frames),
    }


def _at(frames: np.ndarray, switch: Switch) -> dict[str, Any]:
    """While one turns into the other, what both have must be there."""
    least = min(len(switch.before.objects), len(switch.after.objects))
    there = all(len(find_objects(frame)) >= least for frame in frames)
    return _window(frames, switch.after) | {"persistence": there}


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "persistence": asdict(share([row["persistence"] for row in rows])),
        "residual_px": asdict(median([x for row in rows for x in row["residuals"]])),
        "motion": asdict(median([row["motion"] for row in rows])),
        "sharpness": asdict(median([row["sharpness"] for row in rows])),
    }
