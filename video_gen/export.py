"""Models and adapters as files for others: merged, in other tools' layouts, with a card, on the Hub."""

from collections.abc import Sequence
from pathlib import Path

from video_gen.sampling.pipeline import VideoPipeline


def merge_model(base: Path, loras: Sequence[str], output: Path) -> None:
    """Write a model with LoRAs, each FILE or FILE:SCALE, in its weights. Raises: as `VideoPipeline.load_lora`."""
    pipeline = VideoPipeline.from_pretrained(base)
    pipeline.load_loras(loras)
    pipeline.save_pretrained(output)
