"""When blocks are compiled, and what happens where that does not work. No C++ is compiled here: that is slow."""

import copy

import pytest
import torch
import yaml
from torch import nn

from video_gen.model import spans, transformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.training import compiling
from video_gen.training.compiling import compile_blocks, compile_to_sample, or_eagerly, wants_compilation
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
        ("auto", "cuda", 10, False),
        ("auto", "cuda", 200, True),
        ("on", "cpu", 10, True),
        ("off", "cuda", 9000, False),
    ],
)
def test_auto_compiles_where_it_pays(choice, device, steps, want):
    assert wants_compilation(LoopConfig(compile=choice, train_steps=steps), torch.device(device)) is want


@pytest.mark.slow
@pytest.mark.parametrize(
    ("masks", "checkpointing"), [("bias", "full"), ("runs", "off"), ("runs", "selective"), ("runs", "full")]
)
def test_blocks_are_traced_whole_and_give_the_same(masks, checkpointing, monkeypatch):
    """`fullgraph` fails at the first thing that the compiler cannot follow; made into code by a GPU's compiler elsewhere."""
    monkeypatch.setattr(transformer, "masks_for", lambda *given: masks)
    for limit in ("dense_tokens", "run_tokens"):
        monkeypatch.setitem(spans.plan_video.__kwdefaults__, limit, 0)
    torch.compiler.reset()
    torch.manual_seed(0)
    sizes = {"latent_channels": 2, "patch_size": 2, "width": 16, "depth": 2, "head_dim": 8, "text_width": 4}
    plain = transformer.VideoTransformer(TransformerConfig(**sizes))
    for p in plain.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    traced = copy.deepcopy(plain)
    traced.checkpointing = checkpointing
    for block in traced.blocks:
        block.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    noisy, clean = torch.randn(2, 2, 2, 3, 4, 4)
    given = {"t": torch.rand(2), "text": torch.randn(2, 5, 4), "blocks": (1, 2), "clean": clean}
    given |= {"text_visible": torch.tensor([[True] * 5, [True] * 2 + [False] * 3])}
    given |= {"history_visible": torch.tensor([True, False])}
    with torch.no_grad():
        torch.testing.assert_close(traced(noisy, **given), plain(noisy, **given))
    for model in (plain, traced):
        model(noisy, **given).square().mean().backward()
    for a, b in zip(plain.parameters(), traced.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_no_compiler_is_said_and_nothing_is_compiled(monkeypatch):
    said, module = [], Blocks()
    monkeypatch.setattr(compiling, "say", said.append)
    monkeypatch.setattr(torch, "compile", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no g++")))
    assert compile_blocks({"net": module}, LoopConfig(compile="on"), CPU) is False
    assert "no g++" in said[0] and module.blocks[0]._compiled_call_impl is None


@pytest.mark.parametrize("fault", [None, "no g++"])
def test_a_model_is_compiled_to_sample_where_that_works(monkeypatch, fault):
    said, module = [], Blocks()
    monkeypatch.setattr(compiling, "say", said.append)
    monkeypatch.setattr(compiling, "compiler_fault", lambda device: fault)
    compile_to_sample(module, CPU)
    assert (module.blocks[0]._compiled_call_impl is None) == bool(said) == bool(fault)


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
