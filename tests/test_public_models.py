"""Public models come in: every layout gives the same weights and tokens; what is not whole or not known is one line."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from wan_models import (
    SEEN,
    VARIANTS,
    build,
    copied,
    original,
    save_diffusers,
    save_original,
    save_split,
    sharded,
    weights_in,
)

from video_gen.errors import ConfigError, DataError
from video_gen.model.families import EXPERTS, expert_of, is_transformer
from video_gen.model.foreign import Part
from video_gen.model.shards import Shards, files_of
from video_gen.model.wan.config import PRESETS, WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.loading import transformer_config
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae_names import in_our_names
from video_gen.model.weights import with_blocks
from video_gen.sampling.loras import experts_of
from video_gen.sampling.parts import parts_of
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.wan import NEGATIVE_PROMPT

LAYOUTS = {"diffusers": save_diffusers, "original": save_original, "split": save_split}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pipeline of each variant, and its folder in each layout; made when it is asked for."""
    made, pipes, root = {}, {}, tmp_path_factory.mktemp("models")

    def of(variant: str, layout: str):
        pipe = pipes.setdefault(variant, None) or build(variant)
        pipes[variant] = pipe
        if (variant, layout) not in made:
            made[variant, layout] = LAYOUTS[layout](pipe, root / variant / layout)
        return pipe, made[variant, layout]

    return of


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(found[name].equal(x) for name, x in wanted.items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_is_the_same_model(variant, layout, saved):
    pipe, folder = saved(variant, layout)
    model = VideoPipeline.from_pretrained(folder)
    experts = [pipe.transformer] + ([pipe.transformer_2] if pipe.transformer_2 is not None else [])
    for ours, theirs in zip(with_blocks(model.transformer), experts, strict=True):
        assert equal(ours.state_dict(), original(theirs))
    assert equal(model.vae.state_dict(), in_our_names(pipe.vae.state_dict()))
    texts = ["a red circle", "", "a  blue &amp; fast square"]
    wanted, _ = pipe.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=512)
    tokens, visible = model.text(model.text.tokenise(texts))
    for row, seen in enumerate(visible):
        torch.testing.assert_close(tokens[row][seen], wanted[row, : seen.sum()], rtol=1e-6, atol=1e-6)
        assert not wanted[row, seen.sum() :].any()
    if model.vision is not None:
        picture = (np.random.default_rng(0).random((18, 30, 3)) * 255).astype(np.uint8)
        assert model.vision.config.size == SEEN
        from PIL import Image

        torch.testing.assert_close(
            model.vision(picture[None]), pipe.encode_image(Image.fromarray(picture)), rtol=1e-5, atol=1e-5
        )
    assert model.config.family == "wan" and model.config.sampling.negative_prompt.endswith(NEGATIVE_PROMPT)
    assert model.config.sampling.shift == (3.0 if layout == "diffusers" else {"a14b-t2v": 12.0}.get(variant, 5.0))
    assert model.config.boundary == VARIANTS[variant].get("experts")
    assert model.transformer.config.first_frame == (variant == "ti2v")


@pytest.mark.parametrize("variant", ["t2v", "a14b-i2v", "i2v"])
def test_saved_as_ours_it_is_the_same(variant, saved, tmp_path):
    _, folder = saved(variant, "split")
    model = VideoPipeline.from_pretrained(folder)
    model.save_pretrained(tmp_path / "ours")
    again = VideoPipeline.from_pretrained(tmp_path / "ours")
    assert again.config == model.config and again.config.family == "wan"
    assert json.loads((tmp_path / "ours/model.json").read_text(encoding="utf-8"))["family"] == "wan"
    assert isinstance(again.transformer, Experts) == (variant == "a14b-i2v")
    for part in ("transformer", "vae", "text", *(["vision"] if model.vision else [])):
        assert equal(getattr(again, part).state_dict(), getattr(model, part).state_dict())
    shutil.rmtree(tmp_path / "ours/transformer")
    with pytest.raises(DataError, match="holds no transformer/"):
        VideoPipeline.from_pretrained(tmp_path / "ours")


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "model."])
def test_prefixes(prefix, saved, tmp_path):
    pipe, _ = saved("t2v", "split")
    folder = save_split(pipe, tmp_path, prefix)
    assert equal(VideoPipeline.from_pretrained(folder).transformer.state_dict(), original(pipe.transformer))


