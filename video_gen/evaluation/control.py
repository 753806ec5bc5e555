"""Does a world do what it is told, and does it stay the place it was?

Measured on episodes that were not trained on, each figure beside what can be had at best: the true frames, and these after the VAE.
In the built-in maze everything that could have been done instead is known, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from video_gen.data import maze
from video_gen.data.actions import scaled
from video_gen.data.maze_view import draw_walk
from video_gen.evaluation.maze_pose import Poses, known_poses, turned
from video_gen.model.actions import Actions, latent_actions
from video_gen.sampling.pipeline import VideoPipeline

AT = (1, 4, 16, 64, 256)
"""Frames after the first at which rollouts are compared."""
BATCH = 16
BANDS = 4
HELD_OUT = 10**6
"""Walks of the maze from this number on are in no data set."""
CIRCLE = round(360 / maze.TURN)
"""Frames of a full turn."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Episodes:
    """What was done, and what was seen."""

    videos: np.ndarray
    """(n, f, h, w, 3) uint8"""
    rows: np.ndarray
    """(n, f, a) in their own units"""
    captions: list[str]
    walks: list[maze.Walk] = field(default_factory=list)
    """Of the maze."""

    def __len__(self) -> int:
        return len(self.videos)


@dataclass(frozen=True)
class Maze:
    """The maze that a model was trained in."""

    seed: int = 0
    layouts: int = 1
    height: int = 48
    width: int = 64

    def episodes(self, count: int, frames: int, first: int = HELD_OUT) -> Episodes:
        """Walks by number, from `first` on."""
        return self.of([maze.walk(self.seed, self.layouts, first + i, frames) for i in range(count)])

    def of(self, walks: list[maze.Walk]) -> Episodes:
        videos = np.stack([draw_walk(self.seed, self.layouts, walk, self.height, self.width) for walk in walks])
        rows = np.stack([walk.keys for walk in walks]).astype(np.float64)
        return Episodes(videos, rows, [f"maze {walk.layout}" for walk in walks], walks)

    def acted(self, index: int, keys: Sequence[set[str]], calm: bool = False) -> maze.Walk:
        """What comes of keys, one set a frame, from a place drawn by number; the last frame's count for nothing.

        Args: calm: where nothing moves by itself in sight.
        """
        number = index % self.layouts
        layout, rng = maze.make_layout(self.seed, number), np.random.default_rng([self.seed, index, 5])
        pose = maze.start(layout, rng)
        while calm and self._moves(layout, pose):
            pose = maze.start(layout, rng)
        poses = [pose]
        for held in keys[:-1]:
            poses.append(maze.advance(layout, poses[-1], held))
        return maze.gather(number, poses, np.array([[key in held for key in maze.KEYS] for held in keys]))

    def _moves(self, layout: maze.Layout, pose: maze.Pose) -> bool:
        """Whether a thing that moves is in the room, or far ahead through a passage in sight."""
        room = layout.rooms[int(pose.y), int(pose.x)]
        here = [t for t in layout.things if not t.solid and layout.rooms[int(t.place[1]), int(t.place[0])] == room]
        angle = np.deg2rad(pose.heading)
        ahead = [
            (t.place[0] - pose.x) * np.cos(angle) + (t.place[1] - pose.y) * np.sin(angle) > 0
            for t in layout.things
            if not t.solid
        ]
        return bool(here) or any(ahead)


# -------------------- rollouts


def roll_out(
    pipeline: VideoPipeline,
    first: np.ndarray,
    rows: np.ndarray,
    captions: Sequence[str],
    seed: int,
    progress: Progress | None = None,
    **settings: Any,
) -> np.ndarray:
    """Worlds from given first frames (n, h, w, 3), played with actions (n, f, a): (n, f, h, w, 3) uint8, the first as it was given.

    f - 1 is a multiple of the frames of a step; what the last row says counts for nothing.
    """
    made = []
    for start in range(0, len(first), BATCH):
        some = slice(start, start + BATCH)
        seeds = [seed + start + i for i in range(len(first[some]))]
        world = pipeline.plays(list(captions[some]), seeds=seeds, video=first[some, None], **settings)
        parts, step = [first[some, None]], world.frames_per_step
        for at in range(0, rows.shape[1] - 1, step):
            parts.append(world.step_rows(rows[some, at : at + step]))
        made.append(np.concatenate(parts, axis=1))
        if progress:
            progress(min(start + BATCH, len(first)), len(first))
    return np.concatenate(made)


