"""Table 3b: how good VAEs of one size and compression become in equal training time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Setting, reason, synchronise
from benchmarks.models import parameters
from benchmarks.tables import Table
from benchmarks.vae import PEERS, channels_last, last_channels, ours
from video_gen.data.clips import to_video
from video_gen.data.config import WorldConfig
from video_gen.data.worlds import draw, simulate
from video_gen.evaluation.reconstruction import psnr
from video_gen.training.config import OptimConfig
from video_gen.training.optim import build_optimizer, clip_gradients

FRAMES, PIXELS, BATCH = 17, 48, 4
CLIPS, HELD_OUT = 512, 32
OURS = "Video Gen"
KL, WARM_UP, LAST_RATE = 1e-5, 20, 0.02
FITTED = 64
"""Clips for the PCA."""
SLICE = 20.0
"""Seconds for which one model trains before the next one's turn, so that a load that comes and goes falls on all alike."""
PARTS = 4
"""Figures are taken after equal parts of the time."""
OPTIMIZERS = {
    "adamw": OptimConfig(learning_rate=1e-3),
    "muon": OptimConfig(optimizer="muon", learning_rate=2e-3, adam_learning_rate=3e-3),
}
EQUAL = (
    "Held equal: {seconds:.0f} seconds of training each in turns of {slice:.0f}, compression (4 frames, 8x8 pixels, 16 channels), "
    "parameters within 10% (ours has most), the clips ({clips} of the built-in world `kicks`, {frames} frames of "
    "{pixels}x{pixels}, batch {batch}), loss (mean squared error and {kl:g} of the KL divergence), bfloat16 autocast over float32 "
    "weights, channels last, eager, and the optimiser: AdamW at 1e-3, or Muon at 2e-3 with AdamW at 3e-3 for vectors, after "
    "{warm_up} steps falling linearly with time to {last} of that. The rates are those of this project's configurations; none was "
    "tuned for a row. Ours starts from the PCA of {fitted} training clips, whose time counts; a row shows it without. dB PSNR of "
    "{held} held-out clips, whose combinations of colour and shape training does not have, at the start and after each quarter "
    "of the time; one seed."
)


