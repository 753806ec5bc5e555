"""Masks for FlexAttention, groups as samples, and what is skipped where no text is padded, against the plain products."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask

from video_gen.model import ring
from video_gen.model.attention import SpatiotemporalAttention, attend
from video_gen.model.layers import RotaryEmbedding
from video_gen.model.ring import ring_attend
from video_gen.model.runs import Block, Runs, fused_kernel
from video_gen.model.spans import plan_text, plan_video


@pytest.mark.parametrize(("blocks", "window"), [((1, 2, 3), None), ((1, 2, 3), 2), ((6,), None)])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_masks_equal_biases(blocks, window, padded):
    torch.manual_seed(0)
    attention = SpatiotemporalAttention(16, 8, "joint")
    x, past, words = (torch.randn(2, f, s, 16) for f, s in ((6, 6), (5, 6), (1, 3)))
    visible = torch.tensor([[True] * 3, [True, not padded, not padded]])
    seen = torch.tensor([True, False]) if padded else None
    tables = RotaryEmbedding(8, 1000.0)(16, 2, 3, x.device)
    limits = dict(sink=1, window=window, text_visible=visible, text_padded=padded, history_visible=seen)
    with torch.no_grad():
        text, history = attention.project(words)[1], attention.project(past)[1]
        first, kept = (5, 5) if blocks == (6,) else (0, 5)
        plans = [plan_video(blocks, first, kept, tables, **limits, masks=masks) for masks in ("bias", "flex")]
        want, got = (attention(x, plan, text, history)[0] for plan in plans)
    torch.testing.assert_close(got, want)
    assert any(not isinstance(span.joint_bias, torch.Tensor | None) for span in plans[1].spans) or not padded


@pytest.mark.parametrize(
    ("blocks", "window"), [((1, 2, 3), None), ((1, 2, 3), 2), ((6,), None), ((1, 1, 1, 1, 1, 1), None)]
)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize(("self_history", "kept"), [(False, 5), (True, 0), (True, 2)])
def test_runs_equal_biases_forward_and_backward(blocks, window, padded, hides, self_history, kept):
    """The kernel of a CPU stands for those of a GPU; tests/test_gpu.py has these."""
    torch.manual_seed(0)
    attention = SpatiotemporalAttention(16, 8, "joint")
    x, past, words = (torch.randn(2, f, s, 16) for f, s in ((6, 6), (kept, 6), (1, 3)))
    visible = torch.tensor([[True] * 3, [True, not padded, not padded]])
    tables = RotaryEmbedding(8, 1000.0)(16, 2, 3, x.device)
    limits = dict(sink=1, window=window, text_padded=padded, self_history=self_history, dense_tokens=0, run_tokens=0)
    if not self_history:  # the clean stream sees neither text nor hidden history
        limits |= dict(text_visible=visible, history_visible=torch.tensor([True, False]) if hides else None)
    first, made = kept if self_history or blocks == (6,) else 0, []
    for masks in ("bias", "runs"):
        inputs = [value.clone().requires_grad_() for value in (x, past, words)]
        text = None if self_history else attention.project(inputs[2])[1]
        history = attention.project(inputs[1])[1] if kept else None
        plan = plan_video(blocks, first, kept, tables, **limits, masks=masks)
        out = attention(inputs[0], plan, text, history)[0]
        asked = inputs if not self_history else inputs[: 2 if kept else 1]
        made.append((out, *torch.autograd.grad(out.square().sum(), asked)))
        assert all(isinstance(span.joint_bias, Runs) == (masks == "runs") for span in plan.spans)
    for want, got in zip(*made):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_text_that_is_hidden_whole_is_nothing():
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 9, 9))
    bias = torch.tensor([[0.0] * 4, [float("-inf")] * 4])[:, None, None]
    runs = Runs((Block(slice(0, 5), (slice(4, 9),)),), "cpu", words=4, text_bias=bias)
    made = attend(q, k, v, runs)
    want = attend(q, k, v, F.pad(bias, (0, 5)))
    torch.testing.assert_close(made, want)
    for a, b in zip(*(torch.autograd.grad(out.sum(), (q, k, v)) for out in (made, want))):
        torch.testing.assert_close(a, b)


def test_small_blocks_have_a_bias_in_place_of_runs():
    tables = RotaryEmbedding(8, 1000.0)(64, 4, 4, torch.device("cpu"))
    limits = dict(sink=1, window=None, masks="runs", text_visible=torch.ones(1, 3, dtype=torch.bool))

    def kind(*blocks, **more):
        return type(plan_video(blocks, 0, 0, tables, **limits, **more).spans[0].joint_bias)

    assert kind(31) is torch.Tensor and kind(32) is Runs  # of 16 tokens each
    assert kind(32, 32) is torch.Tensor and kind(32, 32, dense_tokens=512) is Runs
    with torch.no_grad():  # no gradient is asked for, and FlexAttention would have to be compiled
        assert kind(*[2] * 32, dense_tokens=512) is torch.Tensor
    assert kind(*[2] * 32, dense_tokens=512) is BlockMask


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "want"),
    [
        ((9, 0), torch.bfloat16, 128, "cudnn"),
        ((10, 0), torch.float16, 64, "cudnn"),
        ((9, 0), torch.bfloat16, 192, "flash"),
        ((8, 6), torch.bfloat16, 128, "flash"),
        ((8, 6), torch.bfloat16, 256, None),
        ((7, 5), torch.float16, 64, None),
        ((9, 0), torch.bfloat16, 20, None),
        ((9, 0), torch.float32, 64, None),
    ],
)
def test_kernels_of_a_gpu(monkeypatch, capability, dtype, head_dim, want):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fused_kernel(torch.device("cuda"), dtype, head_dim) == want


def test_runs_that_touch_are_one():
    tables = RotaryEmbedding(8, 1000.0)(16, 2, 3, torch.device("cpu"))
    limits = dict(
        sink=1, window=None, dense_tokens=0, run_tokens=0, masks="runs", text_visible=torch.ones(1, 3, dtype=torch.bool)
    )
    (span,) = plan_video((2, 2), 0, 2, tables, **limits, text_padded=False).spans
    assert [block.keys for block in span.joint_bias.blocks] == [
        (slice(0, 3), slice(15, 27)),  # the text; its own, after two frames of history that come later
        (slice(0, 15), slice(27, 39)),  # the text and both frames before it
    ]


@pytest.mark.parametrize("biased", [False, True])
def test_groups_as_samples_equal_plain_products(biased):
    q, k, v = (torch.randn(2, 3, 4, n, 8) for n in (5, 6, 6))
    bias = torch.randn(2, 1, 1, 1, 6) if biased else None
    want = attend(q.requires_grad_(), k, v, bias)
    with torch.no_grad():
        got = attend(q, k, v, bias)
    torch.testing.assert_close(got, want.detach())


def test_text_without_padding_has_no_mask():
    visible = torch.ones(2, 3, dtype=torch.bool)
    assert plan_text(visible, 8, torch.float32, padded=False).spans[0].joint_bias is None
    assert plan_text(visible, 8, torch.float32).spans[0].joint_bias is not None


@pytest.mark.parametrize("words", [0, 3])
def test_keys_that_go_round_are_those_of_one_softmax(words):
    """Three shares of the keys, the text in front of the first; some keys of each hidden."""
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(2, 2, 5, 8, generator=draw)
    text, *shares = (torch.randn(2, 2, 2, n, 8, generator=draw) for n in (words, 4, 4, 4))
    seen = torch.rand(5, 4, generator=draw) > 0.3
    seen[:, 0] = True
    bias = torch.zeros(5, 4).masked_fill(~seen, float("-inf"))
    first = torch.cat([torch.zeros(5, words), bias], dim=1)
    coming = iter(shares[1:])
    k, v = torch.cat([text, shares[0]], dim=3)
    made = ring_attend(q, k, v, first, words, bias, lambda places: next(coming), 3)
    k, v = torch.cat([text, *shares], dim=3)
    whole = torch.cat([first, bias, bias], dim=1)
    torch.testing.assert_close(made, F.scaled_dot_product_attention(q, k, v, attn_mask=whole))


@pytest.mark.parametrize("groups", [(), (3,)])
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_a_share_by_flex_attention_equals_products(groups):
    """The answer and the logarithm of its divisor; flex_attention has no backward on a CPU."""
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 2, *groups, 16, 8, generator=draw) for _ in range(3))
    torch.testing.assert_close(ring._flex(q, k, v, None), ring._share(q, k, v, None), rtol=1e-4, atol=1e-5)
