"""How much memory and how many operations sampling takes, without a model: its steps run on tensors without content.

Weights are no part of it: they are known from their shapes, and lie where a `Fit` wants them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from video_gen.model.allocations import AllocationTracker, materialise
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import TextMemory
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.guidance import needed_branches
from video_gen.sampling.model import VideoModel, plan_blocks

CLIP_TOKENS = 257
"""Of a picture."""
SOLVER_LATENTS = 3
"""Latents that a solver holds beside the noisy ones: the estimate, the one before it, and the next noisy ones."""


@dataclass(frozen=True)
class Job:
    """What is to be sampled."""

    num_frames: int
    sampling: SamplingConfig
    block_frames: int | None
    """Latent frames of a block; None = the whole clip is one."""
    count: int = 1
    """Videos at once."""
    prompt: str = "a red circle and a blue square, fast"
    stream: bool = False
    """A block is decoded while the next one is made."""
    text_tokens: int = 128
    """Of a prompt, where a `transformers` encoder reads it."""


@dataclass
class Phase:
    """A part of the work."""

    bytes: int = 0
    """Held at its peak, beside the weights and what other phases hold."""
    flops: int = 0
    times: int = 0
    """How often it is done; of `blocks` the model's calls."""
    held: int = 0
    """Of these, what stays for later."""


def denoising(model: VideoModel, job: Job) -> dict[str, Phase]:
    """`text`, `blocks` and `history`, in which latents are made.

    Args: model: its parts on the device "meta", their weights kept as they are to be; they are on a fake one afterwards.
    """
    sampling, total = job.sampling, model.latent_frames(job.num_frames)
    window = model.window(job.block_frames or total)
    guided = sampling.guided or sampling.history_scale != 1
    prompts = [job.prompt, sampling.negative_prompt] if guided else [job.prompt]
    # of two experts each remembers the text, and one computes at a time
    experts = [getattr(model.transformer, part) for part in ("high", "low") if hasattr(model.transformer, part)]
    experts = experts or [model.transformer]
    with _pretending(model, "text", "blocks", "history") as (phase, found):
        with phase("text"):
            texts = [[_text(model, one, job, prompt) for prompt in prompts] for one in experts]
        text, empty = texts[0][0], texts[0][1] if guided else None
        told = {"whole_times": sampling.whole_times, "apart": model.fitted.branches == "apart"}
        made = TextConditioned(experts[0], model.diffusion, text, empty, window, **told)
        history, (c, h, w) = None, model.latent_frame()
        for first, size, times in alike(
            plan_blocks(0, total, job.block_frames, sampling.first_block_frames), model.transformer.config.sink + window
        ):
            noisy = torch.empty(job.count, c, size, h, w)
            with phase("blocks", times * sampling.steps_of(first)):
                held = [torch.empty_like(noisy) for _ in range(SOLVER_LATENTS)]
                denoise = made.denoiser(history, needed_branches(made.branches(history), sampling))
                denoise(noisy, torch.ones(job.count))
                del held, denoise
            if job.block_frames is not None:
                with phase("history", times):
                    history = made.append(history, noisy, torch.zeros(job.count))
    return found


def decoding(model: VideoModel, job: Job) -> Phase:
    """Latents to frames, in the tiles and chunks of `model.fitted`. Args: as `denoising`."""
    total, caches = model.latent_frames(job.num_frames), None
    if job.block_frames is None and not job.stream:
        return _decoding_of_a_clip(model, job, total)
    with _pretending(model, "decode") as (phase, found):
        blocks = plan_blocks(0, total, job.block_frames, job.sampling.first_block_frames)
        sizes = [part for size in blocks for part in chunks(size, model.vae_chunk)]
        for _, size, times in alike(sizes, 2):
            latents = torch.empty(job.count, model.latent_frame()[0], size, *model.latent_frame()[1:])
            with phase("decode", times):
                video, caches = model.vae.tiled_decode_chunk(latents, caches, model.vae_tile)
                _to_frames(video)
                del video, latents
    return found["decode"]


