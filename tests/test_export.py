"""What goes out: Wan-shaped models that diffusers and ComfyUI's layout hold, and LoRAs from one dialect to another."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_lora import QKV, pairs, transformer
from test_pipeline import tiny_pipeline
from wan_models import VARIANTS, build, original, save_diffusers, save_original, save_split

from video_gen.cli import main
from video_gen.errors import ConfigError, DataError
from video_gen.export import export, merge_model
from video_gen.model.lora import Change
from video_gen.model.lora_files import is_lora, places_of, read_lora, write_lora
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.vae_names import in_our_names
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.fit import Fit
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.wan import schedule_of, scheduler_of


def same(found, wanted) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], x) for name, x in wanted.items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_loads_what_is_exported(variant, tmp_path):
    """From the original release's layout, so that every part is written anew; what comes out is what diffusers had saved."""
    diffusers = pytest.importorskip("diffusers")
    pipe = build(variant)
    export(save_original(pipe, tmp_path / "original"), tmp_path / "out", "diffusers", "fp32")
    kind = type(pipe)
    again = kind.from_pretrained(tmp_path / "out", dtype=torch.float32)
    for part in ("transformer", "transformer_2", "vae", "text_encoder", "image_encoder"):
        before, after = getattr(pipe, part, None), getattr(again, part, None)
        assert (before is None) == (after is None)
        if before is not None:
            assert same(after.state_dict(), before.state_dict()), part
    assert again.config.boundary_ratio == pipe.config.boundary_ratio
    assert again.config.expand_timesteps == pipe.config.expand_timesteps
    for name in ("num_layers", "image_dim", "added_kv_proj_dim", "in_channels", "out_channels", "pos_embed_seq_len"):
        assert again.transformer.config[name] == pipe.transformer.config[name], name
    assert isinstance(again.scheduler, diffusers.UniPCMultistepScheduler)
    assert again.tokenizer("a red circle").input_ids == pipe.tokenizer("a red circle").input_ids
    model = VideoPipeline.from_pretrained(tmp_path / "out")
    assert same(model.vae.state_dict(), in_our_names(pipe.vae.state_dict()))


def test_diffusers_samples_the_same_from_what_is_exported(tmp_path):
    pipe = build("t2v")
    export(save_diffusers(pipe, tmp_path / "in"), tmp_path / "out", "diffusers", "fp32")
    again = type(pipe).from_pretrained(tmp_path / "out")
    again.set_progress_bar_config(disable=True)
    options = dict(height=32, width=32, num_frames=5, num_inference_steps=2, output_type="latent", guidance_scale=3.0)
    videos = [p("a red circle", generator=torch.Generator().manual_seed(0), **options).frames for p in (pipe, again)]
    assert torch.equal(*videos)


@pytest.mark.parametrize("variant", ["t2v", "a14b-t2v", "i2v"])
def test_comfy_has_bare_files_under_the_original_names(variant, tmp_path):
    pipe = build(variant)
    source = save_split(pipe, tmp_path / "in")
    export(save_diffusers(pipe, tmp_path / "diffusers"), tmp_path / "mine", "comfy", "fp32")
    names = ["mine"] if variant != "a14b-t2v" else ["mine_high_noise", "mine_low_noise"]
    assert sorted(p.stem for p in (tmp_path / "mine/diffusion_models").iterdir()) == names
    networks = [pipe.transformer] + ([pipe.transformer_2] if pipe.transformer_2 is not None else [])
    for name, network in zip(names, networks):
        assert same(load_file(tmp_path / f"mine/diffusion_models/{name}.safetensors"), original(network))
    assert same(load_file(tmp_path / "mine/vae/mine_vae.safetensors"), in_our_names(pipe.vae.state_dict()))
    for part in ("text_encoders", "clip_vision"):
        shutil.copytree(source / part, tmp_path / "mine" / part)
    VideoPipeline.from_pretrained(tmp_path / "mine")  # the layout is one that is read here, too
    export(tmp_path / "diffusers", tmp_path / "alone.safetensors", "comfy", "fp32")
    if variant != "a14b-t2v":
        assert same(load_file(tmp_path / "alone.safetensors"), original(pipe.transformer))
    with pytest.raises(DataError, match=r"alone.*\.safetensors: is there already; give another place"):
        export(tmp_path / "diffusers", tmp_path / "alone.safetensors", "comfy", "fp32")


