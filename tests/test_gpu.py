"""On a CUDA device: its kernels give what the plain ones give, forward and backward. Run by `make test-gpu`."""

import copy

import pytest
import torch

from video_gen.model import transformer as transformer_module
from video_gen.model.attention import SpatiotemporalAttention, attend
from video_gen.model.layers import RotaryEmbedding
from video_gen.model.offload import Offload
from video_gen.model.runs import Block, Runs
from video_gen.model.spans import plan_video
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan import transformer as wan_module
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.weights import keep_in

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICE = torch.device("cuda")
HEAD, SIDE, FRAMES, BLOCKS = 64, 24, 6, (1, 2, 3)
PLACES = SIDE**2


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)


@pytest.fixture
def masks(monkeypatch):
    """Choose how a transformer's attention is told what is hidden."""

    def choose(kind: str) -> None:
        for module in (transformer_module, wan_module):
            monkeypatch.setattr(module, "masks_for", lambda *given: kind)

    return choose


def norm_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


@pytest.mark.parametrize(("masks", "padded"), [("runs", True), ("runs", False), ("flex", True)])
def test_masked_attention_equals_biases_forward_and_backward(masks, padded):
    attention = SpatiotemporalAttention(2 * HEAD, HEAD, "joint").to(DEVICE)
    x, past, words = (torch.randn(2, f, s, 2 * HEAD, device=DEVICE) for f, s in ((6, PLACES), (5, PLACES), (1, 9)))
    visible = torch.arange(9, device=DEVICE) < torch.tensor([[9], [4 if padded else 9]], device=DEVICE)
    seen = torch.tensor([True, False], device=DEVICE) if padded else None
    tables = RotaryEmbedding(HEAD, 1000.0)(16, SIDE, SIDE, DEVICE)
    limits = dict(sink=1, window=None, text_visible=visible, text_padded=padded, history_visible=seen)
    half, made = masks == "runs", []
    for kind in ("bias", masks):
        inputs = [value.clone().requires_grad_() for value in (x, past, words)]
        with torch.autocast("cuda", torch.bfloat16, enabled=half and kind == masks):
            text, history = attention.project(inputs[2])[1], attention.project(inputs[1])[1]
            rotary = tuple(table.bfloat16() for table in tables) if half and kind == masks else tables
            plan = plan_video(BLOCKS, 0, 5, rotary, **limits, masks=kind, dense_tokens=0)
            out = attention(inputs[0], plan, text, history)[0].float()
        made.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for want, got in zip(*made):
        assert norm_error(got, want) < (0.02 if half else 2e-3)


def transformer(family: str = "own") -> VideoTransformer | WanTransformer:
    sizes = dict(latent_channels=4, patch_size=2, depth=2, text_width=16)
    if family == "own":
        model = VideoTransformer(TransformerConfig(**sizes, width=128, head_dim=HEAD))
    else:
        model = WanTransformer.from_preset("tiny", **sizes, in_channels=4, dim=128, ffn_dim=256)
    with torch.no_grad():
        for p in model.parameters():  # zero-initialised layers would hide mistakes
            p.add_(0.05 * torch.randn_like(p))
    return model.to(DEVICE)


def clip(batch: int = 2) -> dict[str, torch.Tensor]:
    shape = (batch, 4, FRAMES, 2 * SIDE, 2 * SIDE)
    visible = torch.arange(16, device=DEVICE) < torch.tensor([[16], [5]], device=DEVICE)[:batch]
    return {
        "noisy": torch.randn(shape, device=DEVICE),
        "t": torch.rand(batch, FRAMES, device=DEVICE),
        "text": torch.randn(batch, 16, 16, device=DEVICE),
        "text_visible": visible,
        "clean": torch.randn(shape, device=DEVICE),
    }


FAMILIES = pytest.mark.parametrize("family", ["own", "wan"])


@FAMILIES
@pytest.mark.parametrize("kind", ["bias", "runs"])
def test_a_cached_rollout_equals_the_training_pass(masks, kind, family):
    model, given = transformer(family), clip()
    masks("bias")
    whole = model(**given, blocks=BLOCKS).detach()
    masks(kind)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=kind == "runs"):
        text, history, start, parts = model.encode_text(given["text"], given["text_visible"]), None, 0, []
        for size in BLOCKS:
            own = slice(start, start + size)
            parts.append(model.denoise(given["noisy"][:, :, own], given["t"][:, own], text, history))
            history = model.encode_history(given["clean"][:, :, own], history=history, text=text)
            start += size
    assert norm_error(torch.cat(parts, dim=2), whole) < (0.02 if kind == "runs" else 2e-3)