def _decoding_of_a_clip(model: VideoModel, job: Job, total: int) -> Phase:
    """Of all its latents at once, after which nothing comes: what two and three chunks take goes on as a straight line."""
    chunk, tile = model.vae_chunk, model.vae_tile
    lengths = {"short": min(total, 2 * chunk), "long": min(total, 3 * chunk)}
    with _pretending(model, *lengths) as (phase, found):
        for name, length in lengths.items():
            latents = torch.empty(job.count, model.latent_frame()[0], length, *model.latent_frame()[1:])
            with phase(name):
                for video in model.vae.decode_last(latents, None, chunk, tile):
                    _to_frames(video)
                    del video
            del latents
    short, long = found["short"], found["long"]
    beyond = (total - lengths["long"]) / chunk
    size, flops = (round(b + beyond * (b - a)) for a, b in ((short.bytes, long.bytes), (short.flops, long.flops)))
    return Phase(bytes=size, flops=flops, times=1)


def _to_frames(video: Tensor) -> None:
    for one in video:
        ((one.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@contextmanager
def _pretending(model: VideoModel, *names: str) -> Iterator[tuple[Any, dict[str, Phase]]]:
    """Within it tensors are fake, and what is done in `phase(name, times)` is counted, its operations so many times."""
    found = {name: Phase() for name in names}
    with FakeTensorMode(allow_non_fake_inputs=True):
        parts = (model.vae, model.transformer, model.text)
        for part in parts:
            materialise(part)
        weights = [x for part in parts for x in (*part.parameters(), *part.buffers())]
        with AllocationTracker(weights) as tracker, counter() as operations, model.inference():

            @contextmanager
            def phase(name: str, times: int = 1) -> Iterator[None]:
                tracker.peak, before = tracker.bytes, operations.get_total_flops()
                yield
                part = found[name]
                part.bytes, part.held = max(part.bytes, tracker.peak), tracker.bytes
                part.times += times
                part.flops += times * (operations.get_total_flops() - before)

            yield phase, found


def chunks(size: int, most: int) -> list[int]:
    return [min(most, size - start) for start in range(0, size, most)]


def alike(sizes: list[int], most: int) -> Iterator[tuple[bool, int, int]]:
    """Kinds of blocks: whether it is the first, its size, and how many there are. What comes before a block is as long as all
    blocks before it, and counts up to `most`."""
    past = [min(sum(sizes[:index]), most) for index in range(len(sizes))]
    for (before, size), times in Counter(zip(past, sizes)).items():
        yield before == 0, size, times


def _text(model: VideoModel, transformer: Any, job: Job, prompt: str) -> TextMemory:
    """With the picture that a model of image to video begins with."""
    config = transformer.config
    if isinstance(model.text, ByteTextEncoder):
        tokens, visible = model.text(model.text.tokenise([prompt] * job.count))
    else:
        count = min(job.text_tokens, getattr(config, "text_len", job.text_tokens))
        visible = torch.ones(job.count, count, dtype=torch.bool)
        tokens = torch.empty(job.count, count, config.text_width)
    memory = transformer.encode_text(tokens, visible)
    beside, width = getattr(config, "beside_channels", 0), getattr(config, "image_width", None)
    if not beside and width is None:
        return memory
    (_, h, w), frames = model.latent_frame(), job.block_frames or model.latent_frames(job.num_frames)
    seen = None if width is None else torch.empty(job.count, config.image_positions or CLIP_TOKENS, width)
    return transformer.with_picture(memory, seen, torch.empty(job.count, beside, frames, h, w))


def counter() -> FlopCounterMode:
    """Counts products and convolutions; a multiplication with its addition is two."""

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={on_cpu: attention})


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum({x: x.nbytes for x in (*module.parameters(), *module.buffers())}.values())