def test_the_transformers_file_is_the_model(saved, tmp_path):
    pipe, folder = saved("a14b-t2v", "split")
    for file in sorted((folder / "diffusion_models").iterdir()):  # either of them is both
        model = VideoPipeline.from_pretrained(file)
        for ours, theirs in zip(with_blocks(model.transformer), (pipe.transformer, pipe.transformer_2), strict=True):
            assert equal(ours.state_dict(), original(theirs))
        assert model.origin == str(file.absolute())
    single, folder = saved("t2v", "split")
    mine = copied(folder, tmp_path / "mine")
    shutil.copy(mine / "diffusion_models/wan_14B.safetensors", mine / "diffusion_models/another.safetensors")
    with pytest.raises(
        ConfigError, match=r"holds several transformers: another.safetensors, wan_14B.safetensors; give the one"
    ):
        VideoPipeline.from_pretrained(mine)
    model = VideoPipeline.from_pretrained(mine / "diffusion_models/another.safetensors")
    assert equal(model.transformer.state_dict(), original(single.transformer))
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in mine.rglob("*.safetensors"):
        if file.name != "another.safetensors":
            shutil.copy(file, flat)
    shutil.copytree(mine / "text_encoders/umt5-xxl", flat / "tokenizer")
    assert equal(VideoPipeline.from_pretrained(flat).transformer.state_dict(), original(single.transformer))


def test_among_the_files_of_others(saved, tmp_path):
    """As in the folders of ComfyUI: what is not the family's is left alone, and of two VAEs the transformer's is taken."""
    pipe, folder = saved("ti2v", "split")
    mine = copied(folder, tmp_path / "models")
    other = {"encoder.down.0.block.0.conv1.weight": torch.zeros(2)}
    save_file(other, mine / "vae/ae.safetensors")
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2)}, mine / "diffusion_models/flux.safetensors")
    small = saved("t2v", "split")[1]
    shutil.copy(small / "vae/wan_2.1_vae.safetensors", mine / "vae/another.safetensors")
    shutil.copy(small / "diffusion_models/wan_14B.safetensors", mine / "diffusion_models/small.safetensors")
    for name, channels in (("wan_14B", 48), ("small", 16)):
        model = VideoPipeline.from_pretrained(mine / f"diffusion_models/{name}.safetensors")
        assert model.vae.config.latent_channels == model.transformer.config.latent_channels == channels
    model = VideoPipeline.from_pretrained(mine / "diffusion_models/wan_14B.safetensors")
    assert equal(model.transformer.state_dict(), original(pipe.transformer))
    whole = saved("t2v", "diffusers")[1]
    first = next((whole / "transformer").glob("*.safetensors"))
    refused(first, f"is a part of diffusers' folder {re.escape(str(whole))}; give that", kind=ConfigError)


def test_which_expert_a_name_tells_of():
    for name, kind in (
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", "high"),
        ("Wan2_2-T2V-A14B-LOW_fp8.safetensors", "low"),
        ("high_noise_model/diffusion_pytorch_model.safetensors", "high"),
        ("wan2.1_low_vram.safetensors", None),
        ("slow_noise.safetensors", None),
        ("wan2.2_ti2v_5B.safetensors", None),
        ("wan22-high.safetensors", "high"),
        ("Wan22_A14B_T2V_HIGH_Lightning_4steps_lora_rank128_fp16.safetensors", "high"),
        ("style_wan2.2_low-000040.safetensors", "low"),
        ("Wan2_2-I2V-A14B-HIGH_e4m3fn.safetensors", "high"),
        ("WAN2.2-LowNoise_style.safetensors", "low"),
        ("wan2.2_high_quality_style.safetensors", None),
        ("wan2.2_t2v_low_poly_v2.safetensors", None),
        ("a14b_high_60fps.safetensors", None),
    ):
        assert expert_of(Path("models") / name) == kind, name


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "tiny"])
def test_full_sizes_are_read_from_shapes(name):
    """Of every release, under both dialects' names."""
    config = WanTransformerConfig.preset(name)
    with torch.device("meta"):
        shapes = {key: tuple(x.shape) for key, x in WanTransformer(config).state_dict().items()}
    assert transformer_config(SimpleNamespace(shapes=shapes), Part((Path("model.safetensors"),)), {}) == config
    assert is_transformer(shapes) and is_transformer({to_diffusers(key) for key in shapes})


