"""WanTransformer against diffusers' class, with the same random weights in float32, and the full sizes' names and shapes."""

import pytest
import torch
from torch import Tensor

from video_gen.errors import ConfigError, ShapeError
from video_gen.model.wan.config import PRESETS, WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.memory import PADDING, text_bias
from video_gen.model.wan.names import to_diffusers, to_original
from video_gen.model.wan.transformer import WanTransformer

VARIANTS = {
    "t2v": {},
    "clip": dict(in_channels=36, image_width=24),
    "first and last": dict(in_channels=36, image_width=24, image_positions=10),
    "channels": dict(in_channels=36),
    "first frame": dict(latent_channels=48, in_channels=48, first_frame=True),
}
WORDS = (5, 17)


def diffusers_of(config: WanTransformerConfig, device: str = "cpu"):
    """Diffusers' class at the same sizes."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'video-gen[dev]'")
    with torch.device(device):
        return diffusers.WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            in_channels=config.in_channels,
            out_channels=config.latent_channels,
            text_dim=config.text_width,
            freq_dim=config.freq_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.depth,
            image_dim=config.image_width,
            added_kv_proj_dim=config.dim if config.image_width else None,
            pos_embed_seq_len=config.image_positions,
        ).eval()


def pair(variant: str, text_len: int = 24):
    """The same random weights in both classes."""
    config = WanTransformerConfig.preset("tiny", text_len=text_len, **VARIANTS[variant])
    theirs, ours = diffusers_of(config), WanTransformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    for p in theirs.parameters():
        p.data = 0.2 * torch.randn(p.shape, generator=generator)
    ours.load_state_dict({to_original(name): x for name, x in theirs.state_dict().items()})
    return ours, theirs


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text(config: WanTransformerConfig, words: tuple[int, ...] = WORDS) -> tuple[Tensor, Tensor]:
    visible = torch.arange(config.text_len) < torch.tensor(words)[:, None]
    return draw(len(words), config.text_len, config.text_width, seed=2) * visible[..., None], visible


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_equals_diffusers(variant: str):
    # diffusers takes the last 512 tokens for the text where there is a picture
    ours, theirs = pair(variant, text_len=512 if VARIANTS[variant].get("image_width") else 24)
    config = ours.config
    noisy, t = draw(2, config.latent_channels, 3, 8, 12), torch.tensor([0.5, 0.25])
    words, visible = text(config)
    clip = beside = None
    inputs, extra = noisy, {}
    if config.beside_channels:
        beside = draw(2, config.beside_channels, 3, 8, 12, seed=3)
        inputs = torch.cat([noisy, beside], dim=1)
    if config.image_width:
        clip = draw(2, config.image_positions or 7, config.image_width, seed=4)
        # with positions, each picture of a pair comes as a sample of its own
        extra["encoder_hidden_states_image"] = (
            clip.unflatten(1, (2, -1)).flatten(0, 1) if config.image_positions else clip
        )
    times, theirs_t = t, 1000 * t
    if config.first_frame:
        times = t[:, None].expand(-1, 3).clone()
        times[:, 0] = 0
        theirs_t = (1000 * times).repeat_interleave(4 * 6, dim=1)
    wanted = theirs(inputs, theirs_t, words, return_dict=False, **extra)[0]
    found = ours(noisy, times, words, visible, clip_tokens=clip, beside=beside)
    assert relative(found, wanted) < 1e-5
    memory = ours.encode_text(words, visible)
    if clip is not None or beside is not None:
        memory = ours.with_picture(memory, clip, beside)
    torch.testing.assert_close(ours.denoise(noisy, times, memory), found)


@pytest.mark.parametrize("words", [(0, 24), (24, 24), (1, 23)])
@torch.no_grad()
def test_padding_is_one_key_that_counts_for_many(words: tuple[int, int]):
    ours, theirs = pair("t2v")
    noisy, t = draw(2, 16, 2, 4, 4), torch.tensor([0.75, 0.5])
    tokens, visible = text(ours.config, words)
    wanted = theirs(noisy, 1000 * t, tokens, return_dict=False)[0]
    assert relative(ours(noisy, t, tokens, visible), wanted) < 1e-5


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-3), (torch.float16, 2e-4)])
def test_padding_counts_in_half_precision_too(dtype: torch.dtype, error: float):
    """A single key's bias of bfloat16 would be up to 1.6% off."""
    words = torch.arange(513)
    visible = torch.arange(PADDING + 512) < PADDING + words[:, None]
    bias = text_bias(visible, 512, dtype)[:, 0, 0].double()
    counted, wanted = bias[:, :PADDING].exp().sum(dim=1), (512 - words).double()
    assert ((counted - wanted).abs() <= error * wanted).all()
    assert torch.equal(bias[:, PADDING:] == 0, visible[:, PADDING:])


