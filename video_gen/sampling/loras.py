"""Which networks of a model a LoRA is for: all, or of two experts the one that it tells of."""

from pathlib import Path

from torch import nn

from video_gen.errors import DataError
from video_gen.model.families import EXPERTS, expert_of
from video_gen.model.lora import Changes
from video_gen.model.lora_files import lora_file, places_of, read_lora, read_metadata
from video_gen.model.wan.experts import Experts


def read_for(transformer: nn.Module, path: str | Path) -> list[tuple[nn.Module, Changes]]:
    """The networks that a LoRA is for, and what it changes in each.

    Of two experts it is for the one that it notes, or that its name or its folder's tells of (`high_noise`, `low_noise`), else for
    both.
    Raises: DataError if it cannot be read, notes another expert, or if a key of it belongs nowhere in this model.
    """
    networks = [transformer]
    if isinstance(transformer, Experts):
        networks = [getattr(transformer, kind) for kind in experts_of(path)]
    return [(network, read_lora(path, places_of(network)).changes) for network in networks]


def experts_of(path: str | Path) -> tuple[str, ...]:
    """Raises: DataError if the file cannot be read, or notes an expert that is none of two."""
    file = lora_file(path)
    noted = read_metadata(file).get("expert")
    if noted not in (*EXPERTS, None):
        raise DataError(
            f"{file}: notes that it is for the expert '{noted}', and there are {' and '.join(EXPERTS)}; mend that in its metadata"
        )
    kind = noted or expert_of(file) or expert_of(Path(path))
    return EXPERTS if kind is None else (kind,)
