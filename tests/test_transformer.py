"""The transformer against a plain reference, and its causal and cached behaviour."""

import copy
import math

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from video_gen.errors import ConfigError, ShapeError
from video_gen.model import attention as attention_module
from video_gen.model.attention import SpatiotemporalAttention
from video_gen.model.layers import RotaryEmbedding, patchify, rotate, unpatchify
from video_gen.model.routing import Route, draw_places
from video_gen.model.spans import kept_frames, plan_video
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import PRESETS, TransformerConfig
from video_gen.training.compiling import compile_blocks
from video_gen.training.config import LoopConfig

HEAD = 8
FRAMES, HEIGHT, WIDTH = 6, 2, 3


def small(**overrides) -> VideoTransformer:
    settings = dict(latent_channels=3, patch_size=2, width=32, depth=3, head_dim=HEAD, text_width=5) | overrides
    torch.manual_seed(0)
    model = VideoTransformer(TransformerConfig(**settings)).eval()
    for parameter in model.parameters():  # zero-initialised layers would hide mistakes
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(frames=FRAMES, batch=2):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 3, frames, 2 * HEIGHT, 2 * WIDTH, generator=generator)
    noisy = torch.randn(latents.shape, generator=generator)
    text = torch.randn(batch, 4, 5, generator=generator)
    visible = torch.tensor([[True] * 4, [True, True, False, False]])[:batch]
    return latents, noisy, torch.rand(batch, frames, generator=generator), text, visible


def reference(attention, x, own_block, text, history, history_block, sink, window, first):
    """One token at a time, in plain loops: the meaning of `SpatiotemporalAttention`."""
    (q, (k, v)), (f, s) = attention.project(x), x.shape[1:3]
    rope = RotaryEmbedding(HEAD, 1000.0)
    out = torch.zeros_like(q)
    starts = {n: own_block.index(n) for n in own_block}
    for i in range(f):
        start = first + starts[own_block[i]]
        past = list(range(start)) if attention.kind != "space" else []
        if window is not None and start > sink + window:
            past = [j for j in past if j < sink or j >= start - window]
        own = [j for j in range(f) if own_block[j] == own_block[i]] if attention.kind != "space" else [i]
        cos, sin = rope(64, HEIGHT, WIDTH, x.device)
        for p in range(s):
            keys, values = [], []
            if text is not None and attention.kind != "time":
                keys.append(text.k[:, :, 0]), values.append(text.v[:, :, 0])
            places = [p] if attention.kind == "time" else list(range(s))
            for position, j in enumerate(past):
                source_k, source_v = history
                keys.append(rotate(source_k[:, :, j], cos[position], sin[position])[:, :, places])
                values.append(source_v[:, :, j][:, :, places])
            for offset, j in enumerate(own):
                position = 0 if attention.kind == "space" else len(past) + offset
                keys.append(rotate(k[:, :, j], cos[position], sin[position])[:, :, places])
                values.append(v[:, :, j][:, :, places])
            at = 0 if attention.kind == "space" else len(past) + own.index(i)
            query = rotate(q[:, :, i], cos[at], sin[at])[:, :, p : p + 1]
            weights = (query @ torch.cat(keys, 2).transpose(-1, -2) / math.sqrt(HEAD)).softmax(-1)
            out[:, :, i, p] = (weights @ torch.cat(values, 2))[:, :, 0]
    return attention.out(out.permute(0, 2, 3, 1, 4).flatten(3))