@pytest.mark.parametrize("kernel", ["cudnn", "flash"])
@pytest.mark.parametrize(("n", "m", "words"), [(4, 4, 0), (4, 20, 16), (1000, 1600, 9), (1000, 1600, 0)])
def test_kernels_equal_plain_products_for_one_layout_after_another(kernel, n, m, words):
    """Forward and backward; again with a gradient that lies otherwise in memory, from a clip of another length."""
    bias = torch.zeros(2, 1, 1, words, device=DEVICE)
    bias[1, ..., words // 2 :] = float("-inf")
    block = Block(slice(0, n), (slice((m + words) // 2, m),), slice(words, (m + words) // 2))
    visible = torch.tensor([True, False], device=DEVICE)[:, None, None, None]
    runs = Runs((block,), kernel, words, bias if words else None, visible)
    hidden = torch.zeros(2, 1, 1, m, device=DEVICE)
    hidden[..., :words] = bias
    hidden[1, ..., words : (m + words) // 2] = float("-inf")
    for extra in (0, 64):
        q, k, v = (torch.randn(2, 3, length, HEAD, device=DEVICE, requires_grad=True) for length in (n, m, m))
        gradient = torch.randn(2, 3, n + extra, HEAD, device=DEVICE)[:, :, :n]
        want = attend(q, k, v, hidden)
        wanted = (want, *torch.autograd.grad(want, (q, k, v), gradient))
        half = [x.detach().bfloat16().requires_grad_() for x in (q, k, v)]
        got = runs.attend(*half)
        for a, b in zip((got, *torch.autograd.grad(got, half, gradient.bfloat16())), wanted):
            assert norm_error(a, b) < 0.02


@FAMILIES
@pytest.mark.parametrize("checkpointing", ["off", "selective"])
def test_compiled_training_in_bfloat16_equals_plain_float32(checkpointing, masks, family):
    plain = transformer(family)
    fast = copy.deepcopy(plain)
    fast.checkpointing = checkpointing
    for block in fast.blocks:
        block.compile(dynamic=False)
    given, gradients = clip(), []
    for model, half in ((plain, False), (fast, True)):
        masks("runs" if half else "bias")
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            out = model(**given, blocks=BLOCKS, history_visible=torch.tensor([True, False], device=DEVICE))
        out.float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert norm_error(gradients[1], gradients[0]) < 0.03


@FAMILIES
def test_a_training_step_waits_for_nothing(family):
    model, given = transformer(family), clip()
    seen = torch.tensor([True, False], device=DEVICE)
    for wait in ("default", "error"):  # the first one makes kernels
        try:
            torch.cuda.set_sync_debug_mode(wait)
            with torch.autocast("cuda", torch.bfloat16):
                out = model(**given, blocks=BLOCKS, history_visible=seen)
            out.float().square().mean().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_vae_chunks_equal_the_whole():
    vae = VideoVAE(VAEConfig(widths=(16, 32), blocks=1)).to(DEVICE).eval()
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.02 * torch.randn_like(p))
        video = torch.rand(1, 3, 17, 32, 32, device=DEVICE) * 2 - 1
        whole, cache, parts = vae.encode(video).mean, None, []
        for part in (video[:, :, :1], *video[:, :, 1:].split(8, dim=2)):
            posterior, cache = vae.encode_chunk(part, cache)
            parts.append(posterior.mean)
        assert norm_error(torch.cat(parts, dim=2), whole) < 1e-5
        decoded, cache, parts = vae.decode(whole), None, []
        for part in whole.split(2, dim=2):
            made, cache = vae.decode_chunk(part, cache)
            parts.append(made)
        assert norm_error(torch.cat(parts, dim=2), decoded) < 1e-5


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_blocks_that_stay_on_the_cpu_give_the_same_numbers(kind):
    model = VideoTransformer(TransformerConfig(width=512, depth=8, head_dim=64, latent_channels=8, text_width=16))
    torch.nn.init.normal_(model.unembed.weight, std=0.05)  # zeros at first: there would be nothing to compare
    keep_in(model.eval().requires_grad_(False), kind)
    model.stream.requires_grad_(True)
    text, seen = torch.randn(1, 4, 16, device=DEVICE), torch.ones(1, 4, dtype=torch.bool, device=DEVICE)
    noisy, t = torch.randn(1, 8, 4, 32, 32, device=DEVICE), torch.tensor([0.4], device=DEVICE)

    def gradient():
        with torch.autocast("cuda", torch.bfloat16):
            out = model(noisy, t, text, seen)
        return out.detach(), torch.autograd.grad(out.float().square().mean(), model.stream)[0]

    model.to(DEVICE)
    expected = gradient()
    model.to("cpu")
    with Offload(model, DEVICE) as offload:
        for _ in range(3):
            with offload.saving():
                found = gradient()
            assert norm_error(found[0], expected[0]) == 0 and norm_error(found[1], expected[1]) < 1e-5