def test_half_precision_leaves_what_is_small(tmp_path):
    pipe = build("t2v")
    export(save_diffusers(pipe, tmp_path / "in"), tmp_path / "out", "comfy", "bf16")
    found, wanted = load_file(tmp_path / "out/diffusion_models/out.safetensors"), original(pipe.transformer)
    for name, x in wanted.items():
        exact = "norm" in name or name.endswith("modulation") or name.startswith("time_embedding")
        assert torch.equal(found[name].float(), x if exact else x.bfloat16().float()), name


def test_with_a_lora_and_the_merged_one_is_the_same(tmp_path, monkeypatch):
    pipe = build("t2v")
    save_diffusers(pipe, tmp_path / "in")
    changes = {"blocks.1.ffn.2.weight": Change(torch.randn(128, 2), torch.randn(2, 160), 0.1)}
    write_lora(tmp_path / "a.safetensors", changes, {})
    monkeypatch.chdir(tmp_path)
    words = ["model", "export", "in", "out", "--to", "diffusers", "--dtype", "fp32", "--lora", "a.safetensors:0.5"]
    assert main(words) == 0
    found = load_file(tmp_path / "out/transformer/diffusion_pytorch_model.safetensors")
    name = "blocks.1.ffn.net.2.weight"
    want = pipe.transformer.state_dict()[name] + 0.5 * changes["blocks.1.ffn.2.weight"].whole(found[name].shape)
    torch.testing.assert_close(found[name], want)
    assert main(words) == 2  # what is there is kept


def test_a_lora_goes_into_the_experts_that_it_is_for(tmp_path):
    pipe = build("a14b-t2v")
    save_diffusers(pipe, tmp_path / "in")
    change = Change(torch.randn(128, 2), torch.randn(2, 160))
    for name, changed in (("a", (True, True)), ("a_low_noise", (False, True))):
        write_lora(tmp_path / f"{name}.safetensors", {"blocks.1.ffn.2.weight": change}, {})
        lora = str(tmp_path / f"{name}.safetensors")
        export(tmp_path / "in", tmp_path / name, "comfy", "fp32", [lora], say=lambda text: None)
        merge_model(tmp_path / "in", [lora], tmp_path / f"merged {name}")
        for i, (noise, network) in enumerate((("high", pipe.transformer), ("low", pipe.transformer_2))):
            found = load_file(tmp_path / name / f"diffusion_models/{name}_{noise}_noise.safetensors")
            assert same(found, original(network)) != changed[i]
            place = tmp_path / f"merged {name}" / ("transformer", "transformer_2")[i]
            assert same(load_file(place / "model.safetensors"), found)


