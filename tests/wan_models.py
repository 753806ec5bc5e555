"""Small random models of the Wan family by diffusers' classes, saved in each layout in which public models come."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from video_gen.model.umt5 import INNER, OUTER
from video_gen.model.wan.names import to_original
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.wan.vae_names import config_to_diffusers, in_our_names

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "circle", "blue", "square", "fast"]
WIDTH = 32
SIZES: dict[str, Any] = dict(
    num_attention_heads=1, attention_head_dim=128, text_dim=WIDTH, freq_dim=32, ffn_dim=160, num_layers=2
)
PICTURES = dict(in_channels=36, out_channels=16)
CLIP = dict(image_dim=24, added_kv_proj_dim=128)
VARIANTS: dict[str, dict[str, Any]] = {
    "t2v": {},
    "i2v": PICTURES | CLIP,
    "a14b-t2v": dict(experts=0.875),
    "a14b-i2v": PICTURES | dict(experts=0.9),
    "ti2v": dict(in_channels=48, out_channels=48, expand=True),
}
SEEN = 8
"""Pixels of a side that the small CLIP sees."""


def build(variant: str = "t2v", scheduler: Any = None, seed: int = 0) -> Any:
    """diffusers' pipeline of random weights."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'video-gen[bench]'")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = dict(VARIANTS[variant])
    boundary, expand = sizes.pop("experts", None), sizes.pop("expand", False)
    networks = [noisy(diffusers.WanTransformer3DModel(**(SIZES | sizes))) for _ in range(2 if boundary else 1)]
    text = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=len(WORDS), d_model=WIDTH, d_kv=8, d_ff=24, num_layers=2, num_heads=4, pad_token_id=0
        )
    )
    vae = WanVAEConfig.preset("tiny-2.2" if expand else "tiny-2.1")
    parts: dict[str, Any] = dict(
        tokenizer=tokeniser(),
        text_encoder=text.eval(),
        vae=noisy(diffusers.AutoencoderKLWan.from_config(config_to_diffusers(vae)), 0.03),
        scheduler=scheduler
        or diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=networks[0],
    )
    if boundary:
        parts |= dict(transformer_2=networks[1], boundary_ratio=boundary)
    if sizes.get("image_dim"):
        seen = transformers.CLIPVisionConfig(
            hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=1, image_size=SEEN, patch_size=4,
            hidden_act="gelu",
        )  # fmt: skip
        side = dict(height=SEEN, width=SEEN)
        parts["image_encoder"] = transformers.CLIPVisionModel(seen).eval()
        parts["image_processor"] = transformers.CLIPImageProcessor(size={"shortest_edge": SEEN}, crop_size=side)
    pictures = "i2v" in variant
    kind = diffusers.WanImageToVideoPipeline if pictures else diffusers.WanPipeline
    pipe = kind(**parts, expand_timesteps=expand)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noisy(module: Any, by: float = 0.05) -> Any:
    """With parameters that are none of them zero."""
    for parameter in module.parameters():
        parameter.data.add_(by * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


def tokeniser() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


# -------------------- layouts


def save_diffusers(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder, max_shard_size="200KB")
    return folder


def save_original(pipe: Any, folder: Path) -> Path:
    """As the first release: config.json, the transformer in several files, VAE and text encoder beside it (but as safetensors)."""
    experts = [pipe.transformer] + ([pipe.transformer_2] if pipe.transformer_2 is not None else [])
    for network, name in zip(experts, ("high_noise_model", "low_noise_model") if len(experts) > 1 else (".",)):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        sharded(original(network), place, "diffusion_pytorch_model")
        told = network.config
        values = dict(
            _class_name="WanModel", _diffusers_version="0.30.0", dim=128, eps=told.eps, ffn_dim=told.ffn_dim,
            freq_dim=told.freq_dim, in_dim=told.in_channels, model_type="i2v" if told.in_channels > 16 else "t2v",
            num_heads=1, num_layers=told.num_layers, out_dim=told.out_channels, text_len=512,
        )  # fmt: skip
        (place / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(in_our_names(pipe.vae.state_dict()), folder / "Wan2.1_VAE.safetensors")
    save_file(umt5(pipe.text_encoder), folder / "models_t5_umt5-xxl-enc-bf16.safetensors")
    pipe.tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    if getattr(pipe, "image_encoder", None) is not None:
        save_file(seeing(pipe.image_encoder), folder / "clip_vision_h.safetensors")
    return folder


def save_split(pipe: Any, folder: Path, prefix: str = "") -> Path:
    """As ComfyUI has it: a folder for each kind of part, a file for each part."""
    for name in ("diffusion_models", "vae", "text_encoders", "clip_vision"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    named = {"": pipe.transformer}
    if pipe.transformer_2 is not None:
        named = {"_high_noise": pipe.transformer, "_low_noise": pipe.transformer_2}
    for noise, network in named.items():
        state = {prefix + name: x for name, x in original(network).items()}
        save_file(state, folder / "diffusion_models" / f"wan{noise}_14B.safetensors")
    save_file(in_our_names(pipe.vae.state_dict()), folder / "vae" / "wan_2.1_vae.safetensors")
    text = {name: x.clone() for name, x in pipe.text_encoder.state_dict().items() if "embed_tokens" not in name}
    save_file(
        text | {"spiece_model": torch.zeros(3, dtype=torch.uint8)}, folder / "text_encoders" / "umt5_xxl.safetensors"
    )
    pipe.tokenizer.save_pretrained(folder / "text_encoders" / "umt5-xxl")
    if getattr(pipe, "image_encoder", None) is not None:
        save_file(seeing(pipe.image_encoder), folder / "clip_vision" / "clip_vision_h.safetensors")
    return folder


def original(network: Any) -> dict[str, torch.Tensor]:
    return {to_original(name): x.clone() for name, x in network.state_dict().items()}


def sharded(state: dict[str, torch.Tensor], folder: Path, name: str, count: int = 2) -> None:
    """In several files, and an index of them."""
    names, places = sorted(state), {}
    for i in range(count):
        file = f"{name}-{i + 1:05}-of-{count:05}.safetensors"
        save_file({key: state[key] for key in names[i::count]}, folder / file)
        places |= dict.fromkeys(names[i::count], file)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (folder / f"{name}.safetensors.index.json").write_text(index, encoding="utf-8")


def umt5(encoder: Any) -> dict[str, torch.Tensor]:
    """Under the original release's names."""
    outer, inner = ({theirs: ours for ours, theirs in table.items()} for table in (OUTER, INNER))
    found = {}
    for name, x in encoder.state_dict().items():
        if "embed_tokens" in name:
            continue
        _, *place = name.split(".", 3)
        found[outer[name] if name in outer else f"blocks.{place[1]}.{inner[place[2]]}"] = x.clone()
    return found


def seeing(encoder: Any) -> dict[str, torch.Tensor]:
    """Under the names of files of whole CLIP models."""
    state = {
        f"vision_model.{name.removeprefix('vision_model.')}": x.clone() for name, x in encoder.state_dict().items()
    }
    return state | {"visual_projection.weight": torch.zeros(4, 24)}


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: x for file in sorted(folder.glob("*.safetensors")) for name, x in load_file(file).items()}
