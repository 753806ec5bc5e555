"""When blocks are compiled, and what happens where that does not work. No C++ is compiled here: that is slow."""

import pytest
import torch
import yaml
from torch import nn

from video_gen.training import compiling
from video_gen.training.compiling import compile_blocks, or_eagerly, wants_compilation
from video_gen.training.config import LoopConfig

CPU = torch.device("cpu")


class Block(nn.Module):
    def forward(self, x):
        return x.sin() + 1


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block()])


@pytest.mark.parametrize(
    ("choice", "device", "steps", "want"),
    [
        ("auto", "cpu", 1700, False),
        ("auto", "cpu", 2000, True),
        ("auto", "cuda", 10, True),
        ("on", "cpu", 10, True),
        ("off", "cuda", 9000, False),
    ],
)
def test_auto_compiles_where_it_pays(choice, device, steps, want):
    assert wants_compilation(LoopConfig(compile=choice, train_steps=steps), torch.device(device)) is want


def test_no_compiler_is_said_and_nothing_is_compiled(monkeypatch):
    said, module = [], Blocks()
    monkeypatch.setattr(compiling, "say", said.append)
    monkeypatch.setattr(torch, "compile", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no g++")))
    assert compile_blocks({"net": module}, LoopConfig(compile="on"), CPU) is False
    assert "no g++" in said[0] and module.blocks[0]._compiled_call_impl is None


def test_a_failing_compilation_is_said_and_the_step_done_eagerly(monkeypatch):
    said, module = [], Blocks()
    monkeypatch.setattr(compiling, "say", said.append)

    def broken(graph, inputs):
        raise RuntimeError("internal error of the compiler")

    module.blocks[0].compile(backend=broken)
    x = torch.ones(1, 2)
    got = or_eagerly(lambda: module.blocks[0](x), {"net": module})
    assert "internal error" in said[0]
    torch.testing.assert_close(got, module.blocks[0](x))


def test_on_and_off_may_stand_unquoted_in_yaml():
    for word in ("on", "off", "auto"):
        assert LoopConfig(**yaml.safe_load(f"compile: {word}")).compile == word
