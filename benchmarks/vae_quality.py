"""Table 3b: how good VAEs of one size and compression become in equal training time, on flat shapes or on footage of one's own."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Setting, reason, synchronise
from benchmarks.models import parameters
from benchmarks.tables import Table
from benchmarks.vae import PEERS, channels_last, last_channels, ours
from video_gen.data.clips import Clips, spread, to_video
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import draw, simulate
from video_gen.evaluation.reconstruction import flicker, psnr, ssim
from video_gen.model.linear_path import LinearPath
from video_gen.training.config import OptimConfig
from video_gen.training.optim import build_optimizer, clip_gradients

FRAMES, PIXELS, BATCH = 17, 48, 4
CLIPS, HELD_OUT = 512, 32
FOOTAGE = {"num_frames": FRAMES, "fps": 8, "height": 128, "width": 128, "stride": 4}
"""Clips of footage; trained on in squares of `CROP`."""
CROP = 64
HELD_OUT_FOOTAGE = 24
"""Clips, spread over the files."""
OURS = "Video Gen"
KL, WARM_UP, LAST_RATE = 1e-5, 20, 0.02
FITTED = 64
"""Clips for the PCA."""
SLICE = 20.0
"""Seconds for which one model trains before the next one's turn, so that a load that comes and goes falls on all alike."""
PARTS = 4
"""Figures are taken after equal parts of the time."""
CRASHES = ("HunyuanVideo",)
"""Whose backward pass at this size ends the process on a CPU ("double free or corruption", torch 2.13, diffusers 0.42)."""
OPTIMIZERS = {
    "adamw": OptimConfig(learning_rate=1e-3),
    "muon": OptimConfig(optimizer="muon", learning_rate=2e-3, adam_learning_rate=3e-3),
}
EQUAL = (
    "Held equal: {seconds:.0f} seconds of training each in turns of {slice:.0f}, compression (4 frames, 8x8 pixels, 16 "
    "channels), parameters within 10%, the clips ({clips}, {frames} frames of {pixels}x{pixels}{cut}, batch {batch}), loss "
    "(mean squared error and {kl:g} of the KL divergence), bfloat16 autocast over float32 weights, channels last, eager, "
    "and the optimiser: AdamW at 1e-3, or Muon at 2e-3 with AdamW at 3e-3 for vectors, after {warm_up} steps falling "
    "linearly with time to {last} of that. The rates are those of this project's configurations; none was tuned for a row. "
    "Ours starts from the PCA of {fitted} training clips, whose time counts; a row shows it without. dB PSNR of {held} "
    "held-out clips, {apart}, at the start and after each quarter of the time; flicker is the mean error of the change from"
    " frame to frame, in grey levels of 255; one seed."
)


@dataclass
class Material:
    """What all learn from, and what they are judged by: uint8 (n, f, h, w, 3)."""

    train: Tensor
    held_out: Tensor
    clips: str
    """What they are."""
    apart: str
    """How those that are held out differ."""
    crop: int | None = None
    """Side of the square that a step cuts out of each clip."""


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
    figures: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = OPTIMIZERS[self.optimizer_name]
        self.optimizer = build_optimizer({"model": self.module}, self.config)
        self.weights = [p for p in self.module.parameters() if p.requires_grad]

    def train(self, given: Material, limit: float, until: float, device: torch.device) -> None:
        """Steps until `until` of the `limit` seconds that it is given."""
        while self.seconds < until:
            start = time.perf_counter()
            self.step(batch(given, self.steps), self.seconds / limit, device)
            synchronise(device)
            self.seconds += time.perf_counter() - start

    def step(self, clips: Tensor, done: float, device: torch.device) -> None:
        video = to_video(clips).to(device)
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
    def measure(self, clips: Tensor, device: torch.device) -> dict[str, float]:
        def made(video: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return self.reconstruct(video).float()

        return measured(clips, made, device)


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"dB": psnr, "SSIM": ssim, "flicker": flicker}


def measured(clips: Tensor, made: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
    """Means over clips of what `made` makes of them."""
    found: dict[str, list[Tensor]] = {name: [] for name in MEASURES}
    for part in clips.split(BATCH):
        video = to_video(part).to(device)
        again = made(video)
        for name, measure in MEASURES.items():
            found[name].append(measure(again, video).flatten())
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}


def batch(given: Material, step: int) -> Tensor:
    """The clips of a step: every model sees the same in the same order."""
    draw = torch.Generator().manual_seed(step)
    clips = given.train[torch.randint(len(given.train), (BATCH,), generator=draw)]
    if (side := given.crop) is None:
        return clips
    room = clips.shape[2] - side + 1
    places = torch.randint(room, (len(clips), 2), generator=draw).tolist()
    return torch.stack([clip[:, y : y + side, x : x + side] for clip, (y, x) in zip(clips, places)])


