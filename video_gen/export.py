"""Models and LoRAs as files for others: merged, in the layouts of diffusers and ComfyUI, a LoRA from one dialect to another."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from video_gen.errors import ConfigError, DataError
from video_gen.files import check_empty, check_new, write_tensors, write_text
from video_gen.model.lora import merge
from video_gen.model.lora_config import Dialect
from video_gen.model.lora_files import (
    file_and_scale,
    is_lora,
    lora_file,
    places_of,
    read_lora,
    write_lora,
)
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vision import VisionConfig
from video_gen.model.wan.writing import write_transformer, write_transformer_file, write_vae
from video_gen.model.weights import with_blocks
from video_gen.sampling.loras import read_for
from video_gen.sampling.parts import SECOND, Parts, parts_of
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.wan import scheduler_of

DIFFUSERS_VERSION = "0.35.0"
"""That a folder names, which is the first that knows all of this."""
EVERY_NAME = "2.1-flf2v-14b"
"""The public size that has all modules of all the others."""
Number = Literal["bf16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Say = Callable[[str], None]


def merge_model(base: Path, loras: Sequence[str], output: Path) -> None:
    """Write a model with LoRAs, each FILE or FILE:SCALE, in its weights.

    Raises: DataError if there is something in `output` already; as `VideoPipeline.load_lora`.
    """
    check_empty(output)
    pipeline = VideoPipeline.from_pretrained(base)
    pipeline.load_loras(loras)
    pipeline.save_pretrained(output)


def export(
    model: Path,
    output: Path,
    to: Dialect,
    dtype: Number = "bf16",
    loras: Sequence[str] = (),
    base: Path | None = None,
    say: Say = print,
) -> None:
    """Write a Wan-shaped model, or a LoRA, as another tool reads it.

    Args:
        output: a folder; or a .safetensors file, for a LoRA, and for ComfyUI's transformer alone.
        to: the layout; `kohya` is a dialect of LoRA files alone.
        dtype: of the transformer's numbers, or the LoRA's; what is small stays in float32.
        loras: to merge in first, as FILE or FILE:SCALE. `base`: of a LoRA that is not of a Wan model, the model it is for.
    Raises: DataError, ConfigError if something cannot be read, written, or said in that layout.
    """
    if is_lora(model):
        if loras:
            raise ConfigError(
                f"--lora is given, but {model} is a LoRA itself; merge both into their model, or export one"
            )
        export_lora(model, output, to, dtype, base)
        return
    if to == "kohya":
        raise ConfigError(f"{model}: is a model, and kohya's is a dialect of LoRA files; choose diffusers or comfy")
    parts = parts_of(model)
    if parts.config.family != "wan":
        raise ConfigError(
            f"{model}: is of this project's own kind, which no other tool reads; its folder is all there is to share"
        )
    alone = output.suffix == ".safetensors"
    if alone and to == "diffusers":
        raise ConfigError(f"{output}: diffusers reads a folder; give one")
    if alone:
        for file in _comfy_files(output, parts.config.boundary is not None):
            check_new(file)
    else:
        check_empty(output)
    transformer = parts.transformer("bf16" if dtype == "bf16" and not loras else "fp32")
    for text in loras:
        file, scale = file_and_scale(text)
        for network, changes in read_for(transformer, file):
            merge(network, changes, scale, file)
    (_to_diffusers if to == "diffusers" else _to_comfy)(parts, transformer, output, DTYPES[dtype], say)


# -------------------- models


def _to_diffusers(parts: Parts, transformer: nn.Module, output: Path, dtype: torch.dtype, say: Say) -> None:
    for part, place in zip(_networks(transformer), ("transformer", SECOND)):
        write_transformer(part, output / place, dtype)
    sizes: WanTransformerConfig = next(_networks(transformer)).config
    scheduler, note = scheduler_of(parts.config.sampling)
    if note:
        say(note)
    write_text(output / "scheduler/scheduler_config.json", json.dumps(scheduler, indent=2))
    pictures = sizes.beside_channels > 0
    index: dict[str, Any] = {
        "_class_name": "WanImageToVideoPipeline" if pictures else "WanPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "expand_timesteps": sizes.first_frame,
    }
    if parts.config.boundary is not None:
        index |= {SECOND: index["transformer"], "boundary_ratio": parts.config.boundary}
    vae: Any = parts.vae()
    write_vae(vae, output / "vae")
    text: Any = parts.text()
    text.model.save_pretrained(output / "text_encoder")
    text.tokeniser.save_pretrained(output / "tokenizer")
    index["text_encoder"] = ["transformers", type(text.model).__name__]
    index["tokenizer"] = ["transformers", type(text.tokeniser).__name__]
    if parts.vision is not None:
        seeing = parts.vision()
        seeing.model.save_pretrained(output / "image_encoder")  # type: ignore[operator]
        _write_processor(seeing.config, output / "image_processor")
        index |= {
            "image_encoder": ["transformers", "CLIPVisionModel"],
            "image_processor": ["transformers", "CLIPImageProcessor"],
        }
    write_text(output / "model_index.json", json.dumps(index, indent=2))  # last: what has one is whole


def _write_processor(config: VisionConfig, folder: Path) -> None:
    values = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": config.size, "width": config.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
    }
    write_text(folder / "preprocessor_config.json", json.dumps(values, indent=2))


def _to_comfy(parts: Parts, transformer: nn.Module, output: Path, dtype: torch.dtype, say: Say) -> None:
    networks, name = list(_networks(transformer)), output.stem
    for network, file in zip(networks, _comfy_files(output, len(networks) > 1), strict=True):
        write_transformer_file(network, file, dtype)
    if output.suffix == ".safetensors":
        return
    vae: Any = parts.vae()
    write_tensors(output / "vae" / f"{name}_vae.safetensors", vae.state_dict(), {"format": "pt"})
    say("the text encoder is the family's own, as it was, and not written; take umt5_xxl_fp16.safetensors")


def _comfy_files(output: Path, experts: bool) -> list[Path]:
    """Of the transformer, or of two experts: in a folder, or as `output` itself is called."""
    folder = output.parent if output.suffix == ".safetensors" else output / "diffusion_models"
    noises = ("_high_noise", "_low_noise") if experts else ("",)
    return [folder / f"{output.stem}{noise}.safetensors" for noise in noises]


def _networks(transformer: nn.Module) -> Iterator[WanTransformer]:
    for part in with_blocks(transformer):
        assert isinstance(part, WanTransformer)
        yield part


# -------------------- LoRA


def export_lora(path: Path, output: Path, to: Dialect, dtype: Number = "fp32", base: Path | None = None) -> None:
    """Write a LoRA in another dialect. Raises: as `export`."""
    if base is not None:
        model: nn.Module = parts_of(base).transformer("bf16")
    else:
        with torch.device("meta"):
            model = WanTransformer(WanTransformerConfig.preset(EVERY_NAME))
    try:
        found = read_lora(path, places_of(model))
    except DataError as error:
        hint = "; if it is not of a Wan model, say --base MODEL" if base is None else ""
        raise DataError(f"{error}{hint}") from None
    file = output if output.suffix == ".safetensors" else output / lora_file(path).name
    check_new(file)
    kept = {name: value for name, value in found.metadata.items() if name not in ("format", "lora_adapter_metadata")}
    write_lora(file, found.changes, kept, to, getattr(model, "foreign_name", None), DTYPES[dtype])
