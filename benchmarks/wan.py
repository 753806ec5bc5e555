"""Table: the Wan transformer at the width of the 1.3B release, ours and diffusers' class with the same weights."""

from collections.abc import Callable

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from benchmarks.measure import Job, Setting, Timing, interleaved, reason
from benchmarks.tables import Table
from video_gen.model.lora import attach
from video_gen.model.lora_config import LoraConfig
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.weights import keep_in

GRIDS = {64: (4, 4, 4), 512: (8, 8, 8), 1024: (4, 16, 16), 4096: (16, 16, 16), 32760: (21, 30, 52)}
"""Tokens as (frames, height, width) of patches; 32,760 are 81 frames of 480x832."""
TOKENS, QUICK_TOKENS, GPU_TOKENS = (512, 1024, 4096), (64,), (32760,)
DEPTH, WORDS, RANK = 4, 40, 16
TRAINED = 4096
"""A LoRA step of more tokens needs checkpointing at full depth, which the two classes have in ways of their own."""
OURS, THEIRS = "Video Gen", "diffusers"
COLUMNS = ("tokens", "pass", "model", "form", "ms", "GFLOP", "ours is faster by")
EQUAL = (
    "{depth} layers of the 1.3B release's width (1536, 12 heads) with the same random weights; one sample, a text of {words} "
    "words. *forward* is one step of sampling, without guidance: ours has encoded the text once for all steps, under bfloat16 "
    "autocast; diffusers encodes it in each, in plain bfloat16 with the parts in float32 that it keeps so, as each one's pipeline "
    "does. *LoRA step* is a forward and backward pass, text included, under bfloat16 autocast, with adapters of rank {rank} from "
    "`model/lora.py` at all linear layers of the blocks in both, whose own weights are frozen in bfloat16."
)


def wan_table(setting: Setting, peak: float) -> Table:
    equal = EQUAL.format(depth=shape(setting).depth, words=WORDS, rank=RANK)
    table = Table("wan", "The Wan transformer beside diffusers' class", COLUMNS, equal)
    for tokens in QUICK_TOKENS if setting.quick else GPU_TOKENS if on_gpu(setting) else TOKENS:
        passes = {"forward": forward_jobs} | ({"LoRA step": training_jobs} if tokens <= TRAINED else {})
        for name, make in passes.items():
            torch.compiler.reset()  # a fresh limit of recompilations for each size
            rows = measure(make, GRIDS[tokens], setting)
            table.rows += [{"tokens": tokens, "pass": name, **row} for row in rows]
            for row in rows:
                if ratio := row.get("ours is faster by"):
                    table.findings.append(f"{name}, {tokens} tokens, both {row['form']}: {ratio:.2f} times as fast")
    return table


def measure(make: Callable[..., dict[str, Job]], grid: tuple[int, int, int], setting: Setting) -> list[dict]:
    jobs, timings = {}, {}
    for form in setting.forms:
        try:
            jobs |= {(model, form): job for model, job in make(grid, form, setting).items()}
        except Exception as error:  # a peer may raise anything; its row says what
            timings |= {(model, form): Timing(reason=reason(error)) for model in (OURS, THEIRS)}
    timings |= interleaved(jobs, setting)
    rows = []
    for model in (OURS, THEIRS):
        for form in setting.forms:
            timing, ours = timings[model, form], timings[OURS, form].milliseconds
            row = {"model": model, "form": form, "ms": timing.milliseconds or f"not measured: {timing.reason}"}
            row["GFLOP"] = timing.flops / 1e9 if timing.flops else None
            if model == THEIRS and timing.milliseconds and ours:
                row["ours is faster by"] = timing.milliseconds / ours
            rows.append(row)
    return rows


def forward_jobs(grid: tuple[int, int, int], form: str, setting: Setting) -> dict[str, Job]:
    ours, theirs = models(setting)
    keep_in(ours, "bf16")
    for name, p in theirs.named_parameters():
        if not any(part in name.split(".") for part in WanTransformer3DModel._keep_in_fp32_modules):
            p.data = p.data.bfloat16()
    latents, t, text, visible = inputs(ours.config, grid, setting)
    compile_blocks(form, ours, theirs)
    with torch.no_grad(), autocast(setting):
        memory = ours.encode_text(text, visible)

    def our_step() -> None:
        with torch.no_grad(), autocast(setting):
            ours.denoise(latents, t, memory)

    def their_step() -> None:
        with torch.no_grad():
            theirs(latents.bfloat16(), 1000 * t, text.bfloat16())

    return {OURS: our_step, THEIRS: their_step}


def training_jobs(grid: tuple[int, int, int], form: str, setting: Setting) -> dict[str, Job]:
    ours, theirs = models(setting)
    for model in (ours, theirs):
        attach(model, LoraConfig(rank=RANK), seed=0)
    latents, t, text, visible = inputs(ours.config, grid, setting)
    compile_blocks(form, ours, theirs)

    def our_step() -> None:
        with autocast(setting):
            output = ours(latents, t, text, visible)
        output.float().square().mean().backward()

    def their_step() -> None:
        with autocast(setting):
            output = theirs(latents, 1000 * t, text, return_dict=False)[0]
        output.float().square().mean().backward()

    return {OURS: our_step, THEIRS: their_step}


def autocast(setting: Setting) -> torch.autocast:
    return torch.autocast(setting.device.type, torch.bfloat16)


def models(setting: Setting) -> tuple[WanTransformer, nn.Module]:
    """The same weights in both classes."""
    config = shape(setting)
    torch.manual_seed(0)
    with setting.device:
        ours = WanTransformer(config)
        for p in ours.parameters():
            nn.init.normal_(p, std=0.02)
        theirs = WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.depth,
            text_dim=config.text_width,
        )
    theirs.load_state_dict({to_diffusers(name): x for name, x in ours.state_dict().items()})
    return ours, theirs


def on_gpu(setting: Setting) -> bool:
    return setting.device.type == "cuda"


def shape(setting: Setting) -> WanTransformerConfig:
    """The 1.3B release, with fewer layers where a CPU computes it."""
    sizes: dict = {} if on_gpu(setting) else dict(depth=DEPTH)
    if setting.quick:
        sizes = dict(dim=128, num_heads=1, ffn_dim=256, depth=2)
    return WanTransformerConfig.preset("2.1-t2v-1.3b", **sizes)


def compile_blocks(form: str, *models: nn.Module) -> None:
    for model in models:
        for block in model.blocks if form == "compiled" else ():
            block.compile(dynamic=False)


def inputs(config: WanTransformerConfig, grid: tuple[int, int, int], setting: Setting) -> tuple[Tensor, ...]:
    """Latents, time, and a text with zeros for padding."""
    (f, h, w), p, generator, device = grid, config.patch_size, setting.generator(), setting.device
    latents = torch.randn(1, config.latent_channels, f, p * h, p * w, generator=generator, device=device)
    text = torch.randn(1, config.text_len, config.text_width, generator=generator, device=device)
    visible = torch.arange(config.text_len, device=device)[None] < WORDS
    return latents, torch.tensor([0.5], device=device), text * visible[..., None], visible
