"""LoRA of a Wan transformer: every dialect, what diffusers makes of a file of ours, and what other tools' rules make of it.

The rules of two other tools are written down here as they stand in their public code, so that a file that breaks them is seen.
"""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_wan_transformer import VARIANTS, draw, pair, relative, text

from video_gen.model import lora
from video_gen.model.lora import Change
from video_gen.model.lora_config import LoraConfig
from video_gen.model.lora_files import places_of, read_lora, write_lora
from video_gen.model.wan.config import PRESETS, WanTransformerConfig
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.transformer import WanTransformer

MODULES = ("blocks.0.self_attn.q", "blocks.1.cross_attn.o", "blocks.1.ffn.2")
THEIRS = ("blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.1.ffn.net.2")


def zeros(model: torch.nn.Module) -> torch.nn.Module:
    for parameter in model.parameters():
        parameter.data.zero_()
    return model


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.named_parameters()}


DIALECTS = {
    "comfy": ("diffusion_model.", MODULES, "lora_A", "lora_B"),
    "comfy as kohya": ("diffusion_model.", MODULES, "lora_down", "lora_up"),
    "diffusers": ("transformer.", THEIRS, "lora_A", "lora_B"),
    "diffsynth": ("", MODULES, "lora_A.default", "lora_B.default"),
    "kohya": ("lora_unet_", MODULES, "lora_down", "lora_up"),
    "kohya of diffusers": ("lora_unet_", THEIRS, "lora_down", "lora_up"),
}


@pytest.mark.parametrize("alpha", [None, 6.0])
@pytest.mark.parametrize("kind", DIALECTS)
def test_zeros_plus_a_lora_is_the_merged_model_in_every_dialect(kind, alpha, tmp_path):
    model = zeros(WanTransformer(WanTransformerConfig.preset("tiny")))
    prefix, names, a, b = DIALECTS[kind]
    tensors, wanted = {}, {}
    for number, (name, own) in enumerate(zip(names, MODULES)):
        out, into = shapes(model)[f"{own}.weight"]
        down, up = draw(3, into, seed=number), draw(out, 3, seed=9 + number)
        place = prefix + (name.replace(".", "_") if prefix == "lora_unet_" else name)
        tensors |= {f"{place}.{a}.weight": down, f"{place}.{b}.weight": up}
        tensors |= {f"{place}.alpha": torch.tensor(alpha)} if alpha else {}
        wanted[f"{own}.weight"] = 0.7 * (alpha / 3 if alpha else 1) * up @ down
    save_file(tensors, tmp_path / "a.safetensors")
    lora.merge(model, read_lora(tmp_path / "a.safetensors", places_of(model)).changes, 0.7, "a")
    changed = {name: p for name, p in model.named_parameters() if p.any()}
    assert changed.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(changed[name].data, tensor)


