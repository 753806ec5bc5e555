"""`video-gen demo`: from nothing to a generated video. Each stage reuses what is there of it, and says so.

The first videos are those of the model that ships; the page with everything to look at stands from then on and grows.
"""

import json
import platform
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from video_gen.config import load_yaml
from video_gen.data.captions import random_captions
from video_gen.data.clips import Clips, spread
from video_gen.data.config import WorldConfig
from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.data.worlds import render_world
from video_gen.demo_stages import Stages
from video_gen.evaluate import evaluate_motion, evaluate_vae, motion_floors
from video_gen.evaluation import report
from video_gen.evaluation.demo_report import FIGURES, PAGE, SHIPPED
from video_gen.evaluation.words import words_of
from video_gen.files import write_text
from video_gen.progress import bar
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.shipped import DEFAULT_MODEL
from video_gen.train import train_diffusion, train_vae
from video_gen.training.config import LoopConfig
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device
from video_gen.training.recipes import DiffusionRun, VAERun

NUM_CLIPS, NUM_IMAGES = 3000, 6000
GALLERY = 8
FIRST, FIRST_FRAMES = 4, 33
"""Videos of the shipped model that are made at once, and their frames."""
CAPTIONS_SEED = 20_000
MINUTES = {"first": 0.4, "data": 0.7, "vae": 3.2, "transformer": 7.4, "sample": 0.6, "measure": 1.1}
"""What each stage takes on two CPU cores: the time left is told from these until a stage shows its own pace."""


def run_demo(output: Path, steps: float = 1.0, short: bool = False) -> None:
    """Render, train both models for `steps` times their training steps, sample, measure, report; all under `output`."""
    started = time.monotonic()
    vae_run, run = recipes(output, steps, short)
    model = output / "diffusion" / "model"
    with stages_of(output, steps, short) as stages:
        with stages.stage("first"):
            first_videos(output / SHIPPED, stages, short)
        say(f"the page is {stages.write()}; it grows with each stage")
        with stages.stage("data"):
            render(run, stages, short)
        with stages.stage("vae"), stages.following(output / "vae" / "log.jsonl", vae_run.loop.train_steps):
            train_vae(vae_run, output / "vae")
        with stages.stage("transformer"), stages.following(output / "diffusion" / "log.jsonl", run.loop.train_steps):
            train_diffusion(run, output / "diffusion")
        with stages.stage("sample"):
            galleries(VideoPipeline.from_pretrained(model, pick_device("auto")), run, output / "samples", stages)
        with stages.stage("measure"):
            figures = measure(model, run, 8 if short else 64, stages)
            write_text(output / FIGURES, json.dumps(figures, indent=1))
        minutes = (time.monotonic() - started) / 60
        stages.intro = f"{ABOUT} This run took {minutes:.1f} minutes on {machine()}."
    for name in ("persistence", "caption_accuracy", "residual_px"):
        words = words_of(name)
        say(f"{words.name.lower()} ({words.note}): {words.say(figures['motion']['figures'][name])}")
    say(f"VAE: {figures['vae']['psnr']:.2f} dB on held-out clips")
    say(f"done in {minutes:.1f} minutes; open {output / PAGE}")
    say(f'make your own:  video-gen sample "a red circle and a blue square, fast" --model {model} --enlarge 8')
    say(f"its curves, clips and videos in the browser:  {opens(output)}")


def opens(output: Path) -> str:
    """The line that opens the studio on a demo's run."""
    model, data = output / "diffusion" / "model", output / "data"
    return shlex.join(["video-gen", "studio", "--model", str(model), "--runs", str(output), "--data", str(data)])


ABOUT = (
    "A small world of bouncing shapes; a VAE and a transformer that learn it from nothing; and the videos that they make. Each "
    "video is made from the words under it, which were not chosen by looking."
)


@contextmanager
def stages_of(output: Path, steps: float, short: bool) -> Iterator[Stages]:
    """The stages of the demo, with their names and about how long each takes."""
    part = 0.1 if short else 1.0
    share = {"vae": 0.02 if short else steps, "transformer": 0.02 if short else steps}
    names = {
        "first": "First videos, by the model that ships",
        "data": "Rendering the clips to learn from",
        "vae": "Training the VAE, which makes videos small",
        "transformer": "Training the transformer, which makes videos",
        "sample": "Making videos with it",
        "measure": "Measuring them",
    }
    seconds = {key: 60 * MINUTES[key] * share.get(key, part) for key in names}
    with Stages(output, names, seconds, ABOUT) as stages:
        yield stages


def machine() -> str:
    device = pick_device("auto")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (torch {torch.__version__})"
    return f"a CPU with {torch.get_num_threads()} of its threads ({platform.machine()}, torch {torch.__version__})"


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


# -------------------- stages


