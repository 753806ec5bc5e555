"""Table 4, cost as work grows, and the memory of decoding long and large videos. Ours alone."""

import time

import torch

from benchmarks.measure import Setting, Timing, attempt, interleaved, peak_memory, synchronise
from benchmarks.models import CHANNELS, Ours, Size, our_config
from benchmarks.tables import Table
from benchmarks.vae import ours as our_vae
from video_gen.model.vae_contract import PART_FRAMES

FRAMES, FRAMES_PIXELS = (17, 65, 257, 1025), 64
PIXELS, PIXELS_FRAMES = (64, 128, 256, 512), 17
MEMORY_FRAMES, MEMORY_PIXELS = (65, 257, 1025), 128
LARGE, LARGE_FRAMES = (1080, 1920), (5, 9)
STRIDE, SPATIAL = 4, 8
VAE = ("vae", "eager")


def growth_table(setting: Setting, peak: float) -> Table:
    width, depth = (64, 2) if setting.quick else (512, 4)
    table = Table(
        "growth",
        "Cost as work grows",
        ("frames", "pixels", "tokens", "attention", "forward ms", "µs per token", "GFLOP/s", "VAE decode ms per frame"),
        f"Video Gen's transformer (width {width}, depth {depth}, one block, eager, bfloat16), one forward pass "
        f"without history, and its VAE (table `vae`) decoding {PART_FRAMES} latent frames at a time. "
        "`factorised` alternates space and time, without a joint layer.",
    )
    shapes = [(frames, FRAMES_PIXELS) for frames in FRAMES]
    shapes += [(PIXELS_FRAMES, pixels) for pixels in PIXELS if (PIXELS_FRAMES, pixels) not in shapes]
    models = {}
    for attention in ("joint", "factorised"):
        size = Size((1, 1, 1), width=width, depth=depth, text_tokens=8 if setting.quick else 64)
        torch.manual_seed(0)
        models[attention] = Ours(our_config(size, 4, attention)).to(setting.device, torch.bfloat16)
    for frames, pixels in [(5, 32), (9, 32)] if setting.quick else shapes:
        table.rows += grown(models, frames, pixels, size, setting)
    return table


def grown(models: dict, frames: int, pixels: int, size: Size, setting: Setting) -> list[dict]:
    latent_frames, side = 1 + (frames - 1) // STRIDE, pixels // SPATIAL
    device, generator = setting.device, setting.generator()
    latents = torch.randn(1, CHANNELS, latent_frames, side, side, device=device, generator=generator)
    text = torch.randn(1, size.text_tokens, size.width, device=device, generator=generator)
    t = torch.full((1,), 0.5, device=device)
    vae = our_vae(setting).to(device)

    def forward(model) -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            model(latents.bfloat16(), t, text.bfloat16())

    jobs = {(name, "eager"): (lambda model=model: forward(model)) for name, model in models.items()}
    timings = interleaved(jobs, setting)
    decoded = interleaved({VAE: lambda: decode_all(vae, latents)}, setting, flops=False)[VAE]
    rows, tokens = [], latent_frames * (side // 2) ** 2
    for (name, _), timing in timings.items():
        row = {"frames": frames, "pixels": pixels, "tokens": tokens, "attention": name}
        row["forward ms"] = timing.milliseconds or f"not measured: {timing.reason}"
        if timing.milliseconds and timing.flops:
            row["µs per token"] = 1e3 * timing.milliseconds / tokens
            row["GFLOP/s"] = timing.flops / timing.milliseconds / 1e6
        row["VAE decode ms per frame"] = (
            decoded.milliseconds / frames if decoded.milliseconds else f"not measured: {decoded.reason}"
        )
        rows.append(row)
    return rows


def decode_all(vae, latents: torch.Tensor) -> None:
    """Decode part by part and let go of each part, as a writer of files does."""
    with torch.no_grad(), torch.autocast(latents.device.type, torch.bfloat16):
        for _ in vae.vae.decode_parts(latents):
            pass


def decode_memory_table(setting: Setting, peak: float) -> Table:
    """Peak memory of decoding: it must not grow with frames."""
    table = Table(
        "decode_memory",
        "Memory of decoding long and large videos",
        ("frames", "height", "width", "tiles", "s", "peak MiB"),
        f"Video Gen's VAE (table `vae`, 11 M parameters) in {PART_FRAMES} latent frames at a time; above 512x512 pixels in "
        "tiles of 512 with a halo, which equals the whole exactly. Peak beyond what was held before, latents given, "
        "pictures let go as they come.",
    )
    vae = our_vae(setting).to(setting.device)
    long = (5, 9) if setting.quick else MEMORY_FRAMES
    side = 32 if setting.quick else MEMORY_PIXELS
    rows = [(frames, side, side) for frames in long]
    rows += [] if setting.quick else [(frames, *LARGE) for frames in LARGE_FRAMES]
    decode_all(
        vae, torch.zeros(1, CHANNELS, 2, side // SPATIAL, side // SPATIAL, device=setting.device)
    )  # start-up costs
    for frames, height, width in rows:
        shape = (1, CHANNELS, 1 + (frames - 1) // STRIDE, height // SPATIAL, width // SPATIAL)
        latents = torch.randn(shape, generator=setting.generator(), device=setting.device)
        tile = 0 if height * width <= 512 * 512 else 512
        tiles = 1 if not tile else -(-height // tile) * -(-width // tile)
        timing, start = Timing(), time.perf_counter()
        with peak_memory(setting.device) as used:
            attempt(timing, lambda latents=latents: decode_all(vae, latents))
            synchronise(setting.device)
        seconds = time.perf_counter() - start
        row = {"frames": frames, "height": height, "width": width, "tiles": tiles}
        table.rows.append(
            row | {"s": f"not measured: {timing.reason}" if timing.reason else seconds, "peak MiB": used.mebibytes}
        )
    first, last = (next(row for row in table.rows if row["frames"] == frames) for frames in (long[0], long[-1]))
    if first["peak MiB"] and last["peak MiB"]:
        growth = 100 * (last["peak MiB"] / first["peak MiB"] - 1)
        table.findings.append(f"from {long[0]} to {long[-1]} frames the peak changes by {growth:+.0f}%")
    return table