def test_gradients_equal_diffusers():
    ours, theirs = pair("t2v")
    noisy, t = draw(2, 16, 2, 4, 4), torch.tensor([0.75, 0.5])
    tokens, visible = text(ours.config)
    theirs(noisy, 1000 * t, tokens, return_dict=False)[0].square().sum().backward()
    ours(noisy, t, tokens, visible).square().sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        assert relative(p.grad, wanted[to_diffusers(name)].grad) < 1e-4, name


# -------------------- full size

_PAIR = ("weight", "bias")
OUTSIDE = {
    *(f"{layer}.{kind}" for kind in _PAIR for layer in ("patch_embedding", "text_embedding.0", "text_embedding.2")),
    *(f"{layer}.{kind}" for kind in _PAIR for layer in ("time_embedding.0", "time_embedding.2", "time_projection.1")),
    *("head.head.weight", "head.head.bias", "head.modulation"),
}
"""What the original release's files hold outside of their blocks, and below in each of them."""
OF_PICTURES = {f"img_emb.proj.{layer}.{kind}" for layer in (0, 1, 3, 4) for kind in _PAIR}
INSIDE = {
    *(f"{a}_attn.{layer}.{kind}" for a in ("self", "cross") for layer in "qkvo" for kind in _PAIR),
    *(f"{a}_attn.norm_{layer}.weight" for a in ("self", "cross") for layer in "qk"),
    *("norm3.weight", "norm3.bias", "ffn.0.weight", "ffn.0.bias", "ffn.2.weight", "ffn.2.bias", "modulation"),
}
OF_PICTURES_INSIDE = {
    *(f"cross_attn.{layer}_img.{kind}" for layer in "kv" for kind in _PAIR),
    "cross_attn.norm_k_img.weight",
}
FULL_SIZE = {
    # tensors, numbers, and some shapes
    "2.1-t2v-1.3b": (825, 1_418_996_800, {"blocks.29.ffn.0.weight": (8960, 1536), "head.head.weight": (64, 1536)}),
    "2.1-t2v-14b": (1095, 14_288_491_584, {"time_projection.1.weight": (30720, 5120), "blocks.39.norm3.bias": (5120,)}),
    "2.1-i2v-14b": (
        1303,
        16_394_878_784,
        {"patch_embedding.weight": (5120, 36, 1, 2, 2), "img_emb.proj.3.weight": (5120, 1280)},
    ),
    "2.1-flf2v-14b": (1304, 16_395_536_704, {"img_emb.emb_pos": (1, 514, 1280)}),
    "2.2-ti2v-5b": (
        825,
        4_999_787_712,
        {
            "patch_embedding.weight": (3072, 48, 1, 2, 2),
            "head.head.weight": (192, 3072),
            "head.modulation": (1, 2, 3072),
        },
    ),
    "2.2-a14b-t2v": (1095, 14_288_491_584, {"text_embedding.0.weight": (5120, 4096)}),
    "2.2-a14b-i2v": (1095, 14_288_901_184, {"patch_embedding.weight": (5120, 36, 1, 2, 2)}),
}


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in model.state_dict().items()}


