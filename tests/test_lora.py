"""LoRA files and adapters: each dialect in its place or an error, and beside, merged, or in a new file it is the same function."""

import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pipeline import tiny_pipeline
from torch import nn

from video_gen.errors import ConfigError, DataError
from video_gen.model import lora
from video_gen.model.lora import Change, LoraLinear
from video_gen.model.lora_config import LoraConfig
from video_gen.model.lora_files import FILE, file_and_scale, is_lora, lora_file, places_of, read_lora, write_lora
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.model.weights import EightBitLinear, keep_in

QKV, OUT = "blocks.0.attention.qkv", "blocks.1.attention.out"


def transformer(seed=0) -> VideoTransformer:
    torch.manual_seed(seed)
    sizes = dict(latent_channels=4, width=32, depth=2, head_dim=16, text_width=16)
    model = VideoTransformer(TransformerConfig(**sizes)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def zeros(model: nn.Module) -> nn.Module:
    empty = copy.deepcopy(model)
    for parameter in empty.parameters():
        parameter.data.zero_()
    return empty


def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 4, 3, 4, 4), torch.rand(2), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)


def pairs(rank=3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(down, up) of two layers."""
    torch.manual_seed(2)
    return {
        QKV: (torch.randn(rank, 32), torch.randn(96, rank)),
        OUT: (torch.randn(rank, 32), torch.randn(32, rank)),
    }


def in_dialect(kind: str, alpha: float | None) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (down, up) in pairs().items():
        prefix, a, b = {
            "comfy": ("diffusion_model.", "lora_A", "lora_B"),
            "plain": ("", "lora_down", "lora_up"),
            "diffusers": ("transformer.", "lora_A", "lora_B"),
            "diffsynth": ("pipe.dit.", "lora_A.default", "lora_B.default"),
            "peft": ("base_model.model.", "lora_A", "lora_B"),
            "kohya": ("lora_unet_", "lora_down", "lora_up"),
            "musubi": ("lora_unet__", "lora_down", "lora_up"),
        }[kind]
        place = prefix + (name.replace(".", "_") if prefix.startswith("lora_unet_") else name)
        tensors |= {f"{place}.{a}.weight": down, f"{place}.{b}.weight": up}
        if alpha is not None:
            tensors[f"{place}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.parametrize("alpha", [None, 1.5])
@pytest.mark.parametrize("kind", ["comfy", "plain", "diffusers", "diffsynth", "peft", "kohya", "musubi"])
def test_zeros_plus_a_lora_is_the_difference_in_every_dialect(kind, alpha, tmp_path):
    save_file(in_dialect(kind, alpha), tmp_path / "a.safetensors")
    model = zeros(transformer())
    lora.merge(model, read_lora(tmp_path / "a.safetensors", places_of(model)).changes, 0.5, "a")
    changed = {name: p for name, p in model.named_parameters() if p.any()}
    assert set(changed) == {f"{QKV}.weight", f"{OUT}.weight"}
    for name, (down, up) in pairs().items():
        want = 0.5 * (1.5 / 3 if alpha else 1.0) * up @ down
        torch.testing.assert_close(changed[f"{name}.weight"], want)


def test_whole_differences_of_weights_biases_and_lone_parameters(tmp_path):
    model = zeros(transformer())
    shapes = {name: p.shape for name, p in model.named_parameters()}
    said = {
        "diffusion_model.embed_patch.diff": "embed_patch.weight",
        "diffusion_model.embed_patch.diff_b": "embed_patch.bias",
        "diffusion_model.blocks.0.table.diff": "blocks.0.table",
    }
    tensors = {key: torch.randn(shapes[name]) for key, name in said.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    lora.merge(model, read_lora(tmp_path / "a.safetensors", places_of(model)).changes, 2.0, "a")
    for key, name in said.items():
        torch.testing.assert_close(model.get_parameter(name), 2 * tensors[key])
    assert sum(bool(p.any()) for p in model.parameters()) == 3


def test_peft_notes_alpha_beside_the_tensors(tmp_path):
    note = {"r": 3, "lora_alpha": 6, "alpha_pattern": {OUT: 12}, "use_rslora": False}
    save_file(in_dialect("peft", None), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(note))
    noted = {f"transformer.{key}": value for key, value in note.items()}
    metadata = {"lora_adapter_metadata": json.dumps(noted)}
    save_file(in_dialect("diffusers", None), tmp_path / "pytorch_lora_weights.safetensors", metadata)
    places = places_of(transformer())
    for path in (tmp_path, tmp_path / "pytorch_lora_weights.safetensors"):
        changes = read_lora(path, places).changes
        assert changes[f"{QKV}.weight"].scale == 2 and changes[f"{OUT}.weight"].scale == 4


@pytest.mark.parametrize("dialect", ["comfy", "diffusers", "kohya"])
def test_what_is_written_is_read_as_the_same(dialect, tmp_path):
    changes = {f"{name}.weight": Change(up, down, 0.25) for name, (down, up) in pairs().items()}
    if dialect != "diffusers":
        changes["embed_patch.bias"] = Change(torch.randn(32))
    write_lora(tmp_path / "a.safetensors", changes, {"rank": "3"}, dialect)
    again = read_lora(tmp_path / "a.safetensors", places_of(transformer()))
    assert again.changes.keys() == changes.keys() and again.metadata["rank"] == "3"
    for name, change in changes.items():
        shape = transformer().get_parameter(name).shape
        torch.testing.assert_close(again.changes[name].whole(shape), change.whole(shape))
        assert again.changes[name].scale == 1  # so that tools that read no alpha do the same


def test_the_names_that_are_written(tmp_path):
    changes = {f"{QKV}.weight": Change(pairs()[QKV][1], pairs()[QKV][0])}
    keys = {}
    for dialect in ("comfy", "diffusers", "kohya"):
        write_lora(tmp_path / "a.safetensors", changes, {}, dialect)
        keys[dialect] = sorted(load_file(tmp_path / "a.safetensors"))
    flat = "lora_unet_blocks_0_attention_qkv"
    assert keys == {
        "comfy": [f"diffusion_model.{QKV}.{part}" for part in ("alpha", "lora_A.weight", "lora_B.weight")],
        "diffusers": [f"transformer.{QKV}.{part}.weight" for part in ("lora_A", "lora_B")],
        "kohya": [f"{flat}.{part}" for part in ("alpha", "lora_down.weight", "lora_up.weight")],
    }


# -------------------- what is refused


def refused(tensors, tmp_path, name="a.safetensors") -> str:
    save_file(tensors, tmp_path / name)
    with pytest.raises(DataError) as error:
        read_lora(tmp_path / name, places_of(transformer()))
    assert "\n" not in str(error.value) and name in str(error.value)
    return str(error.value)


def test_keys_without_a_place_are_counted_and_the_first_are_named(tmp_path):
    good = in_dialect("comfy", None)
    more = {f"diffusion_model.blocks.{i}.attention.qkv.lora_A.weight": torch.ones(3, 32) for i in range(2, 9)}
    said = refused(good | more, tmp_path)
    assert "7 of its 11 keys belong nowhere" in said and "blocks.2.attention.qkv" in said and "and 2 more" in said
    assert "text encoder" in refused(good | {"lora_te1_x.lora_down.weight": torch.ones(2, 2)}, tmp_path)
    assert "no keys of a LoRA" in refused({"a": torch.ones(2)}, tmp_path)
    assert "holds no tensors" in refused({}, tmp_path)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"diffusion_model.{QKV}.dora_scale", "DoRA"),
        (f"base_model.model.{QKV}.lora_magnitude_vector", "DoRA"),
        (f"diffusion_model.{QKV}.hada_w1_a", "LoHa"),
        (f"diffusion_model.{QKV}.lokr_w1", "LoKr"),
        (f"lora_unet_{QKV.replace('.', '_')}.lora_mid.weight", "LoCon"),
    ],
)
def test_other_kinds_of_adapters_are_named(key, kind, tmp_path):
    assert kind in refused(in_dialect("comfy", None) | {key: torch.ones(2)}, tmp_path)


def test_halves_doubles_and_other_sizes(tmp_path):
    whole = in_dialect("comfy", None)
    half = {k: v for k, v in whole.items() if "lora_B" not in k or QKV not in k}
    assert "one of the two matrices is missing" in refused(half, tmp_path)
    assert "there twice" in refused(whole | in_dialect("diffusers", None), tmp_path)
    assert "changed twice" in refused(whole | {f"diffusion_model.{QKV}.diff": torch.ones(96, 32)}, tmp_path)
    for name, said in (("a.pt", "is a pickle"), ("no.safetensors", "no such file")):
        with pytest.raises(DataError, match=said):
            read_lora(tmp_path / name, places_of(transformer()))
    save_file({k: v.repeat(1, 2) if "lora_A" in k else v for k, v in whole.items()}, tmp_path / "wide.safetensors")
    model = transformer()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DataError, match=r"other sizes: .*qkv\.weight is \(96, 32\) in this model and \(96, 64\)"):
        lora.merge(model, read_lora(tmp_path / "wide.safetensors", places_of(model)).changes, 1.0, "wide")
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_a_file_that_is_not_whole_or_has_numbers_that_are_none(tmp_path):
    whole, places = in_dialect("comfy", None), places_of(transformer())
    save_file(whole, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    for damaged, said in (
        (content[:-9], "is cut short"),
        (b"", "is no whole safetensors file"),
        (pointer, "git-lfs pointer"),
        (b"GGUF" + content, "is a GGUF file, which is not read here"),
        (b"PK\x03\x04" + bytes(50), r"is a pickle, .*a\.safetensors .*a_converted\.safetensors"),
    ):
        (tmp_path / "a.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match=said):
            read_lora(tmp_path / "a.safetensors", places)
    whole[f"diffusion_model.{QKV}.lora_A.weight"][0, 0] = torch.nan
    assert "not finite" in refused(whole, tmp_path)


@pytest.mark.parametrize(
    ("part", "tensor", "said"),
    [
        ("alpha", torch.ones(2), "alpha is 2 numbers, and must be one"),
        ("alpha", torch.ones(0), "alpha is 0 numbers"),
        ("lora_A.weight", torch.ones(32), r"the matrix 'down' is of shape \(32,\), which is none"),
        ("lora_A.weight", torch.tensor(1.0), r"the matrix 'down' is of shape \(\)"),
        ("lora_A.weight", torch.ones(0, 32), r"the matrix 'down' is of shape \(0, 32\)"),
        ("lora_B.weight", torch.tensor(1.0), r"the matrix 'up' is of shape \(\)"),
    ],
)
def test_parts_that_are_none_are_named(part, tensor, said, tmp_path):
    assert re.search(
        f"of {QKV} {said}", refused(in_dialect("comfy", 1.5) | {f"diffusion_model.{QKV}.{part}": tensor}, tmp_path)
    )


def test_numbers_that_are_no_weights_are_named(tmp_path):
    for dtype in (torch.int8, torch.int32, torch.complex64):
        told = refused({name: x.to(dtype) for name, x in in_dialect("comfy", None).items()}, tmp_path)
        assert f"is kept as {str(dtype)[6:]}, which is not read here" in told


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ('{"lora_alpha": NaN}', "lora_alpha is nan, and no finite number"),
        ('{"lora_alpha": Infinity}', "lora_alpha is inf"),
        ('{"lora_alpha": "abc"}', "lora_alpha is 'abc'"),
        ('{"lora_alpha": {}}', "lora_alpha is {}"),
        ('{"lora_alpha": 4, "alpha_pattern": ["x"]}', "'list' object has no attribute"),
        ('{"lora_alpha": 4, "alpha_pattern": {"(": 2}}', "unterminated subpattern"),
        ('{"lora_alpha": 4, "alpha_pattern": {"q": "x"}}', "alpha_pattern of q is 'x'"),
        ("[1]", "'list' object has no attribute"),
    ],
)
def test_what_peft_noted_wrongly_is_named(note, said, tmp_path):
    save_file(in_dialect("diffusers", None), tmp_path / "a.safetensors", {"lora_adapter_metadata": note})
    with pytest.raises(DataError, match=r"a\.safetensors: what PEFT noted beside its tensors is damaged \(") as error:
        read_lora(tmp_path / "a.safetensors", places_of(transformer()))
    assert said in str(error.value)


def test_a_folder_is_a_lora_whatever_its_one_file_is_called(tmp_path):
    save_file(in_dialect("comfy", None), tmp_path / "style.safetensors")
    assert is_lora(tmp_path) and lora_file(tmp_path) == tmp_path / "style.safetensors"
    save_file({"embed_patch.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    assert not is_lora(tmp_path)
    with pytest.raises(DataError, match=r"holds 2 .safetensors files; give the LoRA's own path"):
        lora_file(tmp_path)
    (tmp_path / "style.safetensors").unlink()
    assert not is_lora(tmp_path)


def test_eight_bits_are_read(tmp_path):
    tensors = {name: x.to(torch.float8_e4m3fn) for name, x in in_dialect("comfy", None).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    change = read_lora(tmp_path / "a.safetensors", places_of(transformer())).changes[f"{QKV}.weight"]
    torch.testing.assert_close(change.up, tensors[f"diffusion_model.{QKV}.lora_B.weight"].float())


def test_loras_of_the_hub(tmp_path, monkeypatch):
    save_file(in_dialect("comfy", None), tmp_path / "style.safetensors")
    asked = []

    def file(repo, name):
        asked.append((repo, name))
        return str(tmp_path / name)

    def folder(repo):
        asked.append(repo)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", file)
    monkeypatch.setattr("huggingface_hub.snapshot_download", folder)
    for path in ("someone/loras/style.safetensors", "someone/loras"):
        assert len(read_lora(path, places_of(transformer())).changes) == 2
    assert asked == [("someone/loras", "style.safetensors"), "someone/loras"]
    with pytest.raises(DataError, match="no such file; give a LoRA"):
        read_lora(tmp_path / "missing.safetensors", places_of(transformer()))


# -------------------- beside the layers


def test_adapters_beside_and_merged_are_the_same_function():
    model, given = transformer(), inputs()
    plain = copy.deepcopy(model)
    lora.attach(model, LoraConfig(rank=4, alpha=2, base="fp32"), seed=0)
    torch.testing.assert_close(model(*given), plain(*given), rtol=0, atol=0)  # B is zero
    for layer in lora.adapters(model).values():
        nn.init.normal_(layer.lora_B.weight)
    lora.merge(plain, lora.learned(model), 1.0, "learned")
    torch.testing.assert_close(model(*given), plain(*given), rtol=1e-4, atol=1e-4)
    assert len(lora.adapters(model)) == 8 and all(".lora_" in n for n, p in model.named_parameters() if p.requires_grad)


def test_a_base_in_bfloat16_changes_no_number_under_autocast():
    a, b, given = transformer(), transformer(), inputs()
    lora.attach(a, LoraConfig(rank=4, base="fp32"), seed=0)
    lora.attach(b, LoraConfig(rank=4, base="bf16"), seed=0)
    losses = []
    for model in (a, b):
        for number, layer in enumerate(lora.adapters(model).values()):
            nn.init.normal_(layer.lora_B.weight, generator=torch.Generator().manual_seed(number))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(*given).float().square().mean()
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (name, p), q in zip(a.named_parameters(), b.parameters()):
        assert (p.grad is None) == (q.grad is None) == (".lora_" not in name)
        assert p.grad is None or torch.equal(p.grad, q.grad), name


def test_loras_on_eight_bits_stay_beside_and_add_up(tmp_path):
    write_lora(tmp_path / "a.safetensors", {f"{n}.weight": Change(u, d, 0.1) for n, (d, u) in pairs().items()}, {})
    small, whole, given = transformer(), transformer(), inputs()
    keep_in(small, "int8")
    for name, part in small.named_modules():
        if isinstance(part, EightBitLinear):  # the same numbers, in float32
            whole.get_submodule(name).weight.data = part.matrix(torch.float32)
    for model in (small, whole):
        for scale in (0.5, -0.2):
            lora.merge(model, read_lora(tmp_path / "a.safetensors", places_of(model)).changes, scale, "a")
    assert isinstance(small.get_submodule(QKV), LoraLinear) and not isinstance(whole.get_submodule(QKV), LoraLinear)
    torch.testing.assert_close(small(*given), whole(*given), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="eight bits"):
        lora.merge(small, {f"{QKV}.weight": Change(torch.ones(96, 32))}, 1.0, "a")


def test_dropout_leaves_out_inner_features_and_is_drawn_once_for_a_step():
    model = transformer()
    lora.attach(model, LoraConfig(rank=64, dropout=0.5, base="fp32"), seed=0)
    lora.draw_dropout(model, torch.Generator().manual_seed(5))
    kept = [layer.kept.clone() for layer in lora.adapters(model).values()]
    assert all(set(k.tolist()) == {0.0, 2.0} for k in kept) and not torch.equal(kept[0], kept[1])
    lora.draw_dropout(model, torch.Generator().manual_seed(5))
    assert all(torch.equal(k, layer.kept) for k, layer in zip(kept, lora.adapters(model).values()))
    assert not any("kept" in name for name in model.state_dict())
    layer = lora.adapters(model)[QKV]
    nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(1, 32)
    want = layer.base(x) + 2 * layer.lora_B(layer.lora_A(x) * (kept[0] > 0))
    torch.testing.assert_close(layer.train()(x), want)
    assert not torch.equal(layer.eval()(x), want)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["off", pytest.param("full", marks=pytest.mark.slow)])
def test_blocks_with_adapters_are_traced_whole_and_give_the_same(checkpointing):
    """`fullgraph` fails at the first thing that the compiler cannot follow."""
    torch.compiler.reset()
    plain, given = transformer(), inputs()
    lora.attach(plain, LoraConfig(rank=4, alpha=2, dropout=0.5, base="fp32"), seed=0)
    for layer in lora.adapters(plain).values():
        nn.init.normal_(layer.lora_B.weight, std=0.1)
    lora.draw_dropout(plain, torch.Generator().manual_seed(0))
    traced = copy.deepcopy(plain).train()
    traced.checkpointing = checkpointing
    for block in traced.blocks:
        block.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    for model in (plain.train(), traced):
        model(*given).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), traced.parameters()):
        assert (a.grad is None) == (b.grad is None) == (".lora_" not in name)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_targets_are_patterns_and_one_that_matches_nothing_lists_what_there_is():
    model = transformer()
    assert lora.targets(model, ["*.qkv", "unembed"]) == [QKV, "blocks.1.attention.qkv", "unembed"]
    with pytest.raises(ConfigError, match=r"'\*\.q' is the name of no linear layer.*blocks\.\*\.attention\.qkv \(2\)"):
        lora.attach(model, LoraConfig(rank=2, targets=("*.qkv", "*.q")), seed=0)
    with pytest.raises(ValueError, match="rank is 0, which is off, but targets is given"):
        LoraConfig(targets=("*.qkv",))


def test_file_and_scale(tmp_path):
    assert file_and_scale("a.safetensors") == ("a.safetensors", 1.0)
    assert file_and_scale("a.safetensors:0.8") == ("a.safetensors", 0.8)
    assert file_and_scale("C:/a.safetensors:-1e-1") == ("C:/a.safetensors", -0.1)
    assert file_and_scale("C:/a.safetensors") == ("C:/a.safetensors", 1.0)
    (tmp_path / "a:1").touch()
    assert file_and_scale(str(tmp_path / "a:1")) == (str(tmp_path / "a:1"), 1.0)
    with pytest.raises(ConfigError, match="the scale is inf"):
        file_and_scale("a:inf")


def test_a_pipeline_with_loras_is_the_merged_one(tmp_path):
    pipe = tiny_pipeline()
    torch.manual_seed(3)
    changes = {f"{QKV}.weight": Change(torch.randn(96, 2), torch.randn(2, 32), 0.1)}
    write_lora(tmp_path / FILE, changes, {})
    before = pipe("a", seed=1, num_steps=2)
    pipe.load_lora(tmp_path, 0.5)
    pipe.load_lora(tmp_path / FILE, 0.5)
    after = pipe("a", seed=1, num_steps=2)
    other = tiny_pipeline()
    lora.merge(other.transformer, changes, 1.0, "all")
    assert (after != before).any() and abs(after.astype(int) - other("a", seed=1, num_steps=2)).max() <= 1
    assert pipe.loras == ((str(tmp_path), 0.5), (str(tmp_path / FILE), 0.5))
