"""Table 5: how much of a GPU's measured matrix peak the training of the `large` preset uses, by tokens."""

import torch

from benchmarks.measure import Setting, interleaved
from benchmarks.models import CHANNELS, PATCH, Ours, Size, compile_blocks, parameters
from benchmarks.step import training_step
from benchmarks.tables import Table
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig

GRIDS = {1024: (4, 16, 16), 8192: (8, 32, 32), 32768: (32, 32, 32), 75600: (21, 45, 80)}
"""Tokens as (frames, height, width) of patches; the last one is 81 frames of 720p at strides of 4 and 8."""
TEXT_TOKENS = 128
EQUAL = (
    "Training steps of the preset `{preset}` ({millions:,.0f} M parameters), one clip, {form}, bfloat16 autocast, "
    "float32 weights, fused AdamW. "
    "MFU: products and attention counted, over the measured rate of square bfloat16 products, not the data sheet's."
)


def mfu_table(setting: Setting, peak: float) -> Table:
    preset = "tiny" if setting.quick else "large"
    columns = ("tokens", "form", "ms", "TFLOP", "TFLOP/s", "MFU %", "peak GiB")
    measured = setting.device.type == "cuda" or setting.quick
    with torch.device("meta"):
        config = TransformerConfig.preset(preset, latent_channels=CHANNELS, patch_size=PATCH)
        config = config.replace(text_width=config.width)
        millions = parameters(VideoTransformer(config))
    table = Table(
        "mfu", "Training on a GPU", columns, EQUAL.format(preset=preset, millions=millions, form="eager and compiled")
    )
    for tokens, grid in ({64: (4, 4, 4)} if setting.quick else GRIDS).items():
        for form in setting.forms:
            row = {"tokens": tokens, "form": form}
            table.rows.append(
                row | (measure(config, grid, form, setting, peak) if measured else {"ms": "not measured: no GPU"})
            )
    return table


def measure(config: TransformerConfig, grid: tuple[int, int, int], form: str, setting: Setting, peak: float) -> dict:
    """One row; each model is freed before the next is made, since a GPU holds one."""
    torch.compiler.reset()
    torch.manual_seed(0)
    module = Ours(config).to(setting.device)
    size = Size(grid, width=config.width, depth=config.depth, text_tokens=TEXT_TOKENS)
    flops = None
    if form == "compiled":
        once, key = Setting(setting.device, quick=True), ("model", "eager")
        flops = interleaved({key: training_step(module, size, setting)}, once)[key].flops
        compile_blocks(module)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timing = interleaved({("model", form): training_step(module, size, setting)}, setting)["model", form]
    if not timing.milliseconds:
        return {"ms": f"not measured: {timing.reason}"}
    flops = timing.flops if form == "eager" else flops
    row: dict = {"ms": timing.milliseconds}
    if flops:
        rate = flops / timing.milliseconds * 1e3
        row |= {"TFLOP": flops / 1e12, "TFLOP/s": rate / 1e12, "MFU %": 100 * rate / peak}
    if setting.device.type == "cuda":
        row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return row