def vae_quality_table(setting: Setting, peak: float) -> Table:
    torch.manual_seed(0)
    limit, device = 1.0 if setting.quick else setting.seconds, setting.device
    given = world_clips(setting) if setting.footage is None else footage_clips(setting.footage)
    quarters = tuple(f"dB at {100 * i // PARTS}%" for i in range(PARTS + 1))
    cut = f" in squares of {given.crop}, drawn anew at each step" if given.crop else ""
    held = {"frames": FRAMES, "pixels": given.train.shape[2], "cut": cut, "batch": BATCH, "clips": given.clips}
    held |= {"held": len(given.held_out), "apart": given.apart}
    held |= {"seconds": limit, "slice": SLICE, "kl": KL, "warm_up": WARM_UP, "last": LAST_RATE, "fitted": FITTED}
    columns = ("model", "optimiser", "M parameters", "steps", "ms per step", *quarters, "SSIM", "flicker")
    name, title = ("vae_quality", "") if setting.footage is None else ("vae_footage", " on footage")
    table = Table(name, f"VAE quality{title} after equal training time", columns, EQUAL.format(**held))
    models = {OURS: our_learner, f"{OURS}, without PCA": bare_learner}
    crashes = () if device.type == "cuda" or setting.quick else CRASHES
    models |= {name: peer_learner(peer) for name, peer in PEERS.items() if name not in crashes}
    learners = []
    failed: list[dict[str, Any]] = [{"model": name, "steps": "not measured: ends the process"} for name in crashes]
    for optimizer in [name for name in OPTIMIZERS if name in setting.optimizers][: 1 if setting.quick else None]:
        for name, make in models.items():
            try:
                learners.append(make(name, optimizer, given.train, setting))
            except Exception as error:  # a peer may raise anything; its row says what
                failed.append({"model": name, "optimiser": optimizer, "steps": f"not measured: {reason(error)}"})
    for part in range(PARTS + 1):
        end = limit * part / PARTS
        while any(learner.seconds < end for learner in learners):
            for learner in learners:
                learner.train(given, limit, min(end, learner.seconds + SLICE), device)
        for learner in learners:
            learner.figures.append(learner.measure(given.held_out, device))
            print(
                f"{quarters[part]}: {learner.name}, {learner.optimizer_name}: {learner.figures[-1]['dB']:.2f} dB",
                flush=True,
            )
    for learner in learners:
        row: dict[str, Any] = {"model": learner.name, "optimiser": learner.optimizer_name, "steps": learner.steps}
        row |= {"M parameters": parameters(learner.module), "ms per step": 1e3 * learner.seconds / learner.steps}
        row |= dict(zip(quarters, (f"{figures['dB']:.2f}" for figures in learner.figures)))
        table.rows.append(row | shown(learner.figures[-1]))
    table.rows += [pca_row(given, quarters, device), *failed]
    if learners:
        best = {l.name: max(m.figures[-1]["dB"] for m in learners if m.name == l.name) for l in learners}
        found = ", ".join(f"{name} {figure:.1f}" for name, figure in best.items())
        table.findings.append(f"dB after {limit:.0f} s with the better optimiser: {found}")
    return table


def shown(figures: dict[str, float]) -> dict[str, str]:
    return {"SSIM": f"{figures['SSIM']:.3f}", "flicker": f"{figures['flicker']:.2f}"}


def pca_row(given: Material, quarters: tuple[str, ...], device: torch.device) -> dict[str, Any]:
    """What ours starts from: principal components of patches of 4 frames and 8x8 pixels, as many as a latent has channels."""
    linear = LinearPath(4, 8, 16)
    linear.fit(to_video(given.train[:FITTED]))
    linear.to(device)
    figures = measured(given.held_out, lambda video: linear.decode(linear.encode(video, True), True), device)
    return {"model": "PCA of patches", "steps": 0, quarters[-1]: f"{figures['dB']:.2f}", **shown(figures)}


def world_clips(setting: Setting) -> Material:
    train, held_out = (drawn(setting, split) for split in ("train", "held_out"))
    apart = "whose combinations of colour and shape training does not have"
    return Material(train, held_out, f"{len(train)} of the built-in world `kicks`", apart)


def drawn(setting: Setting, split: str) -> Tensor:
    count = 4 if setting.quick else CLIPS if split == "train" else HELD_OUT
    config = WorldConfig.model_validate(
        {"kind": "kicks", "num_frames": FRAMES, "height": PIXELS, "width": PIXELS, "split": split, "seed": 7}
    )
    return torch.stack([torch.from_numpy(draw(simulate(config, i))) for i in range(count)])


def footage_clips(config: ClipConfig) -> Material:
    """All windows to train on, in memory; of those held out some of each file."""
    clips = Clips(config.model_copy(update=FOOTAGE), "all")
    train, held = clips.only("train"), clips.only("validation")
    chosen = spread(held.buckets, HELD_OUT_FOOTAGE)
    sources = [f"`{pattern}`" for pattern in config.held_out]
    apart = f"of files {', '.join(sources)}" if sources else "of other files"
    # not one file after the other: the PCA takes the first ones
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    words = f"{len(train)} windows of {len(set(train.sources))} files"
    return Material(stacked(train, order), stacked(held, chosen), words, apart, CROP)


def stacked(clips: Clips, indices: Sequence[int]) -> Tensor:
    """uint8 (n, f, h, w, 3)."""
    return torch.stack([torch.from_numpy(clips[i].video) for i in indices])


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