def first_videos(folder: Path, stages: Stages, short: bool) -> None:
    """Videos of the model that ships, on disk and on the page a few at a time."""
    captions = random_captions(GALLERY, seed=CAPTIONS_SEED)
    if (folder / f"text_{GALLERY - 1}.mp4").is_file():
        say(f"{folder}: the first videos were there already")
        return
    pipeline = VideoPipeline.from_pretrained(DEFAULT_MODEL, pick_device("auto"))
    fast: dict[str, Any] = {"num_steps": 8} if short else {}
    for start in range(0, GALLERY, FIRST):
        chosen = captions[start : start + FIRST]
        seeds = range(start, start + len(chosen))
        made = pipeline.generate(chosen, seeds=list(seeds), num_frames=FIRST_FRAMES, **fast)
        for index, video, caption in zip(seeds, made, chosen):
            save_video(folder / f"text_{index}.mp4", video, caption, index, pipeline.config.clip.fps)
        stages.progress((start + len(chosen)) / GALLERY)
        say(f"{start + len(chosen)} of {GALLERY} videos of the model that ships are in {folder}")


def render(run: DiffusionRun, stages: Stages, short: bool) -> None:
    """The world that both models learn from."""
    data = run.data
    size = {"num_frames": data.num_frames, "fps": data.fps, "height": data.height, "width": data.width}
    many = {"num_clips": 48, "num_images": 8} if short else {"num_clips": NUM_CLIPS, "num_images": NUM_IMAGES}
    with bar("rendering", "files") as progress:

        def both(done: int, total: int) -> None:
            progress(done, total)
            stages.progress(done / total)

        before = render_world(WorldConfig(kind="bounce", **many, **size), data.folder, both)
    if before:
        say(f"{data.folder}: {before} of them were there already")


def measure(model: Path, run: DiffusionRun, count: int, stages: Stages) -> dict[str, Any]:
    """All figures of the report."""
    vae = model / "vae"
    figures: dict[str, Any] = {"vae": evaluate_vae(vae, run.data, count)}
    figures["floors"] = motion_floors(vae, run.data, count)
    stages.progress(0.2)
    figures["motion"] = evaluate_motion(
        model, count, any_world=True
    )  # of the demo's world, even where it does not say so
    stages.progress(0.6)
    figures["held_out"] = evaluate_motion(model, count // 2, split="held_out", any_world=True)
    stages.progress(0.9)
    figures["seconds_per_clip"] = time_sampling(model)
    return figures


def time_sampling(model: Path) -> float:
    """Seconds for one clip, best of three, after one to warm up."""
    pipeline = VideoPipeline.from_pretrained(model, pick_device("auto"))
    times = []
    for seed in range(4):
        start = time.perf_counter()
        pipeline("a red circle, fast", seed=seed)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def galleries(pipeline: VideoPipeline, run: DiffusionRun, folder: Path, stages: Stages) -> None:
    """Videos from text, from an image, from a video, and a longer one, with their contact sheets; each kind as it is made."""
    captions = random_captions(GALLERY, seed=CAPTIONS_SEED)
    fps, frames = run.data.fps, pipeline.config.clip.num_frames
    gallery(folder, "text", list(pipeline.generate(captions, seeds=list(range(GALLERY)))), captions, fps)
    stages.progress(0.3)
    clips = Clips(run.data, "validation")
    given = [clips[i] for i in spread(clips.buckets, GALLERY)][: GALLERY // 2]
    names = [clip.caption for clip in given]
    gallery(folder, "image", [pipeline(c.caption, image=c.video[0], seed=i) for i, c in enumerate(given)], names, fps)
    stages.progress(0.5)
    half = 1 + (frames - 1) // 2
    continued = [
        pipeline(c.caption, video=c.video[:half], num_frames=2 * frames - 1, seed=i) for i, c in enumerate(given)
    ]
    gallery(folder, "video", continued, names, fps)
    stages.progress(0.7)
    long = [pipeline(c, num_frames=3 * (frames - 1) + 1, seed=i) for i, c in enumerate(captions[:4])]
    gallery(folder, "long", long, captions[:4], fps)


def gallery(folder: Path, name: str, made: list[np.ndarray], captions: list[str], fps: float) -> None:
    """Each video, enlarged, as NAME_0.mp4 ..., and all as a picture."""
    for index, (video, caption) in enumerate(zip(made, captions)):
        save_video(folder / f"{name}_{index}.mp4", video, caption, index, fps)
    Image.fromarray(contact_sheet(made, scale=3)).save(folder / f"{name}.png")


def save_video(path: Path, video: np.ndarray, caption: str, seed: int, fps: float) -> None:
    write_video(path, report.enlarged(video), fps, metadata={"prompt": caption, "seed": str(seed)})
