"""Weights in fewer bits: bfloat16 changes nothing under autocast, eight bits a little, and neither is there twice."""

import pytest
import torch
from torch import nn

from video_gen.errors import ConfigError
from video_gen.model.pretrained import StoredWeights
from video_gen.model.transformer import VideoTransformer
from video_gen.model.weights import EightBitLinear, fill, in_eight_bits, keep_in, rounded_to

SIZES = dict(width=64, depth=3, head_dim=32, latent_channels=4, text_width=16)


def fresh(seed=0, **sizes):
    torch.manual_seed(seed)
    model = VideoTransformer.from_preset("tiny", **(SIZES | sizes))
    for parameter in model.parameters():  # nothing stays at the zeros it starts from
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def velocity(model, bf16=True):
    g = torch.Generator().manual_seed(1)
    text = torch.randn(2, 5, 16, generator=g)
    clean, noisy = torch.randn(2, 2, 4, 2, 8, 8, generator=g)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        memory = model.encode_text(text, torch.ones(2, 5, dtype=torch.bool))
        history = model.encode_history(clean)
        return model.denoise(noisy, torch.full((2,), 0.6), memory, history).float()


def error(ours, exact):
    return float((ours - exact).norm() / exact.norm())


@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_bfloat16_gives_what_float32_gives_under_autocast(attention):
    whole, half = fresh(attention=attention), fresh(attention=attention)
    keep_in(half, "bf16")
    assert half.blocks[0].attention.qkv.weight.dtype == torch.bfloat16
    assert half.blocks[0].table.dtype == half.modulation.weight.dtype == torch.float32
    assert torch.equal(velocity(half), velocity(whole))


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("fp8", 0.1)])
def test_eight_bits_are_close_and_small(kind, most):
    whole, small = fresh(), fresh()
    keep_in(small, kind)
    exact = velocity(whole, bf16=False)
    assert 0 < error(velocity(small, bf16=False), exact) < most
    assert error(velocity(small), exact) < most + 0.02
    size = lambda model: sum(x.nbytes for x in model.blocks.state_dict().values() if x.ndim == 2 and x.shape[1] > 1)  # noqa: E731
    tables = sum(block.table.nbytes for block in whole.blocks)
    assert size(small) - tables == (size(whole) - tables) / 4


def test_a_gradient_goes_through_and_keeps_no_matrix():
    torch.manual_seed(0)
    linear = nn.Linear(24, 40)
    layer = EightBitLinear.of(linear, "int8")
    x = torch.randn(6, 24, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        out = layer(x)
    g = torch.randn(6, 40)
    (ours,) = torch.autograd.grad(out, x, g)
    matrix = layer.matrix(torch.float32)
    assert torch.equal(out, nn.functional.linear(x, matrix, layer.bias)) and torch.equal(ours, g @ matrix)
    assert sum(t.nbytes for t in kept) == layer.weight.nbytes + layer.scale.nbytes


def test_rounding_is_that_of_a_step_and_keeps_what_it_can_say():
    weight = torch.randn(16, 32)
    rounded, scale = rounded_to(weight, torch.int8)
    assert (
        (rounded * scale - weight).abs() <= 0.76 * scale
    ).all()  # half a step; the largest may be clipped by a quarter
    again, same = rounded_to(rounded * scale, torch.int8)
    assert ((again * same - rounded * scale).abs() <= 0.5 * same).all()
    zero, ones = rounded_to(torch.zeros(3, 4), torch.int8)
    assert not zero.any() and (ones > 0).all()


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8", "fp8"])
def test_loading_equals_converting(kind, tmp_path):
    model = fresh()
    model.save_pretrained(tmp_path)
    keep_in(model, kind)
    loaded = VideoTransformer.from_pretrained(tmp_path, kind)
    state = loaded.state_dict()
    assert {name: x.dtype for name, x in state.items()} == {name: x.dtype for name, x in model.state_dict().items()}
    assert all(torch.equal(state[name].float(), x.float()) for name, x in model.state_dict().items())


def test_loading_holds_one_tensor_at_a_time(tmp_path):
    fresh().save_pretrained(tmp_path)
    with torch.device("meta"):
        model = VideoTransformer(fresh().config)
    keep_in(model, "int8")
    seen = []

    def one_by_one():
        for name, x in StoredWeights(tmp_path / "model.safetensors").items():
            seen.append(sum(not y.is_meta for y in model.state_dict().values()))
            yield name, x

    fill(model, one_by_one())
    assert seen == sorted(seen) and len(set(seen)) == len(seen) and seen[0] == 0


def test_mistakes_are_told(tmp_path):
    model = fresh()
    keep_in(model, "int8")
    assert in_eight_bits(model) and not in_eight_bits(fresh())
    with pytest.raises(ConfigError, match="eight bits already"):
        keep_in(model, "fp8")
    with pytest.raises(ConfigError, match="weights kept in eight bits are not saved"):
        model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = VideoTransformer(model.config)
    with pytest.raises(ConfigError, match=r"blocks\.9\.x is none of this model's"):
        fill(empty, [("blocks.9.x", torch.zeros(1))])
    with pytest.raises(ConfigError, match="is missing"):
        fill(empty, [])
