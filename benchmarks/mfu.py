"""Table 5: how much of a GPU's measured matrix peak the `large` preset uses, in training and in sampling, by tokens."""

import gc
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Job, Setting, interleaved
from benchmarks.models import CHANNELS, PATCH, Size, compile_blocks, filled, parameters
from benchmarks.step import training_step
from benchmarks.tables import Table
from video_gen.model.flops import BACKWARD, denoise_flops, transformer_flops
from video_gen.model.transformer import TextMemory, VideoTransformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.training.latent_task import block_sizes

Grid = tuple[int, int, int]
Made = tuple[float, Job]
"""Operations of a step, and the step."""
GRIDS = {8192: (8, 32, 32), 32768: (32, 32, 32), 75600: (21, 45, 80), 1024: (4, 16, 16)}
"""Tokens as (frames, height, width) of patches; 75,600 are 81 frames of 720p at strides of 4 and 8."""
QUICK_GRIDS = {64: (4, 4, 4)}
COMPARED = 8192
"""Eager rows, and those of training with history, at so many tokens alone: each costs its compilation."""
TEXT_TOKENS, WORDS = 128, 100
BLOCK = 4
"""Latent frames of a block in training with history."""
SETTLED = 32768
"""Steps follow each other without waiting, as in a run, until so many tokens are through."""
COLUMNS = ("work", "tokens", "form", "ms", "TFLOP", "TFLOP/s", "MFU %", "peak GiB")
EQUAL = (
    "The preset `{preset}` ({millions:,.0f} M parameters), one clip, {text} text tokens of which {words} are words and the rest "
    "padding. Training: noise, forward, loss, backward, clipping and fused AdamW, float32 weights under bfloat16 autocast, no "
    "checkpointing; `with history` trains blocks of {block} latent frames, each after the clean ones before it: two passes. "
    "Sampling: a step of a clip in one block, two prompts as a batch (as guidance has them), bfloat16 weights. "
    "MFU: operations of the model in closed form (video_gen/model/flops.py; without padding and what is done twice), over the "
    "measured rate of square bfloat16 products, not the data sheet's."
)


class Padded(nn.Module):
    """The model as a training run has it: a GPU does not know which text is padded."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.model = VideoTransformer(config)

    def forward(self, latents: Tensor, t: Tensor, text: Tensor, **extra: Any) -> Tensor:
        return self.model(latents, t, text, words(text), **extra)


def words(text: Tensor) -> Tensor:
    """(b, m): all but the last are words."""
    visible = torch.arange(text.shape[1], device=text.device) < WORDS * text.shape[1] // TEXT_TOKENS
    return visible.expand(len(text), -1)


def mfu_table(setting: Setting, peak: float) -> Table:
    preset, grids = ("tiny", QUICK_GRIDS) if setting.quick else ("large", GRIDS)
    measured = setting.device.type == "cuda" or setting.quick
    config = TransformerConfig.preset(preset, latent_channels=CHANNELS, patch_size=PATCH)
    config = config.replace(text_width=config.width)
    with torch.device("meta"):
        millions = parameters(VideoTransformer(config))
    held = {"preset": preset, "millions": millions, "text": TEXT_TOKENS, "words": WORDS, "block": BLOCK}
    table = Table("mfu", "Utilisation of a GPU", COLUMNS, EQUAL.format(**held))
    wanted = [("sampling", tokens, setting.forms[-1:]) for tokens in grids]
    wanted += [("training", tokens, setting.forms[-1:]) for tokens in grids]
    compared = COMPARED if COMPARED in grids else min(grids)
    wanted += [("training with history", compared, setting.forms)]
    wanted += [(name, compared, setting.forms[:-1]) for name in ("sampling", "training")]
    for name, tokens, forms in wanted:
        for form in forms:
            row = {"work": name, "tokens": tokens, "form": form}
            found = measure(WORK[name], config, grids[tokens], form, setting, peak) if measured else None
            table.rows.append(row | (found or {"ms": "not measured: no GPU"}))
            print(*(f"{v:.4g}" if isinstance(v, float) else v for v in table.rows[-1].values()), flush=True)
    return table


def measure(make, config: TransformerConfig, grid: Grid, form: str, setting: Setting, peak: float) -> dict:
    """One row; each model is freed before the next is made, since a GPU holds one."""
    torch.compiler.reset()
    torch.manual_seed(0)
    if setting.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    flops, step = make(config, grid, form, setting)
    tokens = grid[0] * grid[1] * grid[2]
    steps = 1 if setting.quick else max(1, SETTLED // tokens)

    def job() -> None:
        for _ in range(steps):
            step()

    timing = interleaved({("model", form): job}, setting, flops=False)["model", form]
    if not timing.milliseconds:
        return {"ms": f"not measured: {timing.reason}"}
    milliseconds = timing.milliseconds / steps
    rate = flops / milliseconds * 1e3
    row = {"ms": milliseconds, "TFLOP": flops / 1e12, "TFLOP/s": rate / 1e12, "MFU %": 100 * rate / peak}
    if setting.device.type == "cuda":
        row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def training(config: TransformerConfig, grid: Grid, form: str, setting: Setting, history: bool = False) -> Made:
    module = filled(Padded(config).to(setting.device))
    if form == "compiled":
        compile_blocks(module)
    size = Size(grid, width=config.width, depth=config.depth, text_tokens=TEXT_TOKENS)
    blocks = block_sizes(grid[0], BLOCK) if history else None
    forward = transformer_flops(config, 1, latent_size(grid), WORDS, blocks, history)
    return (1 + BACKWARD) * forward, training_step(module, size, setting, blocks)


def with_history(config: TransformerConfig, grid: Grid, form: str, setting: Setting) -> Made:
    return training(config, grid, form, setting, history=True)


def sampling(config: TransformerConfig, grid: Grid, form: str, setting: Setting) -> Made:
    model = VideoTransformer(config).to(setting.device, torch.bfloat16).requires_grad_(False)
    filled(model)
    if form == "compiled":
        compile_blocks(model)
    size = Size(grid, batch=2, width=config.width, depth=config.depth, text_tokens=TEXT_TOKENS)
    latents, t, text = size.inputs(setting)
    with torch.no_grad(), torch.autocast(setting.device.type, torch.bfloat16):
        memory: TextMemory = model.encode_text(text.bfloat16(), words(text))

    def step() -> None:
        with torch.no_grad(), torch.autocast(setting.device.type, torch.bfloat16):
            model.denoise(latents, t, memory)

    return denoise_flops(config, 2, latent_size(grid), WORDS), step


WORK = {"sampling": sampling, "training": training, "training with history": with_history}


def latent_size(grid: Grid) -> Grid:
    return (grid[0], PATCH * grid[1], PATCH * grid[2])
