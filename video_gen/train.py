"""Training, end to end: `train_vae`, `encode_latents`, `train_diffusion`. The command line calls these; so can you.

`python -m video_gen.train vae ...` is `video-gen train vae ...`: what torchrun starts, once per device.
"""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from video_gen.data.clips import Clips, to_video
from video_gen.data.latents import LatentSet, encode_clips, fingerprint
from video_gen.errors import ConfigError
from video_gen.model.text import build_text_encoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.video_vae import VideoVAE
from video_gen.progress import bar
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.loop import keep_freed_memory, train
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device, processes
from video_gen.training.recipes import DiffusionRun, VAERun
from video_gen.training.vae_task import VAETask

Resume = Literal["auto", "never"]
LINEAR_CLIPS = 256
"""Clips on which the VAE's linear path is measured."""


def train_vae(run: VAERun, run_dir: Path, resume: Resume = "auto") -> dict[str, float]:
    """Train a VAE into `run_dir`, whose model/ holds vae/ at the end. Returns what `training.loop.train` returns."""
    with processes(run.parallel, run.loop) as mesh:
        parts = {part: open_clips(run.data, part) for part in ("train", "validation")}
        torch.manual_seed(run.loop.seed)  # the initial weights, the one use of the global generator
        vae = VideoVAE(run.vae)
        vae.fit_linear_path(spread(parts["train"], LINEAR_CLIPS))
        task = VAETask(run, vae, parts["train"], parts["validation"], mesh)
        return train(task, run.loop, run.optim, run_dir, run.to_yaml(), resume, mesh)


def encode_latents(run: DiffusionRun) -> tuple[LatentSet, LatentSet]:
    """Encode what of the data is not encoded yet. Returns: latents for training and held-out ones."""
    keep_freed_memory()
    vae = load_vae(run)
    device = pick_device(run.loop.device)
    vae.to(device)

    @torch.no_grad()
    def encode(video: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return vae.encode(video.to(device)).mean.float()

    folder = run.latents / fingerprint(run.vae / "config.json", run.vae / "model.safetensors")
    sets = []
    for part in ("train", "validation"):
        clips = open_clips(run.data, part)
        with bar(f"latents of {part} clips", "clips") as progress:
            progress(0, len(clips))
            sets.append(LatentSet(folder, encode_clips(clips, encode, folder, progress=progress)))
    return sets[0], sets[1]


def train_diffusion(run: DiffusionRun, run_dir: Path, resume: Resume = "auto") -> dict[str, float]:
    """Train a transformer into `run_dir`, whose model/ is a whole pipeline at the end."""
    with processes(run.parallel, run.loop) as mesh:
        with mesh.main_first():
            train_set, validation_set = encode_latents(run)
        vae = load_vae(run)
        torch.manual_seed(run.loop.seed)
        text = build_text_encoder(run.text)
        sizes = {"latent_channels": vae.config.latent_channels, "text_width": text.width}
        transformer = VideoTransformer(run.transformer.replace(**sizes))
        task = DiffusionTask(run, transformer, text, vae, train_set, validation_set, mesh)
        resolved = run.replace(transformer=transformer.config.model_dump())
        return train(task, run.loop, run.optim, run_dir, resolved.to_yaml(), resume, mesh)


def load_vae(run: DiffusionRun) -> VideoVAE:
    """The VAE of a diffusion run. Raises: ConfigError if there is none yet."""
    if not run.vae.is_dir():
        raise ConfigError(f"vae: '{run.vae}' is no folder; train one with `video-gen train vae`, or give another")
    return VideoVAE.from_pretrained(run.vae).requires_grad_(False)


def open_clips(config, part: Literal["train", "validation", "all"]) -> Clips:
    """The clips of a part, saying what is left out of it and why."""
    clips = Clips(config, part)
    for message in clips.messages[:5] if part == "train" else ():
        say(f"skipped {message}")
    if part == "train" and len(clips.messages) > 5:
        say(f"skipped {len(clips.messages) - 5} more files for such reasons; `video-gen data check` lists all")
    return clips


def spread(clips: Clips, count: int) -> torch.Tensor:
    """Evenly spread clips of the most common shape as one batch (b, c, f, h, w)."""
    bucket = max(set(clips.buckets), key=clips.buckets.count)
    indices = [i for i in range(len(clips)) if clips.buckets[i] == bucket]
    chosen = np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int))
    return to_video(torch.from_numpy(np.stack([clips[indices[i]].video for i in chosen])))


if __name__ == "__main__":
    from video_gen.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
