"""`video-gen demo`: from nothing to a generated video. Each stage reuses what is there of it, and says so."""

import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from video_gen.config import load_yaml
from video_gen.data.captions import random_captions
from video_gen.data.clips import Clips, spread
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.data.worlds import render_world
from video_gen.evaluate import evaluate_motion, evaluate_vae, motion_floors
from video_gen.evaluation import report
from video_gen.progress import bar
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_diffusion, train_vae
from video_gen.training.config import LoopConfig
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device
from video_gen.training.recipes import DiffusionRun, VAERun

NUM_CLIPS, NUM_IMAGES = 3000, 6000
GALLERY = 8
ENLARGE = 4


def run_demo(output: Path, steps: float = 1.0, short: bool = False) -> None:
    """Render, train both models for `steps` times their training steps, sample, measure, report; all under `output`."""
    started = time.monotonic()
    vae_run, run = recipes(output, steps, short)
    world = WorldConfig(
        kind="bounce",
        num_clips=48 if short else NUM_CLIPS,
        num_images=8 if short else NUM_IMAGES,
        num_frames=run.data.num_frames,
        fps=run.data.fps,
        height=run.data.height,
        width=run.data.width,
    )
    shown = f"{world.num_clips} clips and {world.num_images} stills"
    say(f"1/5  the data: {shown} of the world '{world.kind}' in {run.data.folder}")
    with bar("rendering", "files") as progress:
        before = render_world(world, run.data.folder, progress)
    if before:
        say(f"{run.data.folder}: {before} of them were there already")
    say(f"2/5  the VAE: {vae_run.loop.train_steps} steps, in {output / 'vae'}")
    train_vae(vae_run, output / "vae")
    say(f"3/5  the transformer: {run.loop.train_steps} steps, in {output / 'diffusion'}")
    train_diffusion(run, output / "diffusion")
    model = output / "diffusion" / "model"
    say("4/5  sampling and measuring")
    figures = measure(model, run, 8 if short else 64)
    pipeline = VideoPipeline.from_pretrained(model, pick_device("auto"))
    sections = galleries(pipeline, run, output / "samples")
    say("5/5  the report")
    minutes = (time.monotonic() - started) / 60
    page = output / "report.html"
    write_page(page, sections, figures, output, minutes)
    (output / "figures.json").write_text(json.dumps(figures, indent=1))
    for name in ("persistence", "caption_accuracy", "residual_px"):
        say(f"{name}: {figures['motion']['figures'][name]:.4g}")
    say(f"VAE: {figures['vae']['psnr']:.2f} dB on held-out clips")
    say(f"done in {minutes:.1f} minutes; open {page}")
    say(f'make your own:  video-gen sample "a red circle and a blue square, fast" --model {model} --enlarge 8')


def recipes(output: Path, steps: float, short: bool) -> tuple[VAERun, DiffusionRun]:
    """The shipped configurations, with their paths under `output` and `steps` times their training steps."""
    vae_run = load_yaml(VAERun, "demo-vae")
    run = load_yaml(DiffusionRun, "demo-diffusion")
    data = run.data.replace(folder=output / "data")
    vae_run = vae_run.replace(data=data)
    run = run.replace(data=data, vae=output / "vae" / "model" / "vae", latents=output / "latents")
    vae_run = vae_run.replace(loop=longer(vae_run.loop, steps))
    run = run.replace(loop=longer(run.loop, steps))
    if short:
        few = {"train_steps": 6, "validate_every": 6, "checkpoint_every": 6, "log_every": 2, "batch_size": 4}
        vae_run = vae_run.replace(loop=vae_run.loop.replace(**few))
        run = run.replace(loop=run.loop.replace(**few), sampling=run.sampling.replace(num_steps=4))
    return vae_run, run


def longer(loop: LoopConfig, times: float) -> LoopConfig:
    """A run of `times` as many steps, whose average of the weights spans the same share of it."""
    return loop.replace(train_steps=max(1, round(times * loop.train_steps)), ema_decay=loop.ema_decay ** (1 / times))


