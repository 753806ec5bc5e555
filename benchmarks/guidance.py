"""How guidance shows in motion: a row of figures per setting, on the world `bounce`.

    python benchmarks/guidance.py runs/demo/diffusion/model --num-frames 17
    python benchmarks/guidance.py runs/demo/diffusion/model --only confirm --num-videos 256 --seed 50000

Every row has the same captions and seeds. The model's own settings hold for what a row does not name.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from video_gen.errors import exit_code
from video_gen.evaluate import evaluate_motion

TEXT: list[dict[str, Any]] = [{"guidance_scale": scale} for scale in (1.0, 1.5, 2.0, 3.0, 5.0)]
PARTS: list[dict[str, Any]] = [
    {"guidance_scale": 2.0, "guidance_interval": (0.2, 1.0)},
    {"guidance_scale": 2.0, "guidance_interval": (0.0, 0.8)},
    {"guidance_scale": 2.0, "guidance_rescale": 0.7},
    {"guidance_scale": 2.0, "guidance_optimal_scale": True},
    {"guidance_scale": 2.0, "guidance_zero_init": 0.04},
    {"guidance_scale": 3.0, "guidance_parallel": 0.0},
    {"guidance_scale": 5.0, "guidance_parallel": 0.0},
    {"guidance_scale": 5.0, "guidance_parallel": 0.0, "guidance_limit": 0.1},
]
CONFIRM: list[dict[str, Any]] = [
    {"guidance_scale": text, "history_scale": history} for text in (1.0, 2.0) for history in (1.0, 1.5)
]
HISTORY: list[dict[str, Any]] = [
    {"guidance_scale": text, "history_scale": history} for text in (1.0, 2.0) for history in (1.0, 1.25, 1.5, 2.0)
]
SETS = {"text": TEXT, "parts": PARTS, "history": HISTORY, "confirm": CONFIRM}
FIGURES = ("persistence", "caption_accuracy", "residual_px", "motion", "colour_identity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--num-videos", type=int, default=64)
    parser.add_argument("--num-frames", type=int, default=None)
    parser.add_argument("--seed", type=int, default=10_000, help="of captions and noise; another one confirms a choice")
    parser.add_argument("--only", choices=SETS, default=None)
    args = parser.parse_args()
    print(f"| settings | {' | '.join(FIGURES)} |\n| --- |{' --- |' * len(FIGURES)}")
    for name, rows in SETS.items():
        for settings in rows if args.only in (None, name) else ():
            options = {"seed": args.seed, "num_frames": args.num_frames, **settings}
            found = evaluate_motion(args.model, args.num_videos, **options)["figures"]
            named = ", ".join(f"{key} {value}" for key, value in settings.items())
            print(f"| {named} | {' | '.join(f'{found[figure]:.3g}' for figure in FIGURES)} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code("guidance", main))
