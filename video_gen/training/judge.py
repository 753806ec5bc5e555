"""By which held-out figure the weights of a run are compared, for each kind of run. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Judge:
    """By which of a task's held-out figures its weights are compared."""

    figure: str
    higher: bool
    """Whether more is better."""
    margin: float
    """What a figure may get worse by, as a share of the best, before a word is said."""
    remedy: str
    """What helps where it gets worse."""

    def better(self, value: float, than: float) -> bool:
        return value > than if self.higher else value < than

    def clearly_worse(self, value: float, than: float) -> bool:
        return self.better(than, value) and abs(value - than) > self.margin * abs(than)


JUDGES: Mapping[str, Judge | None] = {
    "vae": Judge(
        "psnr",
        higher=True,
        margin=0.002,
        remedy="too few different pictures, or steps that are too large: a smaller `crop` or `data.stride` shows more of the same "
        "files; more files show more; or lower optim.learning_rate",
    ),
    "diffusion": Judge(
        "loss",
        higher=False,
        margin=0.01,
        remedy="the clips are learned by heart: more files, a smaller data.stride, fewer steps or a smaller transformer help",
    ),
    "distill": None,  # a student is closest to its teacher at the end; what it is held to moves with it
}
"""By what `video-gen train` is followed by."""
