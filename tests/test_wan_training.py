"""What training wants of WanTransformer: less memory by checkpointing, whole blocks for the compiler, counted work."""

import copy

import pytest
import torch
from test_transformer import Tally
from test_wan_history import inputs, small
from torch.utils.flop_counter import FlopCounterMode

from video_gen.model import attention as attention_module
from video_gen.model import spans
from video_gen.model.wan import transformer as wan_module
from video_gen.model.wan.flops import PADDING, wan_denoise_flops, wan_flops
from video_gen.model.wan.memory import PADDING as KEYS
from video_gen.model.weights import keep_in


def test_checkpointing_gives_the_same_gradients_from_less_memory(monkeypatch):
    monkeypatch.setattr(attention_module, "DENSE_TOKENS", 0)  # the fused kernel, whose output `selective` keeps
    latents, noisy, t, text, visible = inputs()
    gradients, held, again = {}, {}, {}
    for kind in ("off", "selective", "full"):
        model = small(depth=4)
        model.checkpointing = kind
        with Tally() as tally:
            loss = model(noisy, t, text, visible, clean=latents, blocks=(1, 5)).square().mean()
            held[kind], forward = tally.held(), tally.attention
            loss.backward()
            again[kind] = tally.attention - forward
        gradients[kind] = {name: p.grad for name, p in model.named_parameters()}
    assert held["full"] < held["selective"] < 0.8 * held["off"]
    assert again["off"] == again["selective"] == 0 < again["full"]
    for kind in ("selective", "full"):
        torch.testing.assert_close(gradients[kind], gradients["off"], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("masks", "checkpointing"), [("bias", "off"), ("runs", "full")])
def test_blocks_are_traced_whole_and_give_the_same(masks, checkpointing, monkeypatch):
    """`fullgraph` fails at the first thing that the compiler cannot follow."""
    monkeypatch.setattr(wan_module, "masks_for", lambda *given: masks)
    for limit in ("dense_tokens", "run_tokens"):
        monkeypatch.setitem(spans.plan_video.__kwdefaults__, limit, 0)
    torch.compiler.reset()
    plain = small(depth=2, in_channels=7, image_width=9)
    traced = copy.deepcopy(plain)
    traced.checkpointing = checkpointing
    for block in traced.blocks:
        block.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    latents, noisy, t, text, visible = inputs(frames=3)
    given = {"t": t, "text": text, "text_visible": visible, "blocks": (1, 2), "clean": latents}
    given |= {"history_visible": torch.tensor([True, False])}
    given |= {"clip_tokens": torch.randn(2, 5, 9), "beside": torch.randn(2, 4, 3, 4, 6)}
    with torch.no_grad():
        torch.testing.assert_close(traced(noisy, **given), plain(noisy, **given))
    for model in (plain, traced):
        model(noisy, **given).square().mean().backward()
    for a, b in zip(plain.parameters(), traced.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_half_precision_stays_close():
    """In bfloat16 alone, and under autocast as it trains, with weights of float32 and, as when it samples, of bfloat16."""
    model = small(depth=2)
    _, noisy, t, text, visible = inputs()
    with torch.no_grad():
        wanted = model(noisy, t, text, visible)
        plain = copy.deepcopy(model).bfloat16()(noisy, t, text, visible)
        kept = copy.deepcopy(model)
        keep_in(kept, "bf16")
        with torch.autocast("cpu", torch.bfloat16):
            trained, sampled = (each(noisy, t, text, visible) for each in (model, kept))
    for found in (plain, trained):
        assert found.dtype == torch.bfloat16
        assert (found.float() - wanted).norm() < 0.03 * wanted.norm()
    assert torch.equal(sampled, trained)


# -------------------- counted work


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_the_work_is_what_torch_counts():
    """With a gradient, since torch doesn't count its fused attention on a CPU."""
    model = small(window=1, sink=0)
    latents, noisy, t, text, visible = inputs()
    assert PADDING == KEYS
    whole = wan_flops(model.config, 2, (6, 4, 6), 4)
    assert whole == counted(lambda: model(noisy, t, text, visible))
    blocks = (1, 2, 1, 2)
    forced = wan_flops(model.config, 2, (6, 4, 6), 4, blocks, history=True)
    assert forced == counted(lambda: model(noisy, t, text, visible, clean=latents, blocks=blocks))
    memory = model.encode_text(text, visible)
    history = model.encode_history(latents[:, :, :1], text=memory)
    made = wan_denoise_flops(model.config, 2, (2, 4, 6), 4, past=1)
    assert made == counted(lambda: model.denoise(noisy[:, :, :2], t[:, :2], memory, history))


@torch.no_grad()
def test_the_work_of_the_blocks_is_most_of_it():
    model = small(dim=96, ffn_dim=256, num_heads=2)
    sizes = (8, 32, 32)
    whole = wan_flops(model.config, 1, sizes, 4)
    assert model.config.forward_flops(*sizes) == pytest.approx(whole, rel=0.05)


def test_biases_norms_and_tables_do_not_decay():
    model = small()
    assert {"blocks.0.modulation", "head.modulation", "blocks.1.self_attn.q.bias"} <= model.no_decay()
    assert not {"blocks.0.self_attn.q.weight", "patch_embedding.weight"} & model.no_decay()