def test_extracted_differences_of_norms_biases_modulation_and_patches(tmp_path):
    model = zeros(WanTransformer(WanTransformerConfig.preset("tiny", **VARIANTS["clip"])))
    said = {
        "blocks.0.norm3.diff": "blocks.0.norm3.weight",
        "blocks.0.norm3.diff_b": "blocks.0.norm3.bias",
        "blocks.0.self_attn.norm_q.diff": "blocks.0.self_attn.norm_q.weight",
        "blocks.0.self_attn.q.diff_b": "blocks.0.self_attn.q.bias",
        "blocks.0.modulation.diff": "blocks.0.modulation",
        "head.modulation.diff": "head.modulation",
        "patch_embedding.diff": "patch_embedding.weight",
        "blocks.1.cross_attn.k_img.diff": "blocks.1.cross_attn.k_img.weight",
        "img_emb.proj.0.diff": "img_emb.proj.0.weight",
    }
    tensors = {f"diffusion_model.{key}": draw(*shapes(model)[name]) for key, name in said.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    lora.merge(model, read_lora(tmp_path / "a.safetensors", places_of(model)).changes, 0.5, "a")
    for key, name in said.items():
        torch.testing.assert_close(model.get_parameter(name).data, 0.5 * tensors[f"diffusion_model.{key}"])
    assert sum(bool(p.any()) for p in model.parameters()) == len(said)


def test_a_convolution_has_a_lora_too(tmp_path):
    model = zeros(WanTransformer(WanTransformerConfig.preset("tiny")))
    shape = shapes(model)["patch_embedding.weight"]
    down, up = draw(2, *shape[1:]), draw(shape[0], 2, 1, 1, 1)
    keys = ("diffusion_model.patch_embedding.lora_down.weight", "diffusion_model.patch_embedding.lora_up.weight")
    save_file(dict(zip(keys, (down, up))), tmp_path / "a.safetensors")
    changes = read_lora(tmp_path / "a.safetensors", places_of(model)).changes
    lora.merge(model, changes, 1.0, "a")
    x = draw(1, shape[1], 2, 4, 4)
    wanted = torch.nn.functional.conv3d(torch.nn.functional.conv3d(x, down, stride=(1, 2, 2)), up)
    torch.testing.assert_close(model.patch_embedding(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", ["2.1-t2v-1.3b", "2.1-i2v-14b", "2.2-ti2v-5b"])
def test_every_parameter_of_the_public_sizes_has_a_place_of_its_own_in_each_dialect(preset):
    with torch.device("meta"):
        model = WanTransformer(WanTransformerConfig.preset(preset))
    places = places_of(model)
    modules = {n.removesuffix(".weight").removesuffix(".bias") for n in shapes(model)}
    for module in modules:
        theirs = to_diffusers(module)
        for said in (f"diffusion_model.{module}", f"transformer.{theirs}", module, f"base_model.model.{theirs}"):
            assert places.find(said) == module
        for said in (module, theirs):
            assert places.find(f"lora_unet_{said.replace('.', '_')}") == module
    assert preset in PRESETS and len(modules) > 300


# -------------------- a LoRA of ours elsewhere


@pytest.fixture(scope="module", params=["t2v", "clip"])
def trained(request, tmp_path_factory):
    """A model, the same in diffusers, inputs of both, a LoRA that was trained beside it, and its files."""
    torch.manual_seed(0)
    length = 512 if request.param == "clip" else 24  # diffusers takes the last 512 tokens for the text beside a picture
    ours, theirs = pair(request.param, text_len=length)
    config = ours.config
    noisy, t, (words, visible) = draw(2, 16, 3, 8, 12), torch.tensor([0.5, 0.25]), text(config)
    extra, theirs_extra, inputs = {}, {}, noisy
    if config.beside_channels:
        beside, clip = draw(2, config.beside_channels, 3, 8, 12, seed=3), draw(2, 7, config.image_width, seed=4)
        extra, theirs_extra = {"beside": beside, "clip_tokens": clip}, {"encoder_hidden_states_image": clip}
        inputs = torch.cat([noisy, beside], dim=1)
    targets = ("blocks.*", "head.head", "time_projection.1", "text_embedding.*", "time_embedding.*")
    targets += ("img_emb.*",) if config.image_width else ()
    learner = copy.deepcopy(ours)
    lora.attach(learner, LoraConfig(rank=4, alpha=8, base="fp32", targets=targets), seed=0)
    small = [p for p in learner.parameters() if p.requires_grad]
    optimizer, target = torch.optim.Adam(small, lr=0.02), draw(2, 16, 3, 8, 12, seed=5)
    for _ in range(3):
        loss = (learner(noisy, t, words, visible, **extra) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("trained")
    changes = lora.learned(learner)
    for dialect in ("comfy", "diffusers", "kohya"):
        write_lora(folder / f"{dialect}.safetensors", changes, {"rank": "4"}, dialect, to_diffusers)
    with torch.no_grad():
        wanted = learner(noisy, t, words, visible, **extra)
        before = ours(noisy, t, words, visible, **extra)
    assert relative(wanted, before) > 0.05 and len(changes) > 20

    def as_diffusers(model):
        with torch.no_grad():
            return model(inputs, 1000 * t, words, return_dict=False, **theirs_extra)[0]

    return ours, theirs, changes, folder, wanted, as_diffusers


def test_diffusers_loads_it_and_gives_the_same(trained):
    pytest.importorskip("peft")
    import diffusers

    _, theirs, changes, folder, wanted, as_diffusers = trained
    for dialect in ("comfy", "diffusers"):
        pipeline = diffusers.WanPipeline(
            tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=copy.deepcopy(theirs)
        )
        pipeline.load_lora_weights(str(folder / f"{dialect}.safetensors"))
        assert relative(as_diffusers(pipeline.transformer), wanted) < 1e-4
        assert len([n for n, _ in pipeline.transformer.named_modules() if n.endswith("lora_A")]) == len(changes)
    model = copy.deepcopy(theirs)
    model.load_lora_adapter(load_file(folder / "diffusers.safetensors"), prefix="transformer")
    assert relative(as_diffusers(model), wanted) < 1e-4


def by_comfy(tensors: dict[str, torch.Tensor], model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], set[str]]:
    """ComfyUI (comfy/lora.py, comfy/weight_adapter/lora.py): a parameter `diffusion_model.X.weight` is meant by the names
    `diffusion_model.X` and `lora_unet_X` with underscores; its two matrices are `lora_up` and `lora_down`, or `lora_B` and
    `lora_A`, and it is scaled by `alpha` over the rank where there is one."""
    found, used = {}, set()
    for name, p in model.named_parameters():
        if not name.endswith(".weight"):
            continue
        module = name.removesuffix(".weight")
        for place in (f"diffusion_model.{module}", f"lora_unet_{module.replace('.', '_')}"):
            for up, down in (("lora_up.weight", "lora_down.weight"), ("lora_B.weight", "lora_A.weight")):
                if f"{place}.{up}" in tensors:
                    a, b, alpha = (tensors.get(f"{place}.{part}") for part in (up, down, "alpha"))
                    scale = 1.0 if alpha is None else float(alpha) / b.shape[0]
                    found[name] = scale * (a.flatten(1) @ b.flatten(1)).reshape(p.shape)
                    used |= {f"{place}.{up}", f"{place}.{down}", f"{place}.alpha"}
    return found, used


def by_diffsynth(tensors: dict[str, torch.Tensor], model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], set[str]]:
    """DiffSynth-Studio (diffsynth/utils/lora/general.py): of a key with `lora_B` or `lora_up` the words before it, without a
    leading `diffusion_model`, are the module's own name; an `alpha` in its place scales by alpha over the rank."""
    found, used = {}, set()
    for key, up in tensors.items():
        word = next((w for w in ("lora_B", "lora_up") if w in key.split(".")), None)
        if word is None:
            continue
        other = key.replace(word, {"lora_B": "lora_A", "lora_up": "lora_down"}[word])
        module = key.split(f".{word}.")[0].removeprefix("diffusion_model.")
        alpha = tensors.get(key.replace(f"{word}.weight", "alpha"))
        scale = 1.0 if alpha is None else float(alpha) / len(tensors[other])
        if module in dict(model.named_modules()):
            found[f"{module}.weight"] = scale * up @ tensors[other]
            used |= {key, other, key.replace(f"{word}.weight", "alpha")}
    return found, used


def by_musubi(tensors: dict[str, torch.Tensor], model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], set[str]]:
    """musubi-tuner (convert_lora.py, networks/lora.py): `lora_unet_` and the module's name with underscores, with `lora_down`,
    `lora_up` and `alpha`; of a file whose keys begin with `diffusion_model` or `transformer` the names are turned into these."""
    flat = {}
    for key, tensor in tensors.items():
        if not key.startswith("lora_unet_"):
            body = key.split(".", 1)[1].replace(".", "_")
            for old, new in (("_lora_A_", ".lora_down."), ("_lora_B_", ".lora_up."), ("_alpha", ".alpha")):
                body = body.replace(old, new)
            flat[f"lora_unet_{body}"] = key, tensor
        else:
            flat[key] = key, tensor
    found, used = {}, set()
    for module, layer in model.named_modules():
        place = f"lora_unet_{module.replace('.', '_')}"
        if isinstance(layer, torch.nn.Linear) and f"{place}.lora_down.weight" in flat:
            (down_key, down), (up_key, up) = (flat[f"{place}.lora_{side}.weight"] for side in ("down", "up"))
            alpha_key, alpha = flat.get(f"{place}.alpha", ("", torch.tensor(len(down))))
            found[f"{module}.weight"] = float(alpha) / len(down) * up @ down
            used |= {down_key, up_key, alpha_key}
    return found, used


@pytest.mark.parametrize(
    ("rule", "dialect"),
    [(by_comfy, "comfy"), (by_comfy, "kohya"), (by_diffsynth, "comfy"), (by_musubi, "comfy"), (by_musubi, "kohya")],
)
def test_by_the_rules_of_other_tools_it_is_the_same(trained, rule, dialect):
    ours, _, changes, folder, wanted, as_diffusers = trained
    tensors, model = load_file(folder / f"{dialect}.safetensors"), copy.deepcopy(ours)
    found, used = rule(tensors, model)
    assert found.keys() == changes.keys() and used >= tensors.keys()
    theirs = copy.deepcopy(trained[1])
    for name, difference in found.items():
        theirs.get_parameter(to_diffusers(name)).data += difference
    assert relative(as_diffusers(theirs), wanted) < 1e-4


def test_the_loras_here_and_merged_are_the_same_in_every_file(trained):
    ours, theirs, changes, folder, wanted, as_diffusers = trained
    for dialect in ("comfy", "diffusers", "kohya"):
        model = copy.deepcopy(ours)
        again = read_lora(folder / f"{dialect}.safetensors", places_of(model)).changes
        assert again.keys() == changes.keys()
        lora.merge(model, again, 1.0, "a")
        changed = copy.deepcopy(theirs)
        changed.load_state_dict({to_diffusers(name): x for name, x in model.state_dict().items()})
        assert relative(as_diffusers(changed), wanted) < 1e-5


def test_alpha_outside_of_blocks_is_left_out_since_diffusers_refuses_it(tmp_path):
    both = {name: Change(torch.ones(4, 2), torch.ones(2, 3)) for name in ("head.head.weight", "blocks.0.ffn.0.weight")}
    write_lora(tmp_path / "a.safetensors", both, {})
    alphas = [key for key in load_file(tmp_path / "a.safetensors") if key.endswith("alpha")]
    assert alphas == ["diffusion_model.blocks.0.ffn.0.alpha"]