@dataclass
class Learner:
    """A model in training, and the time it has had."""

    name: str
    optimizer_name: str
    module: nn.Module
    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Video to a sample of latents, and the KL divergence per latent value."""
    decode: Callable[[Tensor], Tensor]
    reconstruct: Callable[[Tensor], Tensor]
    """Through the mean."""
    seconds: float = 0.0
    steps: int = 0
    figures: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = OPTIMIZERS[self.optimizer_name]
        self.optimizer = build_optimizer({"model": self.module}, self.config)
        self.weights = [p for p in self.module.parameters() if p.requires_grad]

    def train(self, clips: Tensor, limit: float, until: float, device: torch.device) -> None:
        """Steps until `until` of the `limit` seconds that it is given."""
        while self.seconds < until:
            start = time.perf_counter()
            self.step(clips, self.seconds / limit, device)
            synchronise(device)
            self.seconds += time.perf_counter() - start

    def step(self, clips: Tensor, done: float, device: torch.device) -> None:
        draw = torch.Generator().manual_seed(self.steps)  # every model sees the same clips in the same order
        video = to_video(clips[torch.randint(len(clips), (BATCH,), generator=draw)]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            latents, divergence = self.encode(video)
            made = self.decode(latents)
        loss = (made.float() - video).square().mean() + KL * divergence
        loss.backward()
        clip_gradients(self.weights, self.config.clip_norm)
        rise, fall = min(1.0, (self.steps + 1) / WARM_UP), 1 - (1 - LAST_RATE) * min(1.0, done)
        self.optimizer.step(self.config.learning_rate * rise * fall)
        self.optimizer.zero_grad()
        self.steps += 1

    @torch.no_grad()
    def measure(self, clips: Tensor, device: torch.device) -> float:
        found = []
        for part in clips.split(BATCH):
            video = to_video(part).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                made = self.reconstruct(video).float()
            found.append(psnr(made, video))
        return float(torch.cat(found).mean())


def vae_quality_table(setting: Setting, peak: float) -> Table:
    torch.manual_seed(0)
    limit, device = 1.0 if setting.quick else setting.seconds, setting.device
    train, held_out = (world_clips(setting, split) for split in ("train", "held_out"))
    quarters = tuple(f"dB at {100 * i // PARTS}%" for i in range(PARTS + 1))
    held = {"frames": FRAMES, "pixels": PIXELS, "batch": BATCH, "clips": len(train), "held": len(held_out)}
    held |= {"seconds": limit, "slice": SLICE, "kl": KL, "warm_up": WARM_UP, "last": LAST_RATE, "fitted": FITTED}
    columns = ("model", "optimiser", "M parameters", "steps", "ms per step", *quarters)
    table = Table("vae_quality", "VAE quality after equal training time", columns, EQUAL.format(**held))
    models = {OURS: our_learner, f"{OURS}, without PCA": bare_learner}
    models |= {name: peer_learner(peer) for name, peer in PEERS.items()}
    learners, failed = [], []
    for optimizer in list(OPTIMIZERS)[: 1 if setting.quick else None]:
        for name, make in models.items():
            try:
                learners.append(make(name, optimizer, train, setting))
            except Exception as error:  # a peer may raise anything; its row says what
                failed.append({"model": name, "optimiser": optimizer, "steps": f"not measured: {reason(error)}"})
    for part in range(PARTS + 1):
        end = limit * part / PARTS
        while any(learner.seconds < end for learner in learners):
            for learner in learners:
                learner.train(train, limit, min(end, learner.seconds + SLICE), device)
        for learner in learners:
            learner.figures.append(learner.measure(held_out, device))
            print(
                f"{quarters[part]}: {learner.name}, {learner.optimizer_name}: {learner.figures[-1]:.2f} dB", flush=True
            )
    for learner in learners:
        row: dict[str, Any] = {"model": learner.name, "optimiser": learner.optimizer_name, "steps": learner.steps}
        row |= {"M parameters": parameters(learner.module), "ms per step": 1e3 * learner.seconds / learner.steps}
        table.rows.append(row | dict(zip(quarters, (f"{figure:.2f}" for figure in learner.figures))))
    table.rows += failed
    if learners:
        best = {l.name: max(m.figures[-1] for m in learners if m.name == l.name) for l in learners}
        found = ", ".join(f"{name} {figure:.1f}" for name, figure in best.items())
        table.findings.append(f"dB after {limit:.0f} s with the better optimiser: {found}")
    return table


def world_clips(setting: Setting, split: str) -> Tensor:
    """uint8 (n, f, h, w, 3)."""
    count = 4 if setting.quick else CLIPS if split == "train" else HELD_OUT
    config = WorldConfig.model_validate(
        {"kind": "kicks", "num_frames": FRAMES, "height": PIXELS, "width": PIXELS, "split": split, "seed": 7}
    )
    return torch.stack([torch.from_numpy(draw(simulate(config, i))) for i in range(count)])


def our_learner(name: str, optimizer: str, clips: Tensor, setting: Setting, fit: bool = True) -> Learner:
    """As `train vae` starts it: with the closed-form linear path of training clips, unless `fit` is False."""
    vae, start = ours(setting).vae.float().train(), time.perf_counter()
    if fit:
        vae.fit_linear_path(to_video(clips[:FITTED]))
    seconds = time.perf_counter() - start
    vae.to(setting.device)

    def encode(video: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(video)
        return posterior.sample(), posterior.kl().mean()

    def reconstruct(video: Tensor) -> Tensor:
        return vae.decode(vae.encode(video).mean)

    return Learner(name, optimizer, vae, encode, vae.decode, reconstruct, seconds)


def bare_learner(name: str, optimizer: str, clips: Tensor, setting: Setting) -> Learner:
    return our_learner(name, optimizer, clips, setting, fit=False)


def peer_learner(make: Callable[[Setting], nn.Module]) -> Callable[[str, str, Tensor, Setting], Learner]:
    def build(name: str, optimizer: str, clips: Tensor, setting: Setting) -> Learner:
        module: Any = last_channels(make(setting).to(setting.device).train())

        def encode(video: Tensor) -> tuple[Tensor, Tensor]:
            found = module.encode(channels_last(video)).latent_dist
            latents = found.sample()
            return latents, found.kl().sum() / latents.numel()

        def decode(latents: Tensor) -> Tensor:
            return module.decode(channels_last(latents)).sample

        def reconstruct(video: Tensor) -> Tensor:
            return decode(module.encode(channels_last(video)).latent_dist.mode())

        return Learner(name, optimizer, module, encode, decode, reconstruct)

    return build