def test_merging_keeps_what_is_there_and_makes_finite_numbers(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "base")
    write_lora(
        tmp_path / "a.safetensors", {"blocks.0.attention.qkv.weight": Change(pairs()[QKV][1], pairs()[QKV][0])}, {}
    )
    lora = str(tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="base: is there already, and is no empty folder; give another place"):
        merge_model(tmp_path / "base", [lora], tmp_path / "base")
    for scale in ("1e300", "-1e39"):
        with pytest.raises(DataError, match=r"a.safetensors: with scale .* it changes .* by more than a weight can be"):
            merge_model(tmp_path / "base", [f"{lora}:{scale}"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    merge_model(tmp_path / "base", [lora], tmp_path / "out")
    beside = VideoPipeline.from_pretrained(tmp_path / "base")
    beside.load_lora(lora)
    merged = VideoPipeline.from_pretrained(tmp_path / "out", fit=Fit(weights="bf16"))
    assert same(merged.transformer.state_dict(), beside.settle(Fit(weights="bf16"), "cpu").transformer.state_dict())


def test_schedulers_go_out_as_they_came_in():
    for told in (
        {"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 5.0},
    ):
        flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
        values = schedule_of(told | (flow if "flow_shift" in told else {}), "here")
        made, note = scheduler_of(SamplingConfig(**values))
        assert note is None and made.items() >= told.items() and schedule_of(made, "there") == values
        for change, said in (
            (dict(times=(0.9, 0.3), num_steps=2), "no such times as 0.9, 0.3, and steps of its own"),
            (dict(spacing="even"), f"no spacing like 'even', and its is {values['spacing']}"),
            (dict(whole_times=500), f"whole_times {values['whole_times']}, and here they are 500"),
        ):
            assert said in str(scheduler_of(SamplingConfig(**values | change))[1])
    assert "no solver like 'renoise'" in str(scheduler_of(SamplingConfig(solver="renoise"))[1])


# -------------------- LoRA


def test_a_lora_of_wan_from_any_dialect_to_any(tmp_path):
    changes = {
        "blocks.0.self_attn.q.weight": Change(torch.randn(8, 2), torch.randn(2, 8), 0.5),
        "blocks.39.cross_attn.k_img.weight": Change(torch.randn(8, 2), torch.randn(2, 8)),
        "head.head.weight": Change(torch.randn(8, 2), torch.randn(2, 8)),
    }
    for dialect in ("comfy", "diffusers", "kohya"):
        write_lora(tmp_path / f"{dialect}.safetensors", changes, {"rank": "2"}, dialect, to_diffusers)
    wanted = {dialect: load_file(tmp_path / f"{dialect}.safetensors") for dialect in ("comfy", "diffusers", "kohya")}
    for source in wanted:
        for to in wanted:
            out = tmp_path / f"{source}-{to}.safetensors"
            export(tmp_path / f"{source}.safetensors", out, to, "fp32")
            found = load_file(out)
            assert found.keys() == wanted[to].keys()
            for name, x in wanted[to].items():
                torch.testing.assert_close(found[name], x)


def test_a_lora_of_ones_own_model_names_its_base(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    changes = {f"{name}.weight": Change(up, down) for name, (down, up) in pairs().items()}
    write_lora(tmp_path / "lora.safetensors", changes, {"rank": "3", "trigger_prompt": "sks"})
    with pytest.raises(DataError, match=r"belong nowhere.*say --base MODEL"):
        export(tmp_path / "lora.safetensors", tmp_path / "out", "kohya")
    export(tmp_path / "lora.safetensors", tmp_path / "out", "kohya", "fp32", base=tmp_path / "model")
    again = read_lora(tmp_path / "out", places_of(transformer()))
    assert again.changes.keys() == changes.keys() and again.metadata["trigger_prompt"] == "sks"


def test_what_cannot_be_exported_says_so(tmp_path):
    own = tmp_path / "own"
    tiny_pipeline().save_pretrained(own)
    wan = save_diffusers(build("t2v"), tmp_path / "wan")
    write_lora(tmp_path / "a.safetensors", {"blocks.0.ffn.0.weight": Change(torch.ones(4, 2), torch.ones(2, 3))}, {})
    assert is_lora(tmp_path / "a.safetensors") and not is_lora(wan) and not is_lora(own)
    for words, said in (
        ((own, tmp_path / "out", "diffusers"), "of this project's own kind"),
        ((wan, tmp_path / "out", "kohya"), "is a model, and kohya's is a dialect"),
        ((wan, tmp_path / "out.safetensors", "diffusers"), "diffusers reads a folder"),
        ((tmp_path / "a.safetensors", tmp_path / "out", "comfy", "fp32", ["b"]), "is a LoRA itself"),
    ):
        with pytest.raises(ConfigError, match=said):
            export(*words)
    whole = {"diffusion_model.blocks.0.norm3.diff": torch.ones(4)}
    save_file(whole, tmp_path / "whole.safetensors")
    with pytest.raises(DataError, match="which diffusers' LoRA files cannot say"):
        export(tmp_path / "whole.safetensors", tmp_path / "x.safetensors", "diffusers")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises(DataError, match="is there already"):
        export(wan, tmp_path / "there", "diffusers")
    index = json.loads((wan / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
