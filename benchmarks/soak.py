"""One long stream: does its memory grow, does a block take longer?

    python benchmarks/soak.py --model runs/demo/diffusion/model --frames 10000

Prints resident memory and time per block along the stream, and how much both grow after frame 500, as the straight line
through all points says (memory) and as the medians of the first and the last fifth (time). Time is the process's CPU time
beside that of the clock, since others may use the machine. Without a model: a random one of 64x64 pixels, as fast as any.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from video_gen.errors import exit_code
from video_gen.evaluation.chart import chart
from video_gen.evaluation.report import Section, table, write_report
from video_gen.evaluation.words import Words
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline

SETTLED = 500
"""Frames after which nothing should grow."""
ROWS = 20


def random_pipeline() -> VideoPipeline:
    """The demo's sizes at 64x64 with fresh weights: what it makes is noise, its cost is that of a trained model."""
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=16, stem=4, widths=(64,), blocks=1)).eval()
    vae.fit_linear_path(torch.rand(8, 3, 9, 64, 64) * 2 - 1)
    transformer = VideoTransformer.from_preset("tiny", patch_size=2, window=2, sink=1).eval()
    clip = ClipSettings(num_frames=17, fps=24, height=64, width=64)
    text = ByteTextEncoder(TextConfig()).eval()
    return VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, SamplingConfig())


def resident() -> float:
    """Megabytes of this process in memory, Linux."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6


def soak(pipeline: VideoPipeline, frames: int, block_frames: int | None) -> np.ndarray:
    """(blocks, 4): frame, megabytes, milliseconds by the clock, milliseconds of CPU."""
    rows, shown = [], 0
    settings = dict(solver="renoise", num_steps=4, guidance_scale=1.0)
    with pipeline.stream("a red circle, fast", block_frames=block_frames, **settings) as stream:
        while shown < frames:
            clock, cpu = time.perf_counter(), time.process_time()
            shown += len(next(stream))
            taken = (1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - cpu))
            rows.append((shown, resident(), *taken))
    return np.array(rows)


def growth(rows: np.ndarray) -> dict[str, float]:
    """Percent after frame `SETTLED`."""
    late = rows[rows[:, 0] > SETTLED]
    slope, start = np.polyfit(late[:, 0] - SETTLED, late[:, 1], 1)
    fifth = max(1, len(late) // 5)
    first, last = (np.median(part[:, 2:], axis=0) for part in (late[:fifth], late[-fifth:]))
    clock, cpu = 100 * (last / first - 1)
    return {
        "memory, line %": 100 * slope * (late[-1, 0] - SETTLED) / start,
        "memory, end to end %": 100 * (late[-1, 1] / late[0, 1] - 1),
        "time per block, clock %": clock,
        "time per block, CPU %": cpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model folder; default: a random model of 64x64 pixels")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--block-frames", type=int)
    parser.add_argument("--threads", type=int, default=1, help="for each of the two things a stream does at once")
    parser.add_argument("--output", type=Path, help="an .html file for the curves")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = VideoPipeline.from_pretrained(args.model) if args.model else random_pipeline()
    started = time.perf_counter()
    rows = soak(pipeline, args.frames, args.block_frames)
    rate = rows[-1, 0] / (time.perf_counter() - started)
    head = ("frame", "MB resident", "ms per block", "ms of CPU per block")
    parts = [part for part in np.array_split(rows, min(ROWS, len(rows)))]
    summary = [(int(p[-1, 0]), *(float(np.median(p[:, i])) for i in (1, 2, 3))) for p in parts]
    print("".join(f"{name:>22}" for name in head))
    for row in summary:
        print("".join(f"{value:22.1f}" if isinstance(value, float) else f"{value:22d}" for value in row))
    for name, value in growth(rows).items() if args.frames > 2 * SETTLED else ():
        print(f"growth after frame {SETTLED}: {name[:-2]} {value:+.2f} %")
    print(
        f"{rate:.1f} frames/s, {rate / pipeline.config.clip.fps:.2f} x real time, {pipeline.config.clip.width} pixels"
    )
    if args.output:
        charts = [chart(Words(n), {n: [(r[0], r[i]) for r in summary]}, "frame") for i, n in enumerate(head) if i]
        body = "".join(charts) + table(head, [[f"{value:g}" for value in row] for row in summary])
        write_report(args.output, "Soak", "One long stream.", [Section("Along the stream", body)])


if __name__ == "__main__":
    sys.exit(exit_code("soak", main))
