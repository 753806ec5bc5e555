"""Table: the Wan VAEs at the size of the releases, ours and diffusers' class with the same weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Job, Setting, Timing, give_back_memory, interleaved, reason
from benchmarks.tables import Table
from benchmarks.vae import channels_last, last_channels
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.wan.vae_names import config_to_diffusers, in_our_names

FRAMES, PIXELS = 17, 128
QUICK_FRAMES, QUICK_PIXELS = 5, 32
CHUNK = 4
"""Latent frames per chunk of ours."""
OURS, THEIRS, LAST = "Video Gen", "diffusers", "diffusers, channels last"
COLUMNS = ("release", "numbers", "model", "form", "ms per frame", "ours is faster by")
EQUAL = (
    f"The sizes of the releases with the same random weights, {FRAMES} frames of {PIXELS}x{PIXELS}. Ours goes through the video "
    f"{CHUNK} latent frames at a time, diffusers one at a time, as it always does. `{LAST}` has weights and input in that layout, "
    "which it does not choose by itself. Compiled are the encoder and the decoder of each; float32 is measured eager alone."
)
Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def wan_decode_table(setting: Setting, peak: float) -> Table:
    return _table("decode", setting)


def wan_encode_table(setting: Setting, peak: float) -> Table:
    return _table("encode", setting)


def _table(work: str, setting: Setting) -> Table:
    table = Table(f"wan_{work}", f"The Wan VAEs beside diffusers' class: {work}", COLUMNS, EQUAL)
    for release in ("2.1", "2.2"):
        for dtype in (torch.bfloat16, torch.float32):
            torch.compiler.reset()
            rows = measure(release, work, dtype, setting)
            name = str(dtype).removeprefix("torch.")
            table.rows += [{"release": release, "numbers": name, **row} for row in rows]
            found = [f"{release} in {name}, {finding}" for finding in findings(rows)]
            print(*found, sep="\n", flush=True)
            table.findings += found
    return table


def measure(release: str, work: str, dtype: torch.dtype, setting: Setting) -> list[dict]:
    jobs, timings = {}, {}
    for form in setting.forms if dtype == torch.bfloat16 else setting.forms[:1]:
        for model, make in ((OURS, ours), (THEIRS, theirs), (LAST, theirs_last)):
            try:
                jobs[model, form] = job(make(release, dtype, form, setting), release, work, setting)
            except Exception as error:  # a peer may raise anything; its row says what
                timings[model, form] = Timing(reason=reason(error))
    timings |= interleaved(jobs, setting, flops=False)
    frames, rows = QUICK_FRAMES if setting.quick else FRAMES, []
    for (model, form), timing in timings.items():
        base = timings[OURS, form].milliseconds
        row = {"model": model, "form": form}
        row["ms per frame"] = timing.milliseconds / frames if timing.milliseconds else f"not measured: {timing.reason}"
        if model != OURS and timing.milliseconds and base:
            row["ours is faster by"] = timing.milliseconds / base
        rows.append(row)
    jobs.clear()
    give_back_memory()
    return rows


def findings(rows: list[dict]) -> list[str]:
    compared = [row for row in rows if "ours is faster by" in row]
    return [f"both {row['form']}: {row['ours is faster by']:.2f} times as fast as {row['model']}" for row in compared]


def job(pair: Pair, release: str, work: str, setting: Setting) -> Job:
    frames, pixels = (QUICK_FRAMES, QUICK_PIXELS) if setting.quick else (FRAMES, PIXELS)
    config = config_of(release, setting)
    generator = setting.generator()
    latent = config.latent_channels, 1 + (frames - 1) // config.temporal_stride, *[pixels // config.spatial_stride] * 2
    video = torch.rand(1, 3, frames, pixels, pixels, device=setting.device, generator=generator) * 2 - 1
    latents = torch.randn(1, *latent, device=setting.device, generator=generator)

    def run() -> None:
        with torch.no_grad():
            pair[0](video) if work == "encode" else pair[1](latents)

    return run


def config_of(release: str, setting: Setting) -> WanVAEConfig:
    return WanVAEConfig.preset(f"tiny-{release}" if setting.quick else release)


def peer(release: str, setting: Setting) -> nn.Module:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return AutoencoderKLWan.from_config(config_to_diffusers(config_of(release, setting))).eval().requires_grad_(False)


def ours(release: str, dtype: torch.dtype, form: str, setting: Setting) -> Pair:
    vae = WanVAE.from_state(config_of(release, setting), in_our_names(peer(release, setting).state_dict()))
    vae = vae.requires_grad_(False).to(setting.device, dtype)
    compiled(vae, form)
    stride = vae.config.temporal_stride

    def encode(video: Tensor) -> Tensor:
        start = vae.num_frames(CHUNK)
        cache, made = None, []
        for part in (video[:, :, :start], *(p for p in video[:, :, start:].split(CHUNK * stride, dim=2) if p.shape[2])):
            posterior, cache = vae.encode_chunk(part, cache)
            made.append(posterior.mean)
        return torch.cat(made, dim=2)

    def decode(latents: Tensor) -> Tensor:
        cache, made = None, []
        for part in latents.split(CHUNK, dim=2):
            chunk, cache = vae.decode_chunk(part, cache)
            made.append(chunk.to(dtype))
        return torch.cat(made, dim=2)

    return encode, decode


def theirs(release: str, dtype: torch.dtype, form: str, setting: Setting) -> Pair:
    vae = peer(release, setting).to(setting.device, dtype)
    compiled(vae, form)
    return lambda video: vae.encode(video.to(dtype)).latent_dist.mode(), lambda z: vae.decode(z.to(dtype)).sample


def theirs_last(release: str, dtype: torch.dtype, form: str, setting: Setting) -> Pair:
    vae = last_channels(peer(release, setting).to(setting.device, dtype))
    compiled(vae, form)

    def prepared(x: Tensor) -> Tensor:
        return channels_last(x).to(dtype)

    return lambda video: vae.encode(prepared(video)).latent_dist.mode(), lambda z: vae.decode(prepared(z)).sample


def compiled(vae: nn.Module, form: str) -> None:
    if form == "compiled":
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