def measure(model: Path, run: DiffusionRun, count: int) -> dict[str, Any]:
    """All figures of the report."""
    vae = model / "vae"
    figures: dict[str, Any] = {"vae": evaluate_vae(vae, run.data, count)}
    figures["floors"] = motion_floors(vae, run.data, count)
    figures["motion"] = evaluate_motion(model, count)
    figures["held_out"] = evaluate_motion(model, count // 2, split="held_out")
    figures["seconds_per_clip"] = time_sampling(model, run)
    return figures


def time_sampling(model: Path, run: DiffusionRun) -> float:
    """Seconds for one clip, best of three, after one to warm up."""
    pipeline = VideoPipeline.from_pretrained(model, pick_device("auto"))
    times = []
    for seed in range(4):
        start = time.perf_counter()
        pipeline("a red circle, fast", seed=seed)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def galleries(pipeline: VideoPipeline, run: DiffusionRun, folder: Path) -> list[report.Section]:
    """Videos from text, from an image, from a video, and a longer one, with their contact sheets."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = random_captions(GALLERY, seed=20_000)
    text = list(pipeline.generate(captions, seeds=list(range(GALLERY))))
    clips = Clips(run.data, "validation")
    given = [clips[i] for i in spread(clips.buckets, GALLERY)][: GALLERY // 2]
    frames = pipeline.config.clip.num_frames
    half = 1 + (frames - 1) // 2
    from_image = [pipeline(c.caption, image=c.video[0], seed=i) for i, c in enumerate(given)]
    from_video = [
        pipeline(c.caption, video=c.video[:half], num_frames=2 * frames - 1, seed=i) for i, c in enumerate(given)
    ]
    long = [pipeline(c, num_frames=3 * (frames - 1) + 1, seed=i) for i, c in enumerate(captions[:4])]
    names = [clip.caption for clip in given]
    return [
        gallery(folder, "From text", "text", text, captions, run.data),
        gallery(folder, "From an image, which is the first frame", "image", from_image, names, run.data),
        gallery(folder, f"From {half} frames of a held-out video, continued", "video", from_video, names, run.data),
        gallery(folder, "Longer than any clip of training, block after block", "long", long, captions[:4], run.data),
    ]


def gallery(
    folder: Path, title: str, name: str, made: list[np.ndarray], captions: list[str], data: ClipConfig
) -> report.Section:
    items = []
    for index, (video, caption) in enumerate(zip(made, captions)):
        path = folder / f"{name}_{index}.mp4"
        large = video.repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)
        write_video(path, large, data.fps, metadata={"prompt": caption, "seed": str(index)})
        items.append((path, caption))
    sheet = contact_sheet(made, scale=3)
    Image.fromarray(sheet).save(folder / f"{name}.png")
    return report.Section(title, report.videos(items) + report.picture(sheet))


def write_page(
    path: Path, sections: list[report.Section], figures: dict[str, Any], output: Path, minutes: float
) -> None:
    motion, held_out, floors = figures["motion"], figures["held_out"], figures["floors"]
    rows = [
        [
            name,
            motion["figures"][name],
            held_out["figures"][name],
            *(floors[f]["figures"][name] for f in ("vae", "true")),
        ]
        for name in motion["figures"]
    ]
    head = ["figure", "generated", "generated, unseen combinations", "VAE's reconstruction", "true clips"]
    numbers = report.table(head, rows) + report.table(["VAE on held-out clips", ""], list(figures["vae"].items()))
    numbers += f"<p>Sampling one clip: {figures['seconds_per_clip']:.2f} s.</p>"
    by_frame = ""
    for name in motion["per_frame"]:
        lines = {"generated": motion["per_frame"][name]} | {k: floors[k]["per_frame"][name] for k in ("vae", "true")}
        by_frame += report.chart(f"{name} by frame", {k: list(enumerate(v)) for k, v in lines.items()})
    losses = ""
    for part, names in (("vae", ["psnr"]), ("diffusion", ["loss"])):
        losses += report.chart(f"{part}: training", report.curves(output / part / "log.jsonl", "train", names))
    names = ["psnr", "psnr_linear"]
    losses += report.chart("vae: held-out PSNR", report.curves(output / "vae" / "log.jsonl", "validation", names))
    names = ["loss_t0.00-0.25", "loss_t0.25-0.50", "loss_t0.50-0.75", "loss_t0.75-1.00", "loss_causal"]
    losses += report.chart(
        "diffusion: held-out loss", report.curves(output / "diffusion" / "log.jsonl", "validation", names)
    )
    every = [
        report.Section("Figures", numbers),
        *sections,
        report.Section("By frame", by_frame),
        report.Section("Training", losses),
    ]
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {pick_device('auto')}"
    )
    intro = f"Made by `video-gen demo` in {minutes:.1f} minutes of this run on {machine}. Videos are enlarged {ENLARGE} times."
    report.write_report(path, "Video Gen: the demo", intro, every)
