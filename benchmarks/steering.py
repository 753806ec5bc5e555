"""Why a stream does not follow a caption that changes: one model, with one thing changed each after the switch.

    python benchmarks/steering.py --model bounce

Each row samples the same switches as `video-gen evaluate steering`; it prints the share that follows. What training has to do with
it: train on a world without changes (`--changes 0`) and measure with that command.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from video_gen.command_line import read
from video_gen.config import Config
from video_gen.data.captions import caption
from video_gen.errors import ConfigError, exit_code
from video_gen.evaluation.steering import BATCH, SHOWN_BEFORE, SWITCHES, Switch, draw_switches, follows
from video_gen.progress import bar
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.rollout import RolloutState, advance, begin
from video_gen.sampling.solvers import generators_for

AFTER = (0.5, 1.0, 2.0, 4.0)
VARIANTS: dict[str, str] = {
    "as-it-is": "nothing else is changed",
    "guidance-off": "guidance_scale 1, from the start",
    "guidance-4": "guidance_scale 4, from the switch on",
    "guidance-8": "guidance_scale 8, from the switch on",
    "sink-moves": "the sink is a frame just before the switch",
    "noisy-history": "history_noise 0.3, from the switch on",
    "no-history": "the first block after the switch sees none, and is a new beginning",
}


class Settings(Config):
    """Steer streams of a model in several ways."""

    model: Path = Path("bounce")
    switches: int = 60
    num_steps: int = 8
    first_steps: int = 50
    seed: int = 10_000
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which rows; see VARIANTS."""


def main(settings: Settings) -> None:
    unknown = sorted(set(settings.variants) - set(VARIANTS))
    if unknown:
        raise ConfigError(f"variants: no '{unknown[0]}'; there are {', '.join(VARIANTS)}")
    pipeline, wanted = VideoPipeline.from_pretrained(settings.model), draw_switches(settings.switches, settings.seed)
    fps = pipeline.config.clip.fps
    heads = (*(f"{t:g} s" for t in AFTER), *SWITCHES)
    table = Table(Column(no_wrap=True), *heads, title="followed after; at the right by kind, after 2 s")
    for name in settings.variants:
        rows: list[dict[float, bool]] = []
        with bar(name, "streams") as progress:
            for start in range(0, len(wanted), BATCH):
                some = wanted[start : start + BATCH]
                videos, at = roll(pipeline, some, name, settings)
                rows += [{t: follows(v, s, at + round(t * fps)) for t in AFTER} for v, s in zip(videos, some)]
                progress(len(rows), len(wanted))
        shares = [np.mean([row[t] for row in rows]) for t in AFTER]
        kinds = [np.mean([row[2.0] for row, s in zip(rows, wanted) if s.kind == kind]) for kind in SWITCHES]
        table.add_row(name, *(f"{share:.0%}" for share in (*shares, *kinds)))
    console = Console()
    console.print(table)
    for name in settings.variants:
        console.print(f"{name}: {VARIANTS[name]}", highlight=False)


def roll(pipeline: VideoPipeline, wanted: Sequence[Switch], variant: str, settings: Settings) -> tuple[np.ndarray, int]:
    """Streams through their switches, uint8 (n, f, h, w, 3), and the frame at which the first block after it begins."""
    before = pipeline.config.sampling.replace(num_steps=settings.num_steps, first_steps=settings.first_steps)
    before = before.replace(guidance_scale=1.0) if variant == "guidance-off" else before
    after = before
    if variant.startswith("guidance-") and variant != "guidance-off":
        after = before.replace(guidance_scale=float(variant.removeprefix("guidance-")))
    if variant == "noisy-history":
        after = before.replace(history_noise=0.3)
    fps, stride = pipeline.config.clip.fps, pipeline.vae.config.temporal_stride
    size = pipeline.long_block_frames(before)
    first = 1 + -(-round(SHOWN_BEFORE * fps) // (size * stride))
    total = first + -(-round((AFTER[-1] * fps) + 1) // (size * stride))
    c, h, w = pipeline.latent_frame()
    parts, decoder, earlier, at = [], None, None, 0
    with pipeline.inference():
        models = [
            pipeline.block_model([caption(getattr(s, when)) for s in wanted], sampling, size)
            for when, sampling in (("before", before), ("after", after))
        ]
        state = begin(models[0], None, (), generators_for([s.seed for s in wanted], pipeline.device))
        for index in range(total):
            switched = index >= first
            if index == first:
                at = sum(part.shape[1] for part in parts)
                assert earlier is not None
                if variant == "sink-moves":
                    last = earlier[:, :, -1:]
                    history = models[1].append(None, last, last.new_zeros(len(last)))
                    state = RolloutState(history, state.block, state.randomness)
                elif variant == "no-history":
                    state = RolloutState(None, None, state.randomness)
            earlier, shape = state.block, (c, size if index else 1, h, w)
            sampling = after if switched else before
            state = advance(models[switched], state, shape, pipeline.diffusion, sampling, pipeline.device)
            assert state.block is not None
            frames, decoder = pipeline.decode(state.block, decoder)
            parts.append(frames)
    return np.concatenate(parts, axis=1), at


if __name__ == "__main__":
    sys.exit(exit_code("steering", lambda: main(read(Settings, sys.argv[1:], "steering"))))