@pytest.mark.parametrize("kind", ["joint", "space", "time"])
@pytest.mark.parametrize("blocks", [(6,), (1, 2, 3), (1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize(("sink", "window"), [(1, None), (1, 2), (0, 1), (2, 1)])
@pytest.mark.parametrize("dense_tokens", [0, 4096])
@pytest.mark.parametrize("self_history", [False, True])
def test_attention_equals_a_plain_reference(kind, blocks, sink, window, dense_tokens, self_history):
    torch.manual_seed(0)
    attention = SpatiotemporalAttention(16, HEAD, kind).double()
    x, past, words = (torch.randn(2, f, s, 16).double() for f, s in ((6, 6), (5, 6), (1, 3)))
    text = None if self_history else attention.project(words)[1]
    tables = tuple(x.double() for x in RotaryEmbedding(HEAD, 1000.0)(16, HEIGHT, WIDTH, x.device))
    history = None if self_history else attention.project(past)[1]
    visible = None if self_history else torch.ones(2, 3, dtype=torch.bool)
    kept = 0 if self_history else 5
    limits = {"sink": sink, "window": window, "dense_tokens": dense_tokens}
    plan = plan_video(blocks, 0, kept, tables, self_history=self_history, text_visible=visible, **limits)
    got, own = attention(x, plan, text, history)
    own_block = [n for n, size in enumerate(blocks) for _ in range(size)]
    want = reference(attention, x, own_block, text, own if self_history else history, own_block, sink, window, 0)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("window", [None, 2])
def test_the_future_cannot_change_the_past(attention, window):
    model = small(attention=attention, window=window)
    latents, noisy, t, text, visible = inputs()
    blocks = (1, 2, 1, 2)
    with torch.no_grad():
        before = model(noisy, t, text, visible, clean=latents, blocks=blocks)
        for start, stop in ((1, 3), (3, 4), (4, 6)):
            changed, other_noisy, other_t = latents.clone(), noisy.clone(), t.clone()
            changed[:, :, start:] += 1.0
            other_noisy[:, :, stop:] += 1.0
            other_t[:, stop:] = 0.1
            after = model(other_noisy, other_t, text, visible, clean=changed, blocks=blocks)
            torch.testing.assert_close(after[:, :, :stop], before[:, :, :stop], rtol=1e-5, atol=1e-5)
            if stop < FRAMES:
                assert (after[:, :, stop:] - before[:, :, stop:]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize(("sink", "window"), [(1, None), (1, 2), (0, 3), (2, 1)])
@pytest.mark.parametrize("blocks", [(1, 1, 1, 1, 1, 1), (1, 2, 1, 2), (1, 5)])
def test_cached_rollout_equals_masked_full_forward(attention, sink, window, blocks):
    model = small(attention=attention, sink=sink, window=window)
    latents, noisy, t, text, visible = inputs()
    clean_t = 0.3 * t
    with torch.no_grad():
        full = model(noisy, t, text, visible, clean=latents, clean_t=clean_t, blocks=blocks)
        memory, history, start = model.encode_text(text, visible), None, 0
        for size in blocks:
            at = slice(start, start + size)
            block = model.denoise(noisy[:, :, at], t[:, at], memory, history)
            torch.testing.assert_close(block, full[:, :, at], rtol=1e-5, atol=1e-5)
            history = model.encode_history(latents[:, :, at], clean_t[:, at], history)
            start += size
        if window is not None:
            assert history.frames == min(FRAMES, sink + window)


@pytest.mark.parametrize("seed", range(8))
def test_cached_rollout_equals_masked_full_forward_long_past_eviction(seed):
    """Blocks, sink and window at random, until every frame of the window was replaced several times."""
    draw = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    limits = dict(sink=number(0, 3), window=number(1, 4))
    model = small(attention=("joint", "factorised")[seed % 2], depth=2, **limits)
    blocks = (1, *(number(1, 4) for _ in range(10)))
    latents, noisy, t, text, visible = inputs(frames=sum(blocks))
    with torch.no_grad():
        full = model(noisy, t, text, visible, clean=latents, blocks=blocks)
        memory, history, start = model.encode_text(text, visible), None, 0
        for size in blocks:
            at = slice(start, start + size)
            block = model.denoise(noisy[:, :, at], t[:, at], memory, history)
            torch.testing.assert_close(block, full[:, :, at], rtol=1e-5, atol=1e-5)
            history = model.encode_history(latents[:, :, at], history=history)
            start += size
    assert history.frames == sum(limits.values()) and start > 2 * history.frames


@pytest.mark.parametrize("window", [None, 2])
def test_history_in_pieces_equals_history_at_once(window):
    model = small(window=window)
    latents = inputs()[0]
    with torch.no_grad():
        whole = model.encode_history(latents, blocks=(1, 2, 1, 2))
        parts = model.encode_history(latents[:, :, :3], blocks=(1, 2))
        parts = model.encode_history(latents[:, :, 3:], history=parts, blocks=(1, 2))
    assert whole.frames == parts.frames
    for a, b in zip(whole.layers, parts.layers):
        torch.testing.assert_close(a.k, b.k, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a.v, b.v, rtol=1e-5, atol=1e-5)


def test_hidden_history_is_not_seen():
    model = small()
    latents, noisy, t, text, visible = inputs()
    seen = torch.tensor([True, False])
    with torch.no_grad():
        mixed = model(noisy, t, text, visible, clean=latents, blocks=(1, 5), history_visible=seen)
        other = model(noisy, t, text, visible, clean=latents + 1, blocks=(1, 5), history_visible=seen)
        full = model(noisy, t, text, visible, clean=latents, blocks=(1, 5))
        memory = model.encode_text(text, visible)
        cached = model.denoise(noisy[:, :, 1:], t[:, 1:], memory, model.encode_history(latents[:, :, :1]), seen)
    torch.testing.assert_close(mixed[0], full[0])
    torch.testing.assert_close(mixed[1], other[1])
    torch.testing.assert_close(mixed[:, :, 1:], cached, rtol=1e-5, atol=1e-5)
    assert (full[1] - mixed[1]).abs().max() > 1e-3


def test_padding_of_the_text_changes_nothing():
    model = small()
    _, noisy, t, text, visible = inputs()
    with torch.no_grad():
        padded = model(noisy, t, text, visible)[1:]
        alone = model(noisy[1:], t[1:], text[1:, :2], visible[1:, :2])
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", [(6,), (1, 2, 3)])
@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_text_without_padding_equals_text_with_more_of_it(attention, blocks):
    model = small(attention=attention, depth=6)
    latents, noisy, t, text, _ = inputs()
    more, visible = torch.cat([text, text], 1), torch.arange(8).expand(2, -1) < 4
    with torch.no_grad():
        got = model(noisy, t, text, visible[:, :4], clean=latents, blocks=blocks)
        want = model(noisy, t, more, visible, clean=latents, blocks=blocks)
        assert not model.encode_text(text, visible[:, :4]).padded
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_time_per_frame_equals_one_time_for_all_frames():
    model = small()
    _, noisy, _, text, visible = inputs()
    t = torch.tensor([0.2, 0.7])
    torch.testing.assert_close(model(noisy, t, text, visible), model(noisy, t[:, None].expand(-1, 6), text, visible))


def test_training_and_inference_attention_agree():
    model = small()
    latents, noisy, t, text, visible = inputs()
    with_gradient = model(noisy, t, text, visible, clean=latents, blocks=(1, 2, 3))
    with torch.no_grad():
        without = model(noisy, t, text, visible, clean=latents, blocks=(1, 2, 3))
    torch.testing.assert_close(with_gradient, without, rtol=1e-5, atol=1e-5)


def test_every_parameter_learns():
    model = small(attention="factorised", depth=6)
    latents, noisy, t, text, visible = inputs()
    model(noisy, t, text, visible, clean=latents, blocks=(1, 5)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_patches_round_trip():
    latents = inputs()[0]
    torch.testing.assert_close(unpatchify(patchify(latents, 2), 2, HEIGHT), latents)


@pytest.mark.parametrize(
    ("total", "sink", "window", "want"),
    [(0, 1, 2, []), (3, 1, None, [0, 1, 2]), (3, 1, 2, [0, 1, 2]), (5, 1, 2, [0, 3, 4]), (5, 0, 1, [4])],
)
def test_kept_frames(total, sink, window, want):
    assert [i for piece in kept_frames(total, sink, window) for i in range(piece.start, piece.stop)] == want


@pytest.mark.parametrize(
    ("preset", "millions"), [("tiny", (4, 7)), ("small", (27, 35)), ("base", (115, 150)), ("large", (550, 650))]
)
def test_presets(preset, millions):
    with torch.device("meta"):
        model = VideoTransformer(TransformerConfig.preset(preset))
    assert millions[0] < sum(p.numel() for p in model.parameters()) / 1e6 < millions[1]


def test_mistakes_are_named():
    model = small()
    _, noisy, t, text, visible = inputs()
    with pytest.raises(ShapeError, match="3 channels"):
        model(noisy[:, :2], t, text, visible)
    with pytest.raises(ShapeError, match="patch_size 2"):
        model(noisy[..., :3], t, text, visible)
    with pytest.raises(ShapeError, match="add up to 3"):
        model(noisy, t, text, visible, clean=noisy, blocks=(1, 2))
    with pytest.raises(ShapeError, match="5"):
        model(noisy, t, text[..., :2], visible)
    with pytest.raises(ConfigError, match="tiny, small"):
        TransformerConfig.preset("huge")
    assert "tiny" in PRESETS


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("blocks", [(6,), (1, 2, 3), (1, 1, 1, 1, 1, 1)])
def test_a_route_of_all_places_changes_nothing(attention, blocks):
    model = small(attention=attention, depth=6)
    latents, noisy, t, text, visible = inputs()
    every = Route(torch.arange(HEIGHT * WIDTH).expand(2, -1), 1, 5)
    with torch.no_grad():
        want = model(noisy, t, text, visible, clean=latents, blocks=blocks)
        got = model(noisy, t, text, visible, clean=latents, blocks=blocks, route=every)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_skipped_places_are_not_seen_by_routed_layers():
    """With only the last layer joint over all places and its attention silenced, places that skip cannot reach others."""
    model = small(depth=4)
    for layer in (0, 3):
        model.blocks[layer].attention.out.weight.data.zero_()
    latents, noisy, t, text, visible = inputs()
    route = Route(torch.tensor([[0, 2, 5], [1, 3, 4]]), 1, 3)
    changed = noisy.clone()
    changed[0, :, :, :2, 2:4] += 1.0  # place 1 of sample 0, which skips
    with torch.no_grad():
        before = model(noisy, t, text, visible, clean=latents, blocks=(1, 5), route=route)
        after = model(changed, t, text, visible, clean=latents, blocks=(1, 5), route=route)
    difference = patchify((after - before).abs(), 2).amax(dim=(1, 3))
    assert difference[0, 1] > 1e-3
    assert difference[0, [0, 2, 3, 4, 5]].max() < 1e-6 and difference[1].max() < 1e-6


def test_places_are_drawn_per_sample():
    places = draw_places(64, 16, 0.75, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert places.shape == (64, 4) and (places.diff(dim=1) > 0).all()
    assert len(places.unique()) == 16 and len(places.unique(dim=0)) > 32


class Tally(TorchDispatchMode):
    """Counts fused attention, and the bytes that are still held of all that was made."""

    def __init__(self):
        super().__init__()
        self.attention, self.made = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.attention += "flash_attention_for_cpu.default" in str(function)
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, torch.Tensor):
                self.made.append((StorageWeakRef(x.untyped_storage()), x.untyped_storage().nbytes()))
        return result

    def held(self):
        return sum({ref.cdata: size for ref, size in self.made if not ref.expired()}.values())


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


def test_checkpointing_gives_the_same_gradients_where_autocast_remembers_weights(monkeypatch):
    monkeypatch.setattr(attention_module, "DENSE_TOKENS", 0)
    latents, noisy, t, text, visible = inputs()
    gradients = {}
    for kind in ("off", "selective", "full"):
        model = small(depth=3)
        model.checkpointing = kind
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(noisy, t, text, visible, clean=latents, blocks=(1, 5)).float().square().mean()
        loss.backward()
        gradients[kind] = {name: p.grad for name, p in model.named_parameters()}
    for kind in ("selective", "full"):  # a weight that is cast for each use has a gradient that is rounded for each
        for name, gradient in gradients["off"].items():
            torch.testing.assert_close(
                gradients[kind][name], gradient, rtol=0.02, atol=0.02 * float(gradient.abs().max())
            )


# -------------------- a frame that lies ahead


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize(("sink", "window"), [(1, None), (1, 2), (0, 1)])
@pytest.mark.parametrize("blocks", [(1, 2, 3), (1, 1, 1, 1, 1, 1), (6,)])
def test_blocks_that_lead_somewhere_equal_the_clip_that_does(attention, sink, window, blocks):
    """Each block by itself, from a cache, towards a frame as far ahead as it is, equals the masked pass over all of them."""
    model = small(attention=attention, sink=sink, window=window)
    latents, noisy, t, text, visible = inputs()
    ending = torch.randn(2, 3, 1, 2 * HEIGHT, 2 * WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = model(noisy, t, text, visible, latents, torch.zeros_like(t), blocks, ending=ending)
        memory, ahead, history, made, start = (
            model.encode_text(text, visible),
            model.encode_history(ending),
            None,
            [],
            0,
        )
        for size in blocks:
            part = slice(start, start + size)
            led = memory.towards(ahead, FRAMES - start - size)
            made.append(model.denoise(noisy[:, :, part], t[:, part], led, history))
            history = model.encode_history(latents[:, :, part], None, history)
            start += size
    torch.testing.assert_close(torch.cat(made, dim=2), whole, rtol=1e-4, atol=1e-5)


def test_where_a_frame_lies_is_seen_and_a_hidden_one_is_not():
    model, (latents, noisy, t, text, visible) = small(), inputs()
    ending = torch.randn(2, 3, 1, 2 * HEIGHT, 2 * WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        memory, ahead = model.encode_text(text, visible), model.encode_history(ending)
        plain = model.denoise(noisy, t, memory)
        near, far = (model.denoise(noisy, t, memory.towards(ahead, gap)) for gap in (0, 5))
        assert (near - far).abs().max() > 1e-3 and (near - plain).abs().max() > 1e-3
        one = model.denoise(noisy, t, memory.towards(ahead, 0, torch.tensor([True, False])))
        torch.testing.assert_close(one[0], near[0])
        torch.testing.assert_close(one[1], plain[1])
        blocks, extra = (1, 2, 3), {"clean": latents, "blocks": (1, 2, 3)}
        hidden = model(noisy, t, text, visible, ending=ending, ending_visible=torch.tensor([False, False]), **extra)
        torch.testing.assert_close(hidden, model(noisy, t, text, visible, **extra))
    with pytest.raises(ShapeError, match=r"modes\.endings shows frames whole"):
        model(
            noisy, t, text, visible, blocks=blocks, clean=latents, ending=ending, route=Route(torch.zeros(2, 1), 1, 2)
        )


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "blocks"), [((6, 6), (1, 2, 3)), ((8, 8), (1, 2, 3)), ((3, 4), (1,) * 9)])
def test_compiled_gradients_in_half_precision_are_those_of_eager_ones(grid, blocks):
    """But for the first, code with vectors of 512 bits would give NaN, or whatever lies in memory (`compiling.VECTORS`)."""
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=128, depth=2, head_dim=64, text_width=16)
    model = VideoTransformer(TransformerConfig(**sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    clean, noisy = (torch.randn(2, 4, sum(blocks), *grid) for _ in range(2))
    t, text = torch.rand(2, sum(blocks)), (torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    found = []
    for compiled in (False, True):
        each = copy.deepcopy(model)
        if compiled:
            assert compile_blocks({"model": each}, LoopConfig(compile="on"), torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16):
            made = each(noisy, t, *text, clean=clean, blocks=blocks)
        made.float().square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in each.parameters() if p.grad is not None]))
    assert (found[0] - found[1]).norm() < 0.02 * found[0].norm()
