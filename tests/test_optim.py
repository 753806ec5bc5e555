"""Optimisers: what they move, how far, and when; schedule and clipping."""

import math

import pytest
import torch
from test_training import Net, fresh_state
from torch import nn

from video_gen.errors import ConfigError
from video_gen.training.config import OptimConfig
from video_gen.training.optim import build_optimizer, clip_gradients, learning_rate, orthogonalise


def test_the_learning_rate_rises_then_falls():
    def rates(schedule):
        config = OptimConfig(learning_rate=2.0, warmup_steps=4, schedule=schedule, final_lr=0.1)
        return [learning_rate(step, config, 15) for step in range(15)]

    for schedule in ("constant", "linear", "cosine"):
        assert rates(schedule)[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates("constant")[-1] == 2.0
    assert rates("linear")[9] == pytest.approx(1.1) and rates("linear")[-1] == pytest.approx(0.2)
    assert rates("cosine")[9] == pytest.approx(1.1) and rates("cosine")[-1] == pytest.approx(0.2)
    assert rates("cosine")[6] == pytest.approx(0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi * 0.2)))


@pytest.mark.parametrize("shape", [(3, 24, 40), (2, 40, 24), (1, 32, 32)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    result = orthogonalise(matrices).float()
    singular = torch.linalg.svdvals(result)
    if shape[1] != shape[2]:  # a square Gaussian matrix has singular values too near zero for five iterations
        assert singular.min() > 0.6
    assert singular.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (result * (u @ v)).sum() / (result.norm() * (u @ v).norm()) > 0.95
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4).bfloat16())


def test_muon_takes_matrices_only_and_moves_them_as_far_as_adamw_would():
    net = Net()
    optimizer = build_optimizer({"net": net}, OptimConfig(optimizer="muon", weight_decay=0, adam_names=("last",)))
    kinds = {name.split(":")[0] for name in optimizer.tensors() if name.endswith(":momentum")}
    assert kinds == {"net.first.weight", "net.second.weight", "net.conv.weight"}
    before = net.first.weight.detach().clone()
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step(1e-2)
    moved = (net.first.weight.detach() - before).square().mean().sqrt() / 1e-2
    assert 0.1 < moved < 0.3  # MUON_RMS 0.2, up to the spread of singular values and the aspect ratio
    with pytest.raises(ConfigError, match="adam_names: no parameter's name contains 'head'"):
        build_optimizer({"net": net}, OptimConfig(optimizer="muon", adam_names=("head",)))


def test_muon_stacks_kernels_of_two_and_three_axes_that_are_of_one_size():
    def moved(*nets):
        optimizer = build_optimizer({str(i): net for i, net in enumerate(nets)}, OptimConfig(optimizer="muon"))
        for net in nets:
            net.weight.grad = torch.linspace(-1, 1, 64).sin().view_as(net.weight) + net.weight.detach()
        optimizer.step(1e-2)
        return [net.weight.detach() for net in nets]

    def fresh():
        torch.manual_seed(0)
        return nn.Conv2d(8, 8, 1, bias=False), nn.Conv3d(8, 8, 1, bias=False)

    flat, deep = fresh()
    together, alone = moved(*fresh()), [*moved(flat), *moved(deep)]
    for a, b in zip(together, alone):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_vectors_and_listed_tables_are_not_decayed():
    net = Net()
    optimizer = build_optimizer({"net": net}, OptimConfig(weight_decay=0.5))
    with torch.no_grad():
        net.table.fill_(1.0)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    for name, p in net.named_parameters():
        share = 1.0 if p.ndim < 2 or name == "table" else 1 - 0.1 * 0.5
        torch.testing.assert_close(p.detach(), before[name] * share)


def test_adamw_equals_a_plain_one_on_channels_last_weights():
    nets = [Net(), Net()]
    ours = build_optimizer({"net": nets[0]}, OptimConfig(weight_decay=0))
    plain = torch.optim.AdamW(
        nets[1].parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0, fused=False, foreach=False
    )
    for step in range(3):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
        for net in nets:
            net.zero_grad()
            net(x).square().mean().backward()
        ours.step(1e-2)
        plain.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_clipping_scales_to_the_norm_and_returns_the_one_before():
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([0.0, 3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 1.0) == 5
    torch.testing.assert_close(
        torch.cat([p.grad for p in parameters if p.grad is not None]), torch.tensor([0, 0.6, 0, 0.8])
    )
    assert clip_gradients(parameters, 7.0) == pytest.approx(1.0) and parameters[1].grad == pytest.approx(0.8)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_skip_flag_of_a_gpu_leaves_everything_as_it_was(optimizer):
    state = fresh_state(OptimConfig(optimizer=optimizer))
    for p in state.optimizer.parameters.values():
        p.grad = torch.randn_like(p)
    state.optimizer.step(1e-2, skip=torch.tensor(0.0))
    before = {f"{f}/{n}": t.clone() for f, ts in state.tensors().items() for n, t in ts.items()}
    for p in state.optimizer.parameters.values():
        p.grad = torch.full_like(p, math.nan)
    state.optimizer.step(1e-2, skip=torch.tensor(1.0))
    for file, tensors in state.tensors().items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, before[f"{file}/{name}"]), (file, name)