@torch.no_grad()
def reconstruct(pipeline: VideoPipeline, videos: np.ndarray) -> np.ndarray:
    """Videos after the VAE."""
    with pipeline.inference():
        parts = [pipeline.decode(pipeline.encode(videos[i : i + 1]), None)[0] for i in range(len(videos))]
    return np.concatenate(parts)


# -------------------- figures


@torch.no_grad()
def shuffle_ratio(pipeline: VideoPipeline, episodes: Episodes, seed: int = 0) -> float:
    """The loss with the actions of other episodes over that with an episode's own, block after block given the true past.

    1 = the actions are ignored. The episodes are as long as clips of training.
    """
    vocabulary, config = pipeline.transformer.config.actions, pipeline.transformer.config
    assert vocabulary is not None and config.action_frames is not None
    own, other = 0.0, 0.0
    for start in range(0, len(episodes), BATCH):
        some = slice(start, start + BATCH)
        videos = episodes.videos[some]
        if len(videos) < 2:
            continue
        generator = torch.Generator(pipeline.device).manual_seed(seed + start)
        with pipeline.inference():
            latents = pipeline.encode(videos)
            text, visible = pipeline.text(pipeline.text.tokenise(episodes.captions[some]).to(pipeline.device))
        rows = torch.from_numpy(scaled(episodes.rows[some], vocabulary)).to(pipeline.device)
        acted = latent_actions(rows, config.action_frames)
        blocks = (1,) * latents.shape[2]
        for band in range(BANDS):
            draw = torch.rand(len(latents), 1, generator=generator, device=pipeline.device)
            t = ((band + draw) / BANDS).expand(-1, latents.shape[2])
            noise = torch.randn(latents.shape, generator=generator, device=pipeline.device)
            noisy = pipeline.diffusion.add_noise(latents, noise, t)
            for shuffled in (False, True):
                done = Actions(acted.roll(len(acted) // 2, dims=0) if shuffled else acted)
                with pipeline.inference():
                    output = pipeline.transformer(
                        noisy, t, text, visible, clean=latents, blocks=blocks, actions=done, clean_actions=done
                    )
                loss = float(pipeline.diffusion.loss(output.float(), latents, noise, noisy, t, None).sum())
                own, other = (own, other + loss) if shuffled else (own + loss, other)
    return other / own if own else float("nan")


def psnr(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Decibels of pictures (..., h, w, 3) uint8, (...)."""
    error = ((made.astype(np.float32) - true) ** 2).mean((-3, -2, -1))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-2))


def at_frames(values: np.ndarray) -> dict[str, float]:
    """The mean over videos of (n, f) values at the frames `AT` that there are."""
    return {str(at): round(float(values[:, at].mean()), 3) for at in AT if at < values.shape[1]}


def pose_errors(
    poses: Mapping[int, Poses], videos: np.ndarray, walks: Sequence[maze.Walk]
) -> dict[str, dict[str, float]]:
    """How far from the true pose the nearest known view was taken, at the frames `AT`: `cells`, `degrees` and `room`, the share in
    the right room."""
    found: dict[str, dict[str, float]] = {"cells": {}, "degrees": {}, "room": {}}
    for at in (0, *AT):
        if at >= videos.shape[1]:
            continue
        rows = []
        for video, walk in zip(videos, walks):
            known = poses[walk.layout]
            x, y, heading = known.nearest(video[at : at + 1])[0]
            true = walk.x[at], walk.y[at]
            same = known.room(np.array([x]), np.array([y]))[0] == known.room(*(np.array([c]) for c in true))[0]
            away = float(np.hypot(x - true[0], y - true[1]))
            rows.append((away, float(turned(heading, walk.heading[at])), bool(same)))
        away, degrees, room = zip(*rows)
        found["cells"][str(at)] = round(float(np.median(away)), 3)
        found["degrees"][str(at)] = round(float(np.median(degrees)), 2)
        found["room"][str(at)] = round(float(np.mean(room)), 4)
    return found


def all_poses(world: Maze, progress: Progress | None = None) -> dict[int, Poses]:
    """The known views of all layouts."""
    found = {}
    for number in range(world.layouts):
        found[number] = known_poses(world.seed, world.layouts, number, world.height, world.width)
        if progress:
            progress(number + 1, world.layouts)
    return found


# -------------------- trials


CHOICES: Sequence[set[str]] = ({"forward"}, {"back"}, {"left"}, {"right"}, set())
"""What one could do instead."""


def choices(
    pipeline: VideoPipeline, world: Maze, count: int, frames: int, seed: int, **settings: Any
) -> dict[str, Any]:
    """From each of `count` places each thing that one could do: is what is made nearest to what it leads to, of all of them?

    Returns: `told_apart`, the share; and the videos, true and made, (count, choices, f, h, w, 3).
    """
    walks = [[world.acted(HELD_OUT + i, [keys] * frames) for keys in CHOICES] for i in range(count)]
    flat = world.of([walk for row in walks for walk in row])
    made = roll_out(pipeline, flat.videos[:, 0], flat.rows, flat.captions, seed, **settings)
    shape = (count, len(CHOICES), *flat.videos.shape[1:])
    true, made = flat.videos.reshape(shape), made.reshape(shape)
    error = ((made[:, :, None, -1].astype(np.float32) - true[:, None, :, -1]) ** 2).mean((-3, -2, -1))
    own = error[:, range(len(CHOICES)), range(len(CHOICES))]
    # some things come to the same: forward and nothing in front of a wall
    same = [[[np.array_equal(a[-1], b[-1]) for b in row] for a in row] for row in true]
    best = np.where(np.array(same), np.inf, error).min(2)
    return {"told_apart": float((own <= best).mean()), "true": true, "made": made}


def stand_still(
    pipeline: VideoPipeline, first: np.ndarray, captions: Sequence[str], frames: int, seed: int, **settings: Any
) -> dict[str, Any]:
    """Nothing is done for so many frames: does anything move or rot?

    Returns: decibels of the last frame against the first that was made (`idle_psnr`), and of how the sharpness of edges has
        changed (`idle_sharpness`, a share); medians; and the videos.
    """
    vocabulary = pipeline.transformer.config.actions
    assert vocabulary is not None
    idle = vocabulary.row(vocabulary.action([0.0] * vocabulary.size))
    rows = np.tile(np.array(idle), (len(first), frames, 1))
    videos = roll_out(pipeline, first, rows, captions, seed, **settings)
    start = videos[:, min(pipeline.vae.config.temporal_stride, videos.shape[1] - 1)]
    sharp = sharpness(videos[:, -1]) / np.maximum(sharpness(start), 1e-6) - 1
    likeness = psnr(videos[:, -1], start)
    return {
        "idle_psnr": float(np.median(likeness)),
        "idle_psnr_worst": float(likeness.min()),
        "idle_sharpness": float(np.median(sharp)),
        "videos": videos,
    }


def sharpness(pictures: np.ndarray) -> np.ndarray:
    """Mean grey levels between neighbouring pixels, (n,)."""
    grey = pictures.astype(np.float32).mean(-1)
    return np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))


def circles(
    pipeline: VideoPipeline, world: Maze, poses: Mapping[int, Poses], count: int, turns: int, seed: int, **settings: Any
) -> dict[str, Any]:
    """Turn round so many times: is it the same room again, by the nearest known view?

    Returns: `same_room`, `same_view` (within a cell and one turn) as shares, `true_room`, the first of true views, `psnr` against
        the first frame after the VAE, and the videos.
    """
    frames = turns * CIRCLE + 1
    walks = [world.acted(HELD_OUT + i, [{"left" if i % 2 else "right"}] * frames) for i in range(count)]
    episodes = world.of(walks)
    made = roll_out(pipeline, episodes.videos[:, 0], episodes.rows, episodes.captions, seed, **settings)
    rooms, views, true = [], [], []
    for video, real, walk in zip(made, episodes.videos, walks):
        known = poses[walk.layout]
        room = known.room(walk.x[:1], walk.y[:1])[0]
        x, y, heading = known.nearest(video[-1:])[0]
        rooms.append(known.room(np.array([x]), np.array([y]))[0] == room)
        near = np.hypot(x - walk.x[0], y - walk.y[0]) <= 1 and turned(heading, walk.heading[0]) <= maze.TURN
        views.append(bool(near))
        at = known.nearest(real[-1:])[0]
        true.append(known.room(at[:1], at[1:2])[0] == room)
    likeness = float(np.mean(psnr(made[:, -1], episodes.videos[:, -1])))
    shares = {"same_room": float(np.mean(rooms)), "same_view": float(np.mean(views)), "true_room": float(np.mean(true))}
    return shares | {"psnr": likeness, "videos": made, "true": episodes.videos}
