"""Table 3: VAEs of one size and compression, encoding and decoding, and how much memory each takes."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.measure import Job, Setting, Timing, attempt, give_back_memory, interleaved, peak_memory, reason
from benchmarks.models import parameters
from benchmarks.tables import Table
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE

FRAMES, PIXELS = (17, 65, 257), (128, 256)
LONGEST_MPIXELS = 4.5
"""Whole videos of more are not timed on a CPU: a peer would take minutes and over 10 GiB."""
CHUNK = 4
"""Latent frames per chunk of ours."""
COLUMNS = (
    "frames", "pixels", "work", "model", "form", "M parameters", "ms per frame", "peak MiB", "ours is faster by",
)  # fmt: skip
EQUAL = (
    "Held equal: compression (4 frames, 8x8 pixels, 16 channels), parameters within 10%, bfloat16, channels last, "
    "random weights, the same video. `Video Gen, chunked` goes through the video {chunk} latent frames at a time, with equal "
    "results. Peers run whole; their own chunks and tiles (blended, or with other results than the whole) are not used, except "
    "Wan's, which always goes frame by frame. Memory is the peak beyond what was held before, result included."
)
Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], nn.Module]


class OursVAE(nn.Module):
    """Networks in bfloat16, the linear path in float32."""

    def __init__(self, **sizes: Any):
        super().__init__()
        self.vae = VideoVAE(VAEConfig.model_validate(sizes)).eval()
        self.vae.encoder.bfloat16()
        self.vae.decoder.bfloat16()

    def encode(self, video: Tensor) -> Tensor:
        with torch.autocast(video.device.type, torch.bfloat16):
            return self.vae.encode(video).mean

    def decode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, torch.bfloat16):
            return self.vae.decode(latents)

    def encode_chunked(self, video: Tensor) -> Tensor:
        stride, cache, made = self.vae.config.temporal_stride, None, []
        with torch.autocast(video.device.type, torch.bfloat16):
            for part in (video[:, :, :1], *video[:, :, 1:].split(CHUNK * stride, dim=2)):
                posterior, cache = self.vae.encode_chunk(part, cache)
                made.append(posterior.mean)
        return torch.cat(made, dim=2)

    def decode_chunked(self, latents: Tensor) -> Tensor:
        cache, made = None, []
        with torch.autocast(latents.device.type, torch.bfloat16):
            for part in latents.split(CHUNK, dim=2):
                chunk, cache = self.vae.decode_chunk(part, cache)
                made.append(chunk.bfloat16())
        return torch.cat(made, dim=2)


def ours(setting: Setting) -> OursVAE:
    return OursVAE(widths=(16, 32), blocks=1) if setting.quick else OursVAE(widths=(64, 128, 128), blocks=2)


def wan(setting: Setting) -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=8 if setting.quick else 32, num_res_blocks=1)


def ltx(setting: Setting) -> nn.Module:
    """Two halvings of time and space behind patches of 2: the compression of the others."""
    from diffusers import AutoencoderKLLTXVideo

    widths = (8, 16, 16) if setting.quick else (32, 64, 128)
    scaling = (False, True, True)
    return AutoencoderKLLTXVideo(
        latent_channels=16,
        block_out_channels=widths,
        down_block_types=("LTXVideoDownBlock3D",) * 3,
        decoder_block_out_channels=widths,
        layers_per_block=(1,) * 4,
        decoder_layers_per_block=(1,) * 4,
        spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling,
        decoder_inject_noise=(False,) * 4,
        downsample_type=("conv",) * 3,
        upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3,
        patch_size=2,
        decoder_causal=True,
    )


def cogvideox(setting: Setting) -> nn.Module:
    from diffusers import AutoencoderKLCogVideoX

    widths = (8, 16, 16, 32) if setting.quick else (32, 64, 128, 128)
    return AutoencoderKLCogVideoX(block_out_channels=widths, layers_per_block=1, norm_num_groups=8, latent_channels=16)


def hunyuan(setting: Setting) -> nn.Module:
    from diffusers import AutoencoderKLHunyuanVideo

    widths = (8, 16, 16, 32) if setting.quick else (32, 64, 128, 128)
    return AutoencoderKLHunyuanVideo(
        latent_channels=16, block_out_channels=widths, layers_per_block=1, norm_num_groups=8
    )


PEERS = {"Wan": wan, "LTX-Video": ltx, "CogVideoX": cogvideox, "HunyuanVideo": hunyuan}


def vae_table(setting: Setting, peak: float) -> Table:
    table = Table("vae", "VAE, per frame, and memory", COLUMNS, EQUAL.format(chunk=CHUNK))
    models, failed = build_models(setting)
    for pixels in (32,) if setting.quick else PIXELS:
        for frames in (5,) if setting.quick else FRAMES:
            generator = setting.generator()
            video = torch.rand(1, 3, frames, pixels, pixels, device=setting.device, generator=generator) * 2 - 1
            latents = torch.randn(
                1, 16, 1 + (frames - 1) // 4, pixels // 8, pixels // 8, device=setting.device, generator=generator
            )
            for work, value in (("encode", video), ("decode", latents)):
                rows = measure(models, failed, work, value, frames, setting)
                table.rows += [{"frames": frames, "pixels": pixels, "work": work, **row} for row in rows]
                found = [f"{work}, {frames} frames of {pixels}: {finding}" for finding in best(rows)]
                print(*found, sep="\n", flush=True)  # the whole table takes over an hour
                table.findings += found
    return table


def build_models(setting: Setting) -> tuple[dict[tuple[str, str], Pair], dict[tuple[str, str], str]]:
    """(encode, decode, module) per (model, form), and the reason for each that could not be built."""
    models, failed = {}, {}
    for form in setting.forms:
        own = ours(setting).to(setting.device).requires_grad_(False)
        if form == "compiled":
            own.vae.encoder.compile(dynamic=False)
            own.vae.decoder.compile(dynamic=False)
        models["Video Gen", form] = (own.encode, own.decode, own)
        models["Video Gen, chunked", form] = (own.encode_chunked, own.decode_chunked, own)
        for name, make in PEERS.items():
            try:
                models[name, form] = peer_pair(make(setting), form, setting)
            except Exception as error:  # a peer may raise anything; its row says what
                failed[name, form] = reason(error)
    return models, failed


def peer_pair(module: nn.Module, form: str, setting: Setting) -> Pair:
    peer: Any = fast(module, setting)
    if form == "compiled":
        peer.encoder.compile(dynamic=False)
        peer.decoder.compile(dynamic=False)

    def encode(video: Tensor) -> Tensor:
        return peer.encode(channels_last(video)).latent_dist.mode()

    def decode(latents: Tensor) -> Tensor:
        return peer.decode(channels_last(latents)).sample

    return encode, decode, peer


def fast(module: nn.Module, setting: Setting) -> nn.Module:
    """To infer: bfloat16 and channels last."""
    return last_channels(module.to(setting.device, torch.bfloat16).eval().requires_grad_(False))


def last_channels(module: nn.Module) -> nn.Module:
    """Its convolutions' weights in the layout that is fast, in two dimensions and three."""
    for p in module.parameters():
        if p.ndim in (4, 5):
            p.data = p.data.contiguous(memory_format=torch.channels_last if p.ndim == 4 else torch.channels_last_3d)
    return module


