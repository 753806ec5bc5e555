"""Attention in slices equals one plain softmax, forward and backward, whatever the slices."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from video_gen.model import checkpointing, sliced
from video_gen.model.sliced import sliced_attention, suits


def tensors(n: int = 24, m: int = 40, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, n, 3, 16), (2, m, 3, 16), (2, m, 3, 16))  # as projections lie: heads between tokens
    return [torch.randn(shape, generator=draw).to(dtype).transpose(1, 2) for shape in shapes]


def biases(n: int = 24, m: int = 40) -> dict[str, torch.Tensor | None]:
    draw = torch.Generator().manual_seed(1)
    hidden = torch.rand(n, m, generator=draw) > 0.7
    hidden[:, 0] = False
    return {
        "none": None,
        "keys of each sample": torch.randn(2, 1, 1, m, generator=draw),
        "a mask": torch.zeros(1, 1, n, m).masked_fill(hidden, float("-inf")),
        "all": torch.randn(2, 3, n, m, generator=draw),
    }


@pytest.mark.parametrize("queries, scores", [(512, 2**22), (7, 1), (5, 500)], ids=["whole", "one by one", "some"])
@pytest.mark.parametrize("kind", biases())
def test_slices_are_one_softmax(monkeypatch, queries, scores, kind):
    monkeypatch.setattr(sliced, "QUERIES", queries)
    monkeypatch.setattr(sliced, "SCORES", scores)
    bias, results = biases()[kind], []
    for attend in (sliced_attention, F.scaled_dot_product_attention):
        given = [x.clone().requires_grad_() for x in tensors()]
        made = attend(*given, bias)
        made.sin().sum().backward()
        results.append([made.detach(), *(x.grad for x in given)])
    for made, want in zip(*results):
        torch.testing.assert_close(made, want, rtol=1e-5, atol=1e-5)


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: None) -> torch.Tensor:
    return (q @ (k * 16**-0.5).mT).softmax(-1) @ v


def test_many_slices_add_up_exactly_enough_in_bfloat16(monkeypatch):
    """Gradients of keys are sums over all slices: they are as near to float32 as those of plain products."""
    monkeypatch.setattr(sliced, "SCORES", 2048)
    errors = []
    for attend, dtype in (
        (F.scaled_dot_product_attention, torch.float32),
        (sliced_attention, torch.bfloat16),
        (plain, torch.bfloat16),
    ):
        given = [x.to(dtype).requires_grad_() for x in tensors(512, 512, torch.bfloat16)]
        attend(*given, None).float().square().sum().backward()
        errors.append([x.grad.float() for x in given])
    whole, *others = errors
    ours, theirs = ([(a - b).norm() / b.norm() for a, b in zip(other, whole)] for other in others)
    assert all(a < 1.1 * b for a, b in zip(ours, theirs)), (ours, theirs)


def test_it_is_an_operation_as_torch_wants_them():
    given = [x.requires_grad_() for x in tensors()]
    for bias in (None, biases()["a mask"]):
        torch.library.opcheck(sliced_attention, (*given, bias))


def test_it_is_taken_where_it_pays(monkeypatch):
    monkeypatch.setattr(sliced, "FUSED_IS_SLOW", True)
    large, small = (tensors(n, 512, torch.bfloat16) for n in (512, 16))
    bias = torch.zeros(1, 1, 1, 512, dtype=torch.bfloat16)
    assert suits(*large, None) and suits(*large, bias)
    assert not suits(*small, None) and not suits(*(x.float() for x in large), None)
    assert not suits(*large, bias.requires_grad_())  # which slices would not learn
    monkeypatch.setattr(sliced, "FUSED_IS_SLOW", False)
    assert not suits(*large, None)


def test_selective_checkpointing_keeps_it_and_its_work_is_counted():
    q, k, v = tensors()
    forward = 2 * 2 * q.shape[:2].numel() * q.shape[2] * k.shape[2] * q.shape[3]
    for kind, passes in (("off", 3.5), ("selective", 3.5), ("full", 4.5)):
        given = [x.clone().requires_grad_() for x in (q, k, v)]
        with FlopCounterMode(display=False) as counter:
            made = checkpointing.run(lambda *x: sliced_attention(*x, None).sin(), tuple(given), kind)
            made.sum().backward()
        assert counter.get_total_flops() == passes * forward, kind
