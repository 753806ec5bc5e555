"""Which weights a run is to be remembered by: those with the best held-out figure, kept on disk beside the checkpoints."""

import json
from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from video_gen.errors import TrainingError
from video_gen.files import write_tensors, write_text
from video_gen.training.folder import whole_folder
from video_gen.training.judge import Judge
from video_gen.training.optim import named_parameters

FOLDER, WEIGHTS = "best", "weights.safetensors"


class Best:
    """The best averaged weights of a run, in `run_dir/best/`.

    What the disk holds counts, not what this process has seen: so a run that was killed and goes on has them, too.
    """

    def __init__(self, run_dir: Path, judge: Judge, say: Callable[[str], None], kept: bool):
        """Args: kept: whether the run's model is to be made of them; else only what happens is said."""
        self.folder, self.judge, self.say, self.kept = run_dir / FOLDER, judge, say, kept
        self.told = False

    def figures(self) -> dict[str, float] | None:
        """The held-out figures of the best weights, and their `step`; None before the first validation, and where only figures
        are there of weights that are to be kept.

        Raises: TrainingError if the file is damaged.
        """
        file = self.folder / "figures.json"
        if not file.exists() or (self.kept and not (self.folder / WEIGHTS).exists()):
            return None
        try:
            return {name: float(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise TrainingError(f"{file}: cannot be read ({error}); delete {self.folder}, and run it again") from None

    def consider(self, step: int, figures: Mapping[str, float], modules: Mapping[str, nn.Module]) -> None:
        """Keep the modules' weights if they are the best so far; say so if they are clearly worse than those.

        Raises: TrainingError if the figure is no number.
        """
        value, best = figures[self.judge.figure], self.figures()
        if isnan(value):
            raise TrainingError(
                f"step {step}: held-out {self.judge.figure} is NaN; the averaged weights are broken, and the checkpoint before is "
                "kept: a lower optim.learning_rate may help, with which the same command goes on"
            )
        if best is None or self.judge.better(value, best[self.judge.figure]):
            with whole_folder(self.folder) as new:
                if self.kept:
                    write_tensors(new / WEIGHTS, named_parameters(modules))
                write_text(new / "figures.json", json.dumps({"step": step, **figures}, indent=1))
        elif self.judge.clearly_worse(value, best[self.judge.figure]):
            self._tell(step, value, best)

    @torch.no_grad()
    def restore(self, modules: Mapping[str, nn.Module]) -> dict[str, float] | None:
        """Fill the modules with the best weights. Returns: their `figures`, or None if there are none."""
        figures = self.figures()
        if figures is None or not (self.folder / WEIGHTS).exists():
            return None
        stored = load_file(self.folder / WEIGHTS)
        for name, parameter in named_parameters(modules).items():
            parameter.copy_(stored[name])
        return figures

    def _tell(self, step: int, value: float, best: Mapping[str, float]) -> None:
        name, at = self.judge.figure, int(best["step"])
        then = (
            f"the model is made of the weights of step {at}" if self.kept else "loop.keep is 'last', so these are kept"
        )
        hint = "" if self.told else f"; {self.judge.remedy}"
        self.say(f"step {step}  held-out {name} {value:.4g} is worse than {best[name]:.4g} at step {at}: {then}{hint}")
        self.told = True
