"""A public model that makes clips as a whole becomes one that streams: block-causal fine-tuning, from end to end.

    python -m benchmarks.conversion --output runs/conversion

A small model is trained with diffusers' classes on the world `bounce` (`public_bounce.py`), comes in through `from_pretrained`, and
is converted: `train diffusion` with `init` and `modes.teacher_forcing`. The table has the same figures before and after. What is
made already in OUTPUT is taken from there.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from benchmarks.measure import machine
from benchmarks.tables import Table, write
from video_gen.command_line import read
from video_gen.config import Config
from video_gen.data.clips import Clips, to_video
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import exit_code
from video_gen.evaluation.physics import measure_video, summarise
from video_gen.evaluation.reconstruction import psnr
from video_gen.model.text import CachedTextEncoder
from video_gen.model.wan.transformer import WanTransformer
from video_gen.progress import bar
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_diffusion
from video_gen.training.caches import encode_latents, encode_texts
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.public import with_init
from video_gen.training.recipes import DiffusionRun, ModeConfig

SIZE: dict[str, Any] = dict(num_frames=17, height=32, width=32)
GIVEN = 9
"""Frames of a held-out clip that are given; the others are made, and compared."""
BLOCK = 2
"""Latent frames made at once when the model goes on from others."""
COLUMNS = (
    "model", "loss, whole clips", "loss, block after block", "PSNR of what follows, dB", "objects there, from a picture",
    "objects there, stream's end",
)  # fmt: skip
EQUAL = (
    "*Loss* is that of held-out clips, denoised as a whole, and block after block with clean history, on the same noise. *PSNR* "
    f"is of the last {SIZE['num_frames'] - GIVEN} frames of held-out clips against the truth, the first {GIVEN} being given. "
    "*Objects there* is the share of frames in which all objects are found that the caption tells of: in clips that begin with a "
    "true frame, and in the last 17 frames of streams that do. *stands still* repeats the last frame given; *true clips, decoded* "
    "are the VAE's reconstructions, above which no model here gets."
)


class Settings(Config):
    """Convert a small public model into a stream."""

    output: Path = Path("runs/conversion")
    num_clips: int = 600
    vae_steps: int = 500
    train_steps: int = 800
    """Of the public model."""
    convert_steps: int = 300
    """Of its conversion."""
    batch_size: int = 16
    videos: int = 24
    """Held-out clips that are gone on from."""
    stream_frames: int = 49
    num_steps: int = 12
    """Solver steps."""


def main(settings: Settings) -> None:
    data = ClipConfig(folder=settings.output / "data", validation_fraction=0.15, **SIZE)
    with bar("rendering", "clips") as progress:
        render_world(WorldConfig(num_clips=settings.num_clips, **SIZE), data.folder, progress)
    public, converted = settings.output / "public", settings.output / "run"
    if not (public / "model_index.json").is_file():
        from benchmarks import public_bounce

        clips = Clips(data, "train")
        steps = (settings.vae_steps, settings.train_steps, settings.batch_size)
        loss = public_bounce.make(clips, public, *steps)
        print(f"the public model's training loss, last tenth: {loss:.4f}", flush=True)
    print(f"what came in differs from diffusers' class by {parity(public):.1e} of its output", flush=True)
    run = recipe(settings, data, public)
    started = time.monotonic()
    train_diffusion(run, converted)
    print(f"converted, or found converted, after {time.monotonic() - started:.0f} s", flush=True)
    table = Table("conversion", "A public model becomes a stream", COLUMNS, EQUAL)
    held_out = Clips(data, "validation")
    table.rows += floors(public, held_out, settings)
    for name, folder in (("before", public), ("after", converted / "model")):
        table.rows.append({"model": name} | figures(run, folder, held_out, settings))
    same, kept = streams_alike(converted / "model", held_out.captions[0], settings)
    table.findings += [
        f"{settings.convert_steps} steps of {settings.batch_size} clips",
        f"the stream with its history cache {'equals' if same else 'DIFFERS FROM'} the video of as many blocks, bit for bit",
        f"its history holds {kept} latent frames at most",
    ]
    print(table.markdown())
    write(settings.output, [table], machine(torch.device("cpu")), None, "python -m benchmarks.conversion")


def recipe(settings: Settings, data: ClipConfig, public: Path) -> DiffusionRun:
    """The conversion: most steps block after block with clean history, the others as the model was trained."""
    return DiffusionRun(
        init=public,
        data=data,
        latents=settings.output / "latents",
        modes=ModeConfig(teacher_forcing=0.8, block_sizes=(1, 2, 2), noisy_history=0.5, history_noise=0.3),
        sampling=SamplingConfig(
            guidance_scale=1.0, num_steps=settings.num_steps, negative_prompt="", long_block_frames=BLOCK
        ),
        loop=LoopConfig(
            train_steps=settings.convert_steps,
            batch_size=settings.batch_size,
            ema_decay=0.98,
            validate_every=100,
            sample_every=0,
            compile="off",
            precision="float32",
            device="cpu",
            keep="last",
        ),
        optim=OptimConfig(learning_rate=7e-4, schedule="cosine", warmup_steps=20),
    )


@torch.no_grad()
def parity(public: Path) -> float:
    """Largest difference of what our network and diffusers' make of the same, relative to its size."""
    pipe = VideoPipeline.from_pretrained(public)
    theirs = WanTransformer3DModel.from_pretrained(public / "transformer").eval()
    shape = pipe.vae.latent_shape(*(SIZE[name] for name in ("num_frames", "height", "width")))
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3, 0.8])
    tokens, visible = pipe.text(pipe.text.tokenise(["a red circle, fast", "two blue squares, slow"]))
    padded = torch.zeros(2, pipe.transformer.config.text_len, tokens.shape[2])
    padded[:, : tokens.shape[1]] = tokens * visible[..., None]
    wanted = theirs(latents, 1000 * t, padded, return_dict=False)[0]
    return float((pipe.transformer(latents, t, tokens, visible) - wanted).abs().max() / wanted.abs().max())


