"""Table 2: a whole training step, and a whole sampling run."""

import torch
from torch import nn

from benchmarks.measure import Job, Setting, Timing, interleaved, reason
from benchmarks.models import CHANNELS, ENTRIES, OURS_6, PATCH, Entry, Size, build, compile_blocks, equal, parameters
from benchmarks.tables import Table
from benchmarks.transformer import COLUMNS, compare, findings
from benchmarks.vae import fast
from benchmarks.vae import ours as our_vae
from benchmarks.vae import wan as wan_vae
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import build_text_encoder
from video_gen.model.transformer_config import TextConfig
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.config import OptimConfig
from video_gen.training.optim import build_optimizer, clip_gradients

TOKENS, BATCH = 512, 4
STEP_EQUAL = (
    " A step is: noise, prediction, squared error of the velocity, backward, clipping of the gradients, fused AdamW; float32 "
    "weights under bfloat16 autocast; latents given, as with a cached VAE. The row with history trains every block of a clip on "
    "clean earlier ones, which takes two passes: twice the tokens, and no peer does it."
)
SAMPLE_STEPS, GUIDANCE = 8, 3.0


# -------------------- the training step


def training_table(setting: Setting, peak: float) -> Table:
    size = Size.of(64 if setting.quick else TOKENS, setting, batch=2 if setting.quick else BATCH)
    jobs, sizes, failed = {}, {}, {}
    for entry in ENTRIES:
        for form in setting.forms:
            try:
                module = build(entry, size, form, setting, torch.float32)
                jobs[entry.name, form] = training_step(module, size, setting)
                sizes[entry.name, form] = parameters(module)
            except Exception as error:  # a peer may raise anything; its row says what
                failed[entry.name, form] = Timing(reason=reason(error))
    history = build(next(e for e in ENTRIES if e.name == OURS_6), size, "eager", setting, torch.float32)
    jobs["with history", "eager"] = training_step(history, size, setting, blocks=(1,) * size.grid[0])
    timings = {**interleaved(jobs, setting), **failed}
    rows = compare(timings, sizes, peak, setting)
    extra = timings["with history", "eager"]
    rows.append({"model": f"{OURS_6}, with history", "form": "eager", "ms": extra.milliseconds or extra.reason})
    tokens = size.batch * size.grid[0] * size.grid[1] * size.grid[2]
    rows = [{"tokens": tokens, "pass": "training step", **row} for row in rows]
    return Table(
        "training", "A training step", COLUMNS, equal(size) + STEP_EQUAL, rows, findings("training step", rows)
    )


def training_step(module: nn.Module, size: Size, setting: Setting, blocks: tuple[int, ...] | None = None) -> Job:
    """With `blocks` each learns on the clean ones before it, which any sample may be denied, as in a run."""
    optimizer = build_optimizer({"model": module}, OptimConfig())
    diffusion, generator = Diffusion(DiffusionConfig()), setting.generator()
    latents, _, text = size.inputs(setting)
    weights = [p for p in module.parameters() if p.requires_grad]
    seen = torch.ones(size.batch, dtype=torch.bool, device=setting.device)
    extra = {"clean": latents, "blocks": blocks, "history_visible": seen} if blocks else {}

    def step() -> None:
        t = diffusion.sample_t((size.batch,), generator, setting.device)
        noise = torch.randn(latents.shape, generator=generator, device=setting.device)
        noisy = diffusion.add_noise(latents, noise, t)
        with torch.autocast(setting.device.type, torch.bfloat16):
            output = module(noisy, t, text, **extra)
        diffusion.loss(output, latents, noise, noisy, t).mean().backward()
        clip_gradients(weights, 1.0)
        optimizer.step(1e-4)
        optimizer.zero_grad()

    return step


# -------------------- the sampling run


def sampling_table(setting: Setting, peak: float) -> Table:
    """From a prompt to pixels."""
    size = Size.of(64 if setting.quick else 2048, setting)
    steps = 2 if setting.quick else SAMPLE_STEPS
    jobs, failed = {}, {}
    for form in setting.forms:
        for name, make in (("Video Gen", our_sampler), ("diffusers Wan", wan_sampler)):
            try:
                jobs[name, form] = make(size, steps, form, setting)
            except Exception as error:  # a peer may raise anything; its row says what
                failed[name, form] = Timing(reason=reason(error))
    timings = {**interleaved(jobs, setting, flops=False), **failed}
    f, h, w = size.grid
    text = (
        f"{steps} Euler steps of a clip of {4 * (f - 1) + 1} frames of {16 * h}x{16 * w} pixels, guidance with both branches "
        "in one batch, and decoding by a VAE (table `vae`). "
        f"Transformers of width {size.width}, depth {size.depth} and equal parameters, bfloat16. "
        "Ours goes through VideoPipeline, its text encoder included; the peer is diffusers' Wan transformer, "
        "FlowMatchEulerDiscreteScheduler and AutoencoderKLWan, given embedded text."
    )
    table = Table("sampling", "A sampling run", ("model", "form", "ms", "ours is faster by"), text)
    for (name, form), timing in timings.items():
        row = {"model": name, "form": form, "ms": timing.milliseconds or f"not measured: {timing.reason}"}
        base = timings["Video Gen", form].milliseconds
        if name != "Video Gen" and timing.milliseconds and base:
            row["ours is faster by"] = timing.milliseconds / base
        table.rows.append(row)
    table.findings = findings("sampling run", table.rows)
    return table


def our_sampler(size: Size, steps: int, form: str, setting: Setting) -> Job:
    f, h, w = size.grid
    clip = ClipSettings(num_frames=4 * (f - 1) + 1, fps=8, height=16 * h, width=16 * w)
    entry = next(e for e in ENTRIES if e.name == OURS_6)
    transformer = build(entry, size, form, setting, torch.float32).model
    text = build_text_encoder(TextConfig(width=size.width)).to(setting.device)
    vae = our_vae(setting).vae.to(setting.device)
    sampling = SamplingConfig(num_steps=steps, solver="euler", guidance_scale=GUIDANCE)
    pipeline = VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, sampling)  # type: ignore[arg-type]
    pipeline.to(setting.device)
    for module in (vae, transformer, text):
        module.requires_grad_(False)  # type: ignore[union-attr]
    return lambda: pipeline("two red circles and a blue square, fast", seed=0)


def wan_sampler(size: Size, steps: int, form: str, setting: Setting) -> Job:
    from diffusers import FlowMatchEulerDiscreteScheduler

    entry: Entry = next(e for e in ENTRIES if e.name == "Wan")
    module = build(entry, size, "eager", setting, torch.bfloat16).requires_grad_(False)
    vae = fast(wan_vae(setting), setting)
    if form == "compiled":
        compile_blocks(module)
    text = size.inputs(setting)[2].bfloat16().expand(2, -1, -1)
    f, h, w = size.grid

    def run() -> None:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(steps, device=setting.device)
        shape = (1, CHANNELS, f, PATCH * h, PATCH * w)
        x = torch.randn(shape, generator=setting.generator(), device=setting.device)
        with torch.no_grad():
            for t in scheduler.timesteps:
                made = module(x.bfloat16().expand(2, -1, -1, -1, -1), t.expand(2) / 1000, text)
                empty, prompted = made.float().chunk(2)
                x = scheduler.step(empty + GUIDANCE * (prompted - empty), t, x, return_dict=False)[0]
            vae.decode(x.bfloat16())  # type: ignore[operator]

    return run
