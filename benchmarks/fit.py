"""Ways to make a model fit: memory as it is planned and as it is taken, time of a call, and how far the velocity is off."""

from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Setting, interleaved, peak_memory
from benchmarks.tables import Table
from video_gen.model.allocations import AllocationTracker
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer_config import TextConfig
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.plan_sample import options_of, plan_sample
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.fit import Fit
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sizes import Sizes, sizes_of

PROMPT = "a red circle and a blue square, fast"
TIME = 0.8
"""Diffusion time of the velocity that is compared."""
WAYS = (
    Fit(),
    Fit(weights="bf16"),
    Fit(weights="int8"),
    Fit(weights="fp8"),
    Fit(weights="bf16", branches="apart"),
    Fit(weights="bf16", offload="blocks"),
)


def fit_table(setting: Setting, peak: float) -> Table:
    del peak
    table = Table(
        "fit",
        "Ways to make a model fit",
        ("model", "way", "planned MB", "taken MB", "call ms", "velocity off by"),
        "`plan sample` counts tensors, with weights, as if the device were a GPU; taken is what the tensors of a whole video "
        "take at their most, on a GPU by torch's allocator, on a CPU by counting them (of blocks that are offloaded not told: "
        "there all is in one memory). A call is one of the transformer with guidance. The velocity's error is relative, at "
        f"diffusion time {TIME}, to that of float32 weights with the same arithmetic. `bounce` is trained; the other has drawn "
        "weights.",
    )
    for name in ("bounce", "wan"):
        table.rows += rows_of(name, setting)
    return table


def rows_of(name: str, setting: Setting) -> list[dict]:
    sizes, device = sizes_of_model(name, setting), setting.device
    ways = WAYS[:3] if setting.quick else WAYS
    job = sizes.job(num_steps=2, guidance_scale=3.0)
    plan = plan_sample(sizes, job, torch.device("cuda"), ("fp32", "bf16", "int8", "fp8"))
    models = {way: model_of(name, setting).settle(way, device) for way in ways}
    jobs = {(options_of(way), "eager"): partial(velocity, model) for way, model in models.items()}
    timings = interleaved(jobs, setting, flops=False)
    exact, rows = velocity(models[WAYS[0]]), []
    for way, model in models.items():
        (planned,) = [c.bytes for c in plan.choices if c.fit == way]
        error = float((velocity(model) - exact).norm() / exact.norm())
        rows.append(
            {
                "model": "bounce" if name == "bounce" else "Wan-shaped",
                "way": options_of(way),
                "planned MB": planned / 2**20,
                "taken MB": taken(model, device),
                "call ms": timings[options_of(way), "eager"].milliseconds,
                "velocity off by": f"{error:.4f}" if error else "0",
            }
        )
    return rows


def velocity(model: VideoPipeline) -> Tensor:
    """Of a clip of noise."""
    frames, (c, h, w) = model.latent_frames(model.config.clip.num_frames), model.latent_frame()
    noisy = torch.randn(1, c, frames, h, w, generator=torch.Generator().manual_seed(0)).to(model.device)
    with model.inference():
        made = model.block_model([PROMPT], model.config.sampling, frames)
        found = made.denoiser(None, made.branches(None))(noisy, torch.full((1,), TIME, device=model.device))
    return (noisy - found[0]) / TIME


def taken(model: VideoPipeline, device: torch.device) -> float | str:
    """MB of a whole video's tensors, with weights."""
    parts = (model.vae, model.transformer, model.text)
    weights = [x for part in parts for x in (*part.parameters(), *part.buffers())]
    make = partial(model, PROMPT, num_steps=2, guidance_scale=3.0)
    if device.type == "cuda":
        with peak_memory(device) as peak:
            make()
        held = sum(
            {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in weights if x.is_cuda}.values()
        )
        return held / 2**20 + (peak.mebibytes or 0.0)
    if model.offloads:
        return "-"
    with AllocationTracker(weights) as tracker:
        make()
    return (sum(x.nbytes for x in weights) + tracker.peak) / 2**20


# -------------------- models


def sizes_of_model(name: str, setting: Setting) -> Sizes:
    if name == "bounce":
        return sizes_of(name)
    model = model_of(name, setting)
    vae, transformer, text = model.vae.config, model.transformer.config, model.text.config
    return Sizes(
        name, model.config, lambda: WanVAE(vae), lambda: WanTransformer(transformer), lambda: ByteTextEncoder(text)
    )


def model_of(name: str, setting: Setting) -> VideoPipeline:
    if name == "bounce":
        return VideoPipeline.from_pretrained(name)
    torch.manual_seed(0)
    wide = 64 if setting.quick else 512
    sizes = dict(dim=wide, ffn_dim=4 * wide, num_heads=wide // 32, depth=8, text_width=128, text_len=64)
    transformer = WanTransformer(WanTransformerConfig.preset("tiny", **sizes))
    for p in transformer.parameters():  # the last layer starts at zero
        p.data += 0.02 * torch.randn(p.shape)
    clip = ClipSettings(num_frames=9 if setting.quick else 17, fps=16, height=64, width=64)
    text, vae = ByteTextEncoder(TextConfig()), WanVAE(WanVAEConfig.preset("2.1", width=8 if setting.quick else 32))
    sampling = SamplingConfig(num_steps=2, guidance_scale=3.0)
    return VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, sampling, family="wan")