def opened(folder: Path) -> VideoPipeline:
    """The model, which makes clips of this size unless told otherwise."""
    pipe = VideoPipeline.from_pretrained(folder)
    pipe.config = pipe.config.replace(clip=ClipSettings(**SIZE, fps=pipe.config.clip.fps))
    return pipe


def figures(run: DiffusionRun, folder: Path, clips: Clips, settings: Settings) -> dict[str, Any]:
    pipe = opened(folder)
    losses = held_out_losses(run.model_copy(update={"init": folder}), pipe)
    followed, began, streamed = [], [], []
    options: dict[str, Any] = dict(num_steps=settings.num_steps, guidance_scale=1.0, negative_prompt="")
    with bar(folder.parent.name, "videos") as progress:
        for i in range(min(settings.videos, len(clips))):
            clip, caption = clips[i].video, clips.captions[i]
            more = pipe(caption, seed=i, video=clip[:GIVEN], num_frames=len(clip), block_frames=BLOCK, **options)
            followed.append((more[GIVEN:], clip[GIVEN:]))
            long = pipe(
                caption, seed=i, image=clip[0], num_frames=settings.stream_frames, block_frames=BLOCK, **options
            )
            began.append(measure_video(long[: len(clip)], caption))
            streamed.append(measure_video(long[-len(clip) :], caption))
            progress(i + 1, settings.videos)
    return {
        COLUMNS[1]: losses["loss_whole"],
        COLUMNS[2]: losses["loss_causal"],
        COLUMNS[3]: alike(followed),
        COLUMNS[4]: summarise(began)["objects_present"],
        COLUMNS[5]: summarise(streamed)["objects_present"],
    }


def held_out_losses(run: DiffusionRun, pipe: VideoPipeline) -> dict[str, float]:
    """Of whole clips over all bands of diffusion time, and block after block."""
    run = with_init(run, lambda text: None)
    train, validation = encode_latents(run)
    captions = {text for entry in (*train.entries, *validation.entries) for text in entry.texts}
    assert isinstance(pipe.transformer, WanTransformer)
    text = CachedTextEncoder(run.text, encode_texts(run, captions))
    with torch.no_grad():
        found = DiffusionTask(run, pipe.transformer, text, pipe.vae, train, validation).validate(0)
    whole = [value for name, value in found.items() if name.startswith("loss_t")]
    return {"loss_whole": float(np.mean(whole)), "loss_causal": found["loss_causal"]}


def floors(public: Path, clips: Clips, settings: Settings) -> list[dict[str, Any]]:
    """What says nothing of motion, and what no model surpasses."""
    pipe, still, decoded, found = opened(public), [], [], []
    for i in range(min(settings.videos, len(clips))):
        clip = clips[i].video
        still.append((np.repeat(clip[GIVEN - 1 : GIVEN], len(clip) - GIVEN, axis=0), clip[GIVEN:]))
        with pipe.inference():
            made = pipe.decode(pipe.encode(clip[None]), None)[0][0]
        decoded.append((made[GIVEN:], clip[GIVEN:]))
        found.append(measure_video(made, clips.captions[i]))
    return [
        {"model": "stands still", COLUMNS[3]: alike(still)},
        {
            "model": "true clips, decoded",
            COLUMNS[3]: alike(decoded),
            COLUMNS[4]: summarise(found)["objects_present"],
        },
    ]


def alike(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean PSNR in dB of made frames against true ones, uint8 (f, h, w, 3)."""
    made, true = (to_video(torch.from_numpy(np.stack(part))) for part in zip(*pairs))
    return float(psnr(made, true).mean())


def streams_alike(folder: Path, caption: str, settings: Settings) -> tuple[bool, int]:
    """Whether blocks of a stream are those of the video, and how many latent frames its history has at the end."""
    pipe = opened(folder)
    options: dict[str, Any] = dict(num_steps=settings.num_steps, guidance_scale=1.0, negative_prompt="")
    blocks = 1 + (pipe.latent_frames(settings.stream_frames) - 1) // BLOCK
    with pipe.stream(caption, seed=1, block_frames=BLOCK, **options) as stream:
        parts = [next(stream) for _ in range(blocks)]
        kept = stream.state().rollout.history.frames
    made = np.concatenate(parts)
    video = pipe(caption, seed=1, num_frames=len(made), block_frames=BLOCK, **options)
    return bool(np.array_equal(made, video)), kept


if __name__ == "__main__":
    sys.exit(exit_code("conversion", lambda: main(read(Settings, sys.argv[1:], "conversion"))))
