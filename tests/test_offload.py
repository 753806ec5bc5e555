"""Blocks that stay on the CPU: the same numbers, two of them on the device and no more, in whichever order they are used."""

import pytest
import torch
from test_weights import fresh, velocity

from video_gen.errors import ConfigError
from video_gen.model import offload as offload_module
from video_gen.model.offload import Offload, Waiting, layers_of
from video_gen.model.weights import keep_in


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_the_numbers_are_the_same(kind):
    model = fresh(depth=5)
    keep_in(model, kind)
    model.requires_grad_(False)
    expected, state = velocity(model), {name: x.clone() for name, x in model.state_dict().items()}
    with Offload(model, "cpu"):
        assert torch.equal(velocity(model), expected) and torch.equal(velocity(model), expected)
    assert torch.equal(velocity(model), expected)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


def test_layers_compute_with_what_is_on_the_device_and_two_blocks_are():
    model = fresh(depth=5)
    with Offload(model, "cpu") as offload:
        kept = sum(len(block.bytes) for block in offload.blocks)
        assert offload.places.nbytes == 2 * max(len(block.bytes) for block in offload.blocks) < kept / 2
        place = offload.places.untyped_storage().data_ptr()
        used = []
        for index, block in enumerate(model.blocks):
            for layer in layers_of(block):
                layer.register_forward_pre_hook(
                    lambda layer, _, index=index: used.append((index, layer.weight.untyped_storage().data_ptr()))
                )
        velocity(model)
        assert {index for index, _ in used} == set(range(5)) and {at for _, at in used} == {place}


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 1, 2], [0, 3, 1, 1, 2, 0, 3]])
def test_whatever_the_order_a_block_finds_its_own(order):
    model = fresh(depth=4)
    own = [[layer.weight.clone() for layer in layers_of(block)] for block in model.blocks]
    with Offload(model, "cpu") as offload:
        for index in order:
            offload.want(index)
            there = [layer.weight for layer in layers_of(model.blocks[index])]
            assert all(torch.equal(x, y) for x, y in zip(there, own[index], strict=True))
            assert there[0].untyped_storage().data_ptr() == offload.places.untyped_storage().data_ptr()


def test_blocks_are_sent_for_one_ahead(monkeypatch):
    fetched = []
    fetch = Offload._fetch
    monkeypatch.setattr(Offload, "_fetch", lambda self, index: (fetched.append(index), fetch(self, index)))
    with Offload(fresh(depth=4), "cpu") as offload:
        for index in [0, 1, 2, 3, 0, 1]:
            offload.want(index)
        assert fetched == [0, 1, 2, 3, 0, 1, 2]  # each while the one before it computes
        fetched.clear()
        for index in [0, 3, 2, 1]:
            offload.want(index)
        assert fetched == [0, 3, 2, 1, 0]  # backwards, as gradients go


@pytest.mark.parametrize("checkpointing", ["off", "full"])
@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_gradients_go_through(checkpointing, kind):
    model = fresh(depth=4)
    keep_in(model, kind)
    model.stream.requires_grad_(True)
    model.checkpointing = checkpointing
    g = torch.Generator().manual_seed(3)
    clean, noisy = torch.randn(2, 2, 4, 2, 8, 8, generator=g)
    text, seen = torch.randn(2, 3, 16, generator=g), torch.ones(2, 3, dtype=torch.bool)

    def loss():
        t = torch.tensor([0.3, 0.8])
        with torch.autocast("cpu", torch.bfloat16):
            return model(noisy, t, text, seen, clean, blocks=(1, 1)).float().square().mean()

    (expected,) = torch.autograd.grad(loss(), model.stream)
    with Offload(model, "cpu") as offload:
        with offload.saving():
            found = loss()
        assert torch.equal(torch.autograd.grad(found, model.stream)[0], expected)
        if kind == "int8":  # of float32, autocast's copies are saved, and not the weights
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                torch.autograd.grad(loss(), model.stream)


def test_what_blocks_begin_with_waits_on_the_cpu(monkeypatch):
    monkeypatch.setattr(offload_module, "LARGE", 4096)
    model = fresh(depth=6)
    model.stream.requires_grad_(True)
    model.checkpointing = "full"
    noisy, text = torch.randn(2, 4, 4, 8, 8), torch.randn(2, 3, 16)

    def loss():
        return model(noisy, torch.tensor([0.3, 0.8]), text, torch.ones(2, 3, dtype=torch.bool)).square().mean()

    (expected,) = torch.autograd.grad(loss(), model.stream)
    waiting = []
    with Offload(model, "cpu") as offload:
        note = offload._note
        monkeypatch.setattr(
            offload, "_note", lambda *args, **more: (waiting.append(note(*args, **more)), waiting[-1])[1]
        )
        with offload.saving(all_of_it=True):
            found = loss()
        tokens = [x for x in waiting if isinstance(x, Waiting) and x.kept.shape == (2, 4, 16, 64)]
        assert len(tokens) >= 6  # one for each block
        assert torch.equal(torch.autograd.grad(found, model.stream)[0], expected)


def test_what_learns_stays_and_nothing_to_move_is_an_error():
    with pytest.raises(ConfigError, match="no block of this model has a linear layer that does not learn"):
        Offload(fresh().requires_grad_(True), "cpu")
    model = fresh()
    model.blocks[1].attention.qkv.requires_grad_(True)
    learned = model.blocks[1].attention.qkv.weight
    with Offload(model, "cpu"):
        velocity(model)
        assert model.blocks[1].attention.qkv.weight is learned
