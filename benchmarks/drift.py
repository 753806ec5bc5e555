"""What holds drift off: a trained model, fine-tuned with one choice changed each, measured to frame 1,024 side by side.

    python benchmarks/drift.py --model bounce --world bounce --output runs/drift-bounce

Rows: the model with the settings of SAMPLED, and with the weights that each of TRAINED leads to on long clips of its world. One
report with all of them: OUTPUT/report/drift.html, and the table as text. Interrupted, the same command goes on.
"""

import sys
from pathlib import Path
from typing import Any, Literal

from video_gen.command_line import read
from video_gen.config import Config
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import ConfigError, exit_code
from video_gen.evaluate import evaluate_drift
from video_gen.evaluation.tables import show_drift
from video_gen.progress import bar
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_diffusion
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.recipes import DiffusionRun, ModeConfig

SAMPLED: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "blocks-of-1": {"long_block_frames": 1},
    "history-noise-0.1": {"history_noise": 0.1},
    "history-noise-0.2": {"history_noise": 0.2},
    "history-scale-1.5": {"history_scale": 1.5},
}
"""Changes of how the model samples."""
TRAINED: dict[str, dict[str, dict[str, Any]]] = {
    "trained": {},
    "no-noise": {"modes": {"noisy_history": 0.0}},
    "more-noise": {"modes": {"noisy_history": 0.8, "history_noise": 0.7}},
    "resampled": {"modes": {"resampled_history": 0.5}},
    "no-sink": {"transformer": {"sink": 0}},
    "window-1": {"transformer": {"window": 1}},
    "window-4": {"transformer": {"window": 4}},
}
"""Changes of the fine-tuning, which else is: noise up to t = 0.4 on half of the histories, and the model's sink and window."""


class Settings(Config):
    """Fine-tune variants of a model and compare their drift."""

    model: Path = Path("bounce")
    world: Literal["bounce", "kicks", "digits"] = "bounce"
    """The world that the model was trained on."""
    output: Path = Path("runs/drift-table")
    variants: tuple[str, ...] = (*SAMPLED, *TRAINED)
    """Which rows; see SAMPLED and TRAINED."""
    num_clips: int = 2000
    num_frames: int = 65
    """Of a training clip."""
    train_steps: int = 600
    frames: int = 1024
    num_videos: int = 32
    num_steps: int | None = None
    """Solver steps per block; default the model's."""


def main(settings: Settings) -> None:
    unknown = sorted(set(settings.variants) - set(SAMPLED) - set(TRAINED))
    if unknown:
        raise ConfigError(f"variants: no '{unknown[0]}'; there are {', '.join((*SAMPLED, *TRAINED))}")
    models = []
    for name in settings.variants:
        folder = settings.output / name
        if name in SAMPLED:
            save(settings.model, folder, settings.model, SAMPLED[name])
        else:
            train_diffusion(recipe(settings, TRAINED[name]), folder / "run")
            save(folder / "run" / "model", folder, settings.model, {})
        models.append(folder / "model")
    sampling = {} if settings.num_steps is None else {"num_steps": settings.num_steps}
    report = settings.output / "report"
    show_drift(evaluate_drift(models, report, settings.world, settings.frames, settings.num_videos, **sampling))


def recipe(settings: Settings, changes: dict[str, dict[str, Any]]) -> DiffusionRun:
    """The fine-tuning of one variant, whose clips are rendered if they are not there."""
    pipe = VideoPipeline.from_pretrained(settings.model)
    clip = pipe.config.clip
    size = {"num_frames": settings.num_frames, "fps": clip.fps, "height": clip.height, "width": clip.width}
    data = ClipConfig(folder=settings.output / "data", **size)
    with bar("rendering", "clips") as progress:
        render_world(WorldConfig(kind=settings.world, num_clips=settings.num_clips, **size), data.folder, progress)
    run = DiffusionRun(
        init=settings.model,
        data=data,
        vae=settings.model / "vae",
        latents=settings.output / "latents",
        transformer=pipe.transformer.config,
        text=pipe.text.config,
        diffusion=pipe.config.diffusion,
        sampling=pipe.config.sampling,
        modes=ModeConfig(teacher_forcing=0.95, block_sizes=(1, 2, 2)),
        loop=LoopConfig(train_steps=settings.train_steps, batch_size=8, ema_decay=0.98, compile="off"),
        optim=OptimConfig(
            optimizer="muon",
            learning_rate=1e-3,
            adam_learning_rate=1.5e-3,
            adam_names=("embed", "modulation"),
            schedule="linear",
            final_lr=0,
        ),
    )
    return run.replace(**{part: getattr(run, part).replace(**values) for part, values in changes.items()})


def save(source: Path, folder: Path, model: Path, sampling: dict[str, Any]) -> None:
    """The model `source` in `folder`/model, which samples like `model` but for these settings: rows differ in nothing else."""
    config = VideoPipeline.from_pretrained(model).config
    pipe = VideoPipeline.from_pretrained(source)
    parts = (pipe.vae, pipe.transformer, pipe.text, config.diffusion, config.clip)
    VideoPipeline(*parts, config.sampling.replace(**sampling), config.world).save_pretrained(folder / "model")


if __name__ == "__main__":
    sys.exit(exit_code("drift", lambda: main(read(Settings, sys.argv[1:], "drift"))))
