"""Run folders as training writes them, without training: for the page of runs, its tests and its measurements."""

import json
import math
import random
from pathlib import Path
from typing import Any

BANDS = ("loss_t0.00-0.25", "loss_t0.25-0.50", "loss_t0.50-0.75", "loss_t0.75-1.00")
CONFIG = """data: {{folder: data/made, num_frames: 17, fps: 16.0, height: 32, width: 32}}
{model}
loop: {{train_steps: {steps}, batch_size: 16, log_every: {every}, seed: {seed}}}
optim: {{optimizer: muon, learning_rate: {rate}}}
"""
MODELS = {
    "vae": "vae: {temporal_stride: 4, spatial_stride: 4, latent_channels: 8}\nloss: {kl: 1.0e-05}",
    "diffusion": "vae: runs/vae/model/vae\nlatents: runs/latents\ntransformer: {width: 256, depth: 6}\nmodes: {endings: 0.2}",
}


def write_run(
    folder: Path,
    kind: str = "diffusion",
    lines: int = 100,
    every: int = 10,
    seed: int = 0,
    done: float = 1.0,
    lock: str = "finished (2026-11-27 08:24)",
) -> None:
    """A run's config.yaml, log.jsonl, best/figures.json and .lock.

    Args:
        lines: of training in the log, a line every so many steps.
        done: the part of its steps that it has made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw, steps = random.Random(seed), round(lines * every / done)
    rate = (1e-3, 2e-3, 5e-3)[seed % 3]
    model = MODELS[kind]
    (folder / "config.yaml").write_text(CONFIG.format(model=model, steps=steps, every=every, seed=seed, rate=rate))
    best: dict[str, Any] = {}
    with (folder / "log.jsonl").open("w") as log:
        for number in range(lines + 1):
            step, part = number * every, number / max(lines, 1)
            if number % max(1, lines // 20) == 0:
                held = _held_out(kind, part, draw)
                better = held["psnr"] > best.get("psnr", 0) if kind == "vae" else held["loss"] < best.get("loss", 9)
                best = {"step": step} | held if better else best
                log.write(json.dumps({"kind": "validation", "step": step} | held) + "\n")
            if number:
                log.write(json.dumps({"kind": "train", "step": step} | _line(kind, part, step, rate, draw)) + "\n")
    (folder / "best").mkdir(exist_ok=True)
    (folder / "best" / "figures.json").write_text(json.dumps(best, indent=1))
    if lock:
        (folder / ".lock").write_text(lock + "\n")
    if done >= 1:
        (folder / "model").mkdir(exist_ok=True)


def _held_out(kind: str, part: float, draw: random.Random) -> dict[str, float]:
    if kind == "vae":
        return {"psnr": 26.4 + 3 * math.sqrt(part) + draw.gauss(0, 0.05), "psnr_linear": 26.40891}
    loss = 0.6 + 1.2 * math.exp(-4 * part) + draw.gauss(0, 0.01)
    return {"loss": loss, "loss_causal": loss * 1.01} | {name: loss * (1.4 - 0.25 * i) for i, name in enumerate(BANDS)}


def _line(kind: str, part: float, step: int, rate: float, draw: random.Random) -> dict[str, float]:
    loss = 0.6 + 1.4 * math.exp(-5 * part) + draw.gauss(0, 0.08)
    own = {"pixels": loss / 3, "mse": loss / 2, "kl": 2.5e-5, "psnr": 22 + 2 * part + draw.gauss(0, 0.3)}
    parts = (
        ("encoder", "decoder") if kind == "vae" else ("embeddings", "text", "modulation", "attention", "feed_forward")
    )
    return {
        "loss": loss,
        "grad_norm": abs(draw.gauss(0.5, 0.1)),
        **(own if kind == "vae" else {"loss_causal": loss * 1.02}),
        **{f"grad_norm_{name}": abs(draw.gauss(0.2, 0.05)) for name in parts},
        "lr": rate * (1 - 0.95 * part),
        "samples_per_s": 40 + draw.gauss(0, 2),
        **({} if kind == "vae" else {"tokens_per_s": 3200 + draw.gauss(0, 100)}),
        "data_s": 0.004,
        "forward_s": 0.12,
        "backward_s": 0.22,
        "optimiser_s": 0.03,
        "mfu": 0.31 + draw.gauss(0, 0.01),
        "time": step * 0.41,
        "memory_mb": 640.0 + 30 * part,
    }