def test_a_lora_is_for_the_expert_that_it_tells_of(saved, tmp_path):
    _, folder = saved("a14b-t2v", "split")
    before = VideoPipeline.from_pretrained(folder).transformer
    generator = torch.Generator().manual_seed(0)
    weight = "diffusion_model.blocks.0.self_attn.q"
    learned = {f"{weight}.lora_A.weight": torch.randn(2, 128, generator=generator)}
    learned |= {f"{weight}.lora_B.weight": torch.randn(128, 2, generator=generator)}
    for name, changed in (("a_high_noise", {"high"}), ("a_low_noise", {"low"}), ("a", {"high", "low"})):
        save_file(learned, tmp_path / f"{name}.safetensors")
        model = VideoPipeline.from_pretrained(folder)
        model.load_lora(tmp_path / f"{name}.safetensors")
        for kind in ("high", "low"):
            same = equal(getattr(model.transformer, kind).state_dict(), getattr(before, kind).state_dict())
            assert same != (kind in changed)
    (tmp_path / "low").mkdir()
    save_file(learned, tmp_path / "low/a_low_noise.safetensors")
    assert experts_of(tmp_path / "low") == ("low",)  # what the folder holds tells it
    for noted in EXPERTS:
        save_file(learned, tmp_path / "a_low_noise.safetensors", {"expert": noted})
        assert experts_of(tmp_path / "a_low_noise.safetensors") == (noted,)
    save_file(learned, tmp_path / "a.safetensors", {"expert": "foo"})
    with pytest.raises(
        DataError, match=r"a.safetensors: notes that it is for the expert 'foo', and there are high and low"
    ):
        model.load_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("form", ["old", "new", "plain"])
def test_eight_bits(form, saved, tmp_path):
    pipe, folder = saved("t2v", "split")
    folder = copied(folder, tmp_path / "m")
    kept, wanted = {}, {}
    for name, x in original(pipe.transformer).items():
        if x.ndim != 2 or "blocks" not in name:
            kept[name] = wanted[name] = x
            continue
        scale = (x.abs().max() / 448).reshape(()) if form != "plain" else torch.ones(())
        kept[name] = (x / scale).to(torch.float8_e4m3fn)
        wanted[name] = (kept[name].float() * scale).bfloat16().float()
        layer = name.removesuffix("weight")
        if form == "old":
            kept |= {f"{layer}scale_weight": scale, f"{layer}scale_input": torch.ones(()), "scaled_fp8": torch.zeros(2)}
        if form == "new":
            told = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
            kept |= {f"{layer}weight_scale": scale, f"{layer}comfy_quant": told}
    file = folder / "diffusion_models/wan_14B.safetensors"
    save_file(kept, file)
    assert equal(VideoPipeline.from_pretrained(folder).transformer.state_dict(), wanted)
    other = torch.tensor(list(json.dumps({"format": "nvfp4"}).encode()), dtype=torch.uint8)
    save_file(kept | {"blocks.0.self_attn.q.comfy_quant": other}, file)
    with pytest.raises(ConfigError, match=r"blocks.0.self_attn.q is kept as nvfp4, which is not read here; take"):
        VideoPipeline.from_pretrained(folder)


def test_parts_load_by_themselves(saved):
    _, folder = saved("t2v", "diffusers")
    parts = parts_of(folder)
    assert parts.text().tokenise(["a red circle"]).shape == (1, 4, 2)
    assert parts.vae().config.latent_channels == 16
    assert parts.transformer("bf16").blocks[0].ffn[0].weight.dtype == torch.bfloat16