def channels_last(x: Tensor) -> Tensor:
    return x.bfloat16().contiguous(memory_format=torch.channels_last_3d)


def measure(models, failed, work: str, value: Tensor, frames: int, setting: Setting) -> list[dict]:
    size = value.numel() / 3e6 if work == "encode" else value.numel() * 16 / 1e6
    too_big = setting.device.type == "cpu" and size > LONGEST_MPIXELS
    chosen = {key: pair for key, pair in models.items() if not (too_big and key[0] != "Video Gen, chunked")}
    jobs = {key: job(pair, work, value) for key, pair in chosen.items()}
    timings = interleaved(jobs, setting, flops=False)
    peaks = {key: memory(run, timings[key], setting) for key, run in jobs.items()}
    timings |= {key: Timing(reason=why) for key, why in failed.items()}
    timings |= {
        key: Timing(reason="whole videos of this size are beyond this table's time")
        for key in models
        if key not in chosen
    }
    rows = []
    for key, timing in timings.items():
        base = timings["Video Gen", key[1]].milliseconds
        row: dict[str, Any] = {"model": key[0], "form": key[1]}
        row["M parameters"] = parameters(models[key][2]) if key in models else None
        row["ms per frame"] = timing.milliseconds / frames if timing.milliseconds else f"not measured: {timing.reason}"
        row["peak MiB"] = peaks.get(key)
        if timing.milliseconds and base and key[0] in PEERS:
            row["ours is faster by"] = timing.milliseconds / base
        rows.append(row)
    return sorted(rows, key=lambda row: row["form"] != "eager")


def job(pair: Pair, work: str, value: Tensor) -> Job:
    def run() -> None:
        with torch.no_grad():
            pair[0 if work == "encode" else 1](value)

    return run


def memory(run: Job, timing: Timing, setting: Setting) -> float | None:
    """MiB of one more run, or None if it had failed."""
    if timing.reason:
        return None
    with peak_memory(setting.device) as peak:
        attempt(timing, run)
    give_back_memory()
    return peak.mebibytes


def best(rows: list[dict]) -> list[str]:
    made = []
    for form in ("eager", "compiled"):
        chosen = [row for row in rows if row["form"] == form and "ours is faster by" in row]
        ratios = [(cast(float, row["ours is faster by"]), row["model"]) for row in chosen]
        if ratios:
            ratio, model = min(ratios)
            made.append(f"{ratio:.2f} times as fast as the best {form} peer ({model}), both {form}")
    return made