@pytest.mark.parametrize("preset", FULL_SIZE)
def test_names_and_shapes_of_the_full_size(preset: str):
    config = WanTransformerConfig.preset(preset)
    with torch.device("meta"):
        ours = shapes(WanTransformer(config))
    theirs = shapes(diffusers_of(config, "meta"))
    assert {to_diffusers(name): shape for name, shape in ours.items()} == theirs
    assert {to_original(name): shape for name, shape in theirs.items()} == ours


@pytest.mark.parametrize("preset", FULL_SIZE)
def test_names_of_the_original_release(preset: str):
    config = WanTransformerConfig.preset(preset)
    with torch.device("meta"):
        ours = shapes(WanTransformer(config))
    clip = config.image_width is not None
    inside = INSIDE | (OF_PICTURES_INSIDE if clip else set())
    wanted = OUTSIDE | {f"blocks.{i}.{name}" for i in range(config.depth) for name in inside}
    wanted |= OF_PICTURES if clip else set()
    wanted |= {"img_emb.emb_pos"} if config.image_positions else set()
    assert set(ours) == wanted
    tensors, numbers, some = FULL_SIZE[preset]
    assert (len(ours), sum(torch.Size(shape).numel() for shape in ours.values())) == (tensors, numbers)
    assert some.items() <= ours.items()


def test_every_public_size_is_checked():
    assert {*FULL_SIZE, "tiny"} == set(PRESETS)


def test_names_of_modules_are_told_too():
    assert to_diffusers("blocks.3.self_attn.q") == "blocks.3.attn1.to_q"
    assert to_original("blocks.11.attn2.to_out.0") == "blocks.11.cross_attn.o"
    for name in ("blocks.0.attn1.to_q", "double_blocks.0.img_attn.qkv.weight", "head", "blocks.x.modulation"):
        with pytest.raises(ConfigError, match=name):
            to_diffusers(name)


# -------------------- what does not fit


def test_wrong_input_is_told():
    model = WanTransformer.from_preset("tiny", in_channels=36)
    words, visible = text(model.config)
    noisy, t = draw(2, 16, 3, 4, 4), torch.tensor([0.5, 0.25])
    memory = model.encode_text(words, visible)
    for call, message in (
        (lambda: model(noisy, t, words, visible), "20 channels"),
        (lambda: model(noisy[:, :15], t, words, visible), "16 channels"),
        (lambda: model(noisy[..., :3], t, words, visible), "patch_size 2"),
        (lambda: model(noisy, t, words, visible, ending=noisy[:, :, :1]), "ending"),
        (lambda: model(noisy, t, words[..., :8], visible), "8 features"),
        (lambda: model.encode_text(words.repeat(1, 2, 1), torch.ones(2, 48, dtype=torch.bool)), "48 tokens"),
        (lambda: model.with_picture(memory, beside=noisy), "20 channels"),
        (lambda: model.with_picture(memory, clip_tokens=words), "takes no CLIP"),
        (lambda: model.encode_history(noisy, text=None), "text"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()
    with pytest.raises(ConfigError, match="there are tiny"):
        WanTransformerConfig.preset("1.3b")
    with pytest.raises(ConfigError, match="num_heads 3"):
        WanTransformerConfig.preset("tiny", num_heads=3)
    two = (WanTransformer.from_preset("tiny", ffn_dim=size) for size in (32, 48))
    with pytest.raises(ConfigError, match="ffn_dim is 32 in that for much noise, and 48 in that for little"):
        Experts(*two, boundary=0.875)


def test_saved_and_loaded(tmp_path):
    model = WanTransformer.from_preset("tiny").eval()
    model.save_pretrained(tmp_path)
    again = WanTransformer.from_pretrained(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in again.state_dict().items())
