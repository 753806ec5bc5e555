"""What holds drift off: short trainings that differ in one choice each, measured to frame 1,024 side by side.

    python benchmarks/drift.py --world bounce --output runs/drift-bounce

For the world: clips, a VAE (`configs/demo-vae.yaml`) and, per variant, a transformer (`configs/demo-diffusion.yaml` with 33-frame
clips, blocks of 1, 2 and 4). Then one report with all variants: OUTPUT/report/drift.html, and the table as text. Interrupted, the
same command goes on. A variant costs as much as the demo's transformer; --train-steps says how long.
"""

from pathlib import Path
from typing import Any, Literal

import tyro

from video_gen.config import Config
from video_gen.data.config import WorldConfig
from video_gen.data.worlds import render_world
from video_gen.demo import recipes
from video_gen.evaluate import evaluate_drift, show_drift
from video_gen.progress import bar
from video_gen.train import train_diffusion, train_vae

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {},
    "no-noise": {"modes": {"noisy_history": 0.0}},
    "more-noise": {"modes": {"noisy_history": 0.8, "history_noise": 0.7}},
    "resampled": {"modes": {"resampled_history": 0.5}},
    "no-sink": {"transformer": {"sink": 0}},
    "window-1": {"transformer": {"window": 1}},
    "window-4": {"transformer": {"window": 4}},
}
"""Changes of the base, which is: noise up to t = 0.4 on half of the histories, sink 1, window 2."""


class Settings(Config):
    """Train variants and compare their drift."""

    world: Literal["bounce", "kicks", "digits"] = "bounce"
    output: Path = Path("runs/drift-table")
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which rows; see VARIANTS."""
    num_clips: int = 3000
    num_frames: int = 33
    """Of a training clip."""
    vae_steps: int = 1300
    train_steps: int = 1700
    frames: int = 1024
    num_videos: int = 32


def main(settings: Settings) -> None:
    vae_run, run = recipes(settings.output, short=False)
    size = {"num_frames": settings.num_frames, "height": run.data.height, "width": run.data.width}
    data = run.data.replace(**size)
    world = WorldConfig(kind=settings.world, num_clips=settings.num_clips, fps=data.fps, **size)
    with bar("rendering", "clips") as progress:
        render_world(world, data.folder, progress)
    vae_run = vae_run.replace(loop=vae_run.loop.replace(train_steps=settings.vae_steps))
    train_vae(vae_run, settings.output / "vae")  # on clips of 17 frames, as in the demo: two windows a file
    run = run.replace(
        data=data,
        modes=run.modes.replace(block_sizes=(1, 2, 4)),
        loop=run.loop.replace(train_steps=settings.train_steps),
    )
    unknown = sorted(set(settings.variants) - set(VARIANTS))
    if unknown:
        raise SystemExit(f"variants: no '{unknown[0]}'; there are {', '.join(VARIANTS)}")
    models = []
    for name in settings.variants:
        changes = {part: getattr(run, part).replace(**values) for part, values in VARIANTS[name].items()}
        folder = settings.output / name
        train_diffusion(run.replace(**changes), folder)
        models.append(folder / "model")
    found = evaluate_drift(models, settings.output / "report", settings.world, settings.frames, settings.num_videos)
    show_drift(found)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