def test_by_its_name_on_the_hub(saved, tmp_path, monkeypatch):
    """From the Hub's cache; what is saved names the Hub again, and no folder of this machine."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--some--wan"
    copied(saved("i2v", "diffusers")[1], place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs/main").write_text("abc", encoding="utf-8")
    model = VideoPipeline.from_pretrained("some/wan")
    assert model.origin == model.text.config.name == model.vision.config.name == "some/wan"
    model.save_pretrained(tmp_path / "ours")
    again = VideoPipeline.from_pretrained(tmp_path / "ours")
    assert again.text.config.name == again.vision.config.name == "some/wan"
    assert equal(again.text.state_dict(), model.text.state_dict())


# -------------------- what is not whole, or not known


def refused(path: Path, *words: str, kind: type[Exception] = DataError) -> None:
    with pytest.raises(kind) as error:
        VideoPipeline.from_pretrained(path)
    line = str(error.value)
    assert "\n" not in line and str(path.name) in line, line
    for word in words:
        assert re.search(word, line), line


def test_damage_is_one_line(saved, tmp_path):
    _, folder = saved("t2v", "diffusers")
    shards = sorted(path.name for path in (folder / "transformer").glob("*.safetensors"))

    def broken(name: str) -> Path:
        return copied(folder, tmp_path / name)

    cut = broken("cut")
    whole = (cut / "transformer" / shards[0]).read_bytes()
    (cut / "transformer" / shards[0]).write_bytes(whole[:-40])
    refused(cut, re.escape(shards[0]), r"is cut short, [\d,]+ of [\d,]+ bytes; download it again")
    (cut / "transformer" / shards[0]).write_bytes(whole[:30])
    refused(cut, "is no whole safetensors file")
    (cut / "transformer" / shards[0]).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(cut, "is a git-lfs pointer", "git lfs pull")
    (cut / "transformer" / shards[0]).unlink()
    refused(cut, f"{re.escape(shards[0])}: is missing, which .*index.json names")

    half = broken("half")
    place = half / ".cache/huggingface/download"
    place.mkdir(parents=True)
    (place / "abc.incomplete").write_bytes(b"")
    refused(half, "is half of a download")

    gone = broken("gone")
    shutil.rmtree(gone / "vae")
    refused(gone, "vae: is missing", "download gone again, whole")
    gone = broken("no scheduler")
    (gone / "scheduler/scheduler_config.json").unlink()
    refused(gone, "scheduler_config.json: is missing")
    gone = broken("text")
    (gone / "text_encoder/model.safetensors").unlink(missing_ok=True)
    for file in (gone / "text_encoder").glob("*.safetensors"):
        file.unlink()
    refused(gone, r"missing|holds no \.safetensors", kind=(DataError, ConfigError))  # type: ignore[arg-type]

    pickled = broken("pickled")
    for file in (pickled / "vae").glob("*.safetensors*"):
        file.unlink()
    (pickled / "vae/diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    refused(pickled, "is a pickle", "convert it once", r"weights_only=True")

    odd = broken("scheduler")
    file = odd / "scheduler/scheduler_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(told | {"solver_order": 3}), encoding="utf-8")
    refused(odd, "scheduler_config.json: solver_order is 3, and only 2", kind=ConfigError)
    file.write_text(json.dumps(told | {"_class_name": "DDIMScheduler"}), encoding="utf-8")
    refused(odd, "is of a DDIMScheduler", kind=ConfigError)

    other = broken("other")
    index = json.loads((other / "model_index.json").read_text(encoding="utf-8"))
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "LTXPipeline"}), encoding="utf-8")
    refused(other, "is diffusers' LTXPipeline", kind=ConfigError)

    sizes = broken("sizes")
    config = json.loads((sizes / "transformer/config.json").read_text(encoding="utf-8"))
    (sizes / "transformer/config.json").write_text(json.dumps(config | {"num_layers": 3}), encoding="utf-8")
    refused(sizes, "num_layers is 3, and by the weights 2", kind=ConfigError)


CONFIGS = {
    "transformer": "transformer/config.json",
    "vae": "vae/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "index": "model_index.json",
    "picture": "image_processor/preprocessor_config.json",
}


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("transformer", {"new_thing": True}, "new_thing is True, which is not known here"),
        ("transformer", {"window_size": [4, 4]}, r"window_size is \[4, 4\]"),
        ("transformer", {"model_type": "vace"}, "model_type is vace, and here are known t2v, i2v"),
        ("transformer", {"_class_name": "WanVACETransformer3DModel"}, "_class_name is WanVACETransformer3DModel"),
        ("transformer", {"local_attn_size": 4, "sink_size": "abc"}, "local_attn_size is 4 and sink_size 'abc'"),
        ("transformer", {"local_attn_size": 2, "sink_size": 3}, "local_attn_size is 2 and sink_size 3"),
        ("vae", {"new_thing": 1}, "new_thing is 1, which is not known here"),
        ("vae", {"_class_name": "AutoencoderKL"}, "_class_name AutoencoderKL: only AutoencoderKLWan"),
        ("vae", {"scale_factor_spatial": 16}, "scale_factor_spatial is 16, and by the sizes there 8"),
        ("vae", {"latents_std": [0.0] * 16}, "latent_std has 0; every deviation must be above 0"),
        ("vae", {"patch_size": [2, 2]}, r"patch_size is \[2, 2\]; it must be a whole number"),
        ("scheduler", {"new_thing": 1}, "new_thing is 1, which is not known here"),
        ("scheduler", {"flow_shift": True}, "its shift is True; it must be a number above 0"),
        ("scheduler", {"flow_shift": float("nan")}, "its shift is nan; it must be a number above 0"),
        ("index", {"extra_net": ["diffusers", "Foo"]}, r"extra_net is \['diffusers', 'Foo'\], which is not known here"),
        ("index", {"transformer": None}, "names no transformer"),
        ("index", {"transformer": [None, None]}, "names no transformer"),
        ("index", {"transformer": []}, r"transformer is \[\], and must be a library and a class, or null"),
        ("index", {"vae": ["diffusers", "AutoencoderKL"]}, "vae is a AutoencoderKL, and only AutoencoderKLWan"),
        ("index", {"_class_name": "WanVACEPipeline"}, "is diffusers' WanVACEPipeline"),
        ("index", {"expand_timesteps": True}, "expand_timesteps is True, and the transformer has 16 latent channels"),
        ("index", {"expand_timesteps": "yes"}, "expand_timesteps is 'yes'"),
        ("picture", {"crop_size": {"height": 16, "width": 16}}, r"crop_size is .*16.*, and .*config.json takes 8"),
        ("picture", {"crop_size": {"height": 8, "width": 16}}, "crop_size is"),
        ("picture", {"image_mean": 5}, "preprocessor_config.json: 'mean' is 5"),
        ("picture", {"image_mean": [0.5]}, "preprocessor_config.json: 'mean"),
        ("picture", {"image_std": [0, 1, 1]}, r"preprocessor_config.json: 'std.0' is 0"),
    ],
)
def test_what_files_of_diffusers_say_is_known_or_one_line(part, change, told, saved, tmp_path):
    folder = copied(saved("i2v" if part == "picture" else "t2v", "diffusers")[1], tmp_path / "m")
    file = folder / CONFIGS[part]
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    refused(folder, told, kind=(DataError, ConfigError))  # type: ignore[arg-type]


def test_what_files_of_diffusers_say_beside_may_be_off_or_of_the_releases(saved, tmp_path):
    folder = copied(saved("i2v", "diffusers")[1], tmp_path / "m")
    for part, more in (
        (
            "transformer",
            {"new_thing": False, "inject_sample_info": False, "rope_max_seq_len": 2048, "_commit_hash": "a"},
        ),
        ("transformer", {"num_frame_per_block": 3, "local_attn_size": -1, "sink_size": 0, "window_size": [-1, -1]}),
        ("vae", {"clip_output": True, "new_thing": None}),
        (
            "index",
            {"_class_name": "WanDMDPipeline", "workload_type": "t2v", "transformer_2": None, "safety": [None, None]},
        ),
        ("scheduler", {"timestep_spacing": "trailing", "sigma_min": 0.1, "new_thing": 0}),
    ):
        file = folder / CONFIGS[part]
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | more), encoding="utf-8")
    parts_of(folder)


def test_a_tokeniser_of_another_encoder_is_one_line(saved, tmp_path):
    folder = copied(saved("t2v", "diffusers")[1], tmp_path / "m")
    file = folder / "tokenizer/tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told["model"]["vocab"]["circle"] = 5000
    file.write_text(json.dumps(told), encoding="utf-8")
    text = parts_of(folder).text()
    with pytest.raises(
        DataError, match="its tokeniser makes token 5000, and the encoder has 9; copy both from the same model"
    ):
        text.tokenise(["a red circle"])


def test_single_files_that_are_something_else_are_one_line(saved, tmp_path):
    folder = copied(saved("t2v", "split")[1], tmp_path / "m")
    file = folder / "diffusion_models/wan_14B.safetensors"
    state = load_file(file)

    for change, told in (
        ({"blocks.0.extra.weight": torch.zeros(1)}, r"holds blocks.0.extra.weight, which such a model has not"),
        ({"blocks.0.norm3.weight": None}, r"blocks.0.norm3.weight is missing"),
        (
            {"blocks.0.norm3.weight": torch.zeros(7)},
            r"blocks.0.norm3.weight is \(7,\), and by the sizes there \(128,\)",
        ),
        ({"blocks.1.ffn.0.weight": torch.full((160, 128), torch.nan)}, "is not finite"),
    ):
        save_file({name: x for name, x in (state | change).items() if x is not None}, file)
        refused(folder, told, kind=(DataError, ConfigError))  # type: ignore[arg-type]
    for names, told in (
        (
            ["double_blocks.0.img_attn_qkv.weight"],
            "is a HunyuanVideo transformer; of public models those of the Wan family",
        ),
        (["patchify_proj.weight", "adaln_single.linear.weight"], "is an LTX-Video transformer"),
        (["patch_embed.text_proj.weight", "transformer_blocks.0.norm1.linear.weight"], "is a CogVideoX transformer"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "is a Stable Diffusion network"),
        (["blocks.0.self_attn.q.lora_A.weight"], "is a LoRA, and no model by itself; give .* as --lora"),
        (["something.weight"], "is of no family that is known here, with tensors such as something.weight"),
    ):
        save_file({name: torch.zeros(2) for name in names}, file)
        refused(folder, told, kind=ConfigError)
        refused(file, told, kind=ConfigError)
    save_file(state, file)

    (folder / "vae/wan_2.1_vae.safetensors").rename(folder / "vae/wan_2.1_vae.pth")
    refused(folder, r"wan_2.1_vae.pth: is a pickle, which can run any code and is not opened here; convert it once")
    shutil.rmtree(folder / "vae")
    refused(folder, r"holds no VAE as .safetensors; put it beside the transformer, or into vae/")
    quantised = folder / "diffusion_models/wan.gguf"
    quantised.write_bytes(b"GGUF" + bytes(40))
    refused(folder, "is a GGUF file, which is not read here; take the .safetensors")
    refused(quantised, "is a GGUF file")
    quantised.unlink()
    refused(folder / "nothing.safetensors", "no such file")
    for text in (folder / "text_encoders").glob("*.safetensors"):
        refused(text, "is a UMT5 text encoder alone", kind=ConfigError)

    experts = copied(saved("a14b-t2v", "split")[1], tmp_path / "two")
    high = experts / "diffusion_models/wan_high_noise_14B.safetensors"
    (experts / "diffusion_models/wan_low_noise_14B.safetensors").unlink()
    for path in (experts, high):
        refused(
            path,
            "one of two experts is missing: wan_high_noise_14B.safetensors is that for high noise; put the one for low",
        )
    originals = copied(saved("a14b-i2v", "original")[1], tmp_path / "two original")
    shutil.rmtree(originals / "high_noise_model")
    refused(originals, "one of two experts is missing")
    diffusers = copied(saved("a14b-t2v", "diffusers")[1], tmp_path / "two diffusers")
    shutil.rmtree(diffusers / "transformer_2")
    refused(diffusers, "transformer_2: is missing")
    alone = copied(saved("i2v", "split")[1], tmp_path / "alone")
    shutil.rmtree(alone / "clip_vision")
    refused(alone, "holds no CLIP picture encoder, which this transformer wants")


def test_shards(tmp_path):
    state = {f"layer.{i}": torch.full((2,), float(i)) for i in range(5)}
    sharded(state, tmp_path, "model", 3)
    assert equal(weights_in(tmp_path), state)
    (files,) = files_of(tmp_path).values()
    assert equal(dict(Shards(files).items()), state)
    (tmp_path / "model.safetensors.index.json").unlink()  # their numbers say as much
    assert list(files_of(tmp_path).values()) == [files]
    save_file({"layer.1": torch.zeros(1)}, tmp_path / "model-00003-of-00003.safetensors")
    with pytest.raises(DataError, match=r"00003-of-00003.safetensors: holds layer.1, which .*00002-of-00003"):
        Shards(files)
    files[1].unlink()
    with pytest.raises(DataError, match=r"00002-of-00003.safetensors: is missing, one of 3 files"):
        files_of(tmp_path)
