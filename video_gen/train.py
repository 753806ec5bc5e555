"""Training, end to end: `train_vae`, `encode_latents`, `train_diffusion`. The command line calls these; so can you.

`python -m video_gen.train vae ...` is `video-gen train vae ...`: what torchrun starts, once per device.
"""

import copy
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from video_gen.arguments.train import TrainDiffusion, TrainDistill, TrainVAE
from video_gen.command_line import PROGRAM, Command, run_command
from video_gen.data.batches import BatchSampler
from video_gen.data.clips import Clips, spread, to_video
from video_gen.data.config import bucket_name
from video_gen.data.latents import LatentSet
from video_gen.errors import ConfigError, exit_code
from video_gen.model.pretrained import local_folder
from video_gen.model.text import CachedTextEncoder, build_text_encoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan.experts import Experts
from video_gen.sampling.parts import VAE, parts_of
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.caches import (
    action_sizes,
    check_captions,
    encode_latents,
    encode_texts,
    load_vae,
    load_vae_weights,
    load_weights,
    open_clips,
    pictures_of,
)
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.distill_task import ConsistencyTask
from video_gen.training.folder import open_run_folder, whole_folder
from video_gen.training.known_data import inherited, known_data, say_held_out, split_of
from video_gen.training.loop import train
from video_gen.training.lora_task import LoraTask
from video_gen.training.matching_task import MatchingTask
from video_gen.training.monitor import say
from video_gen.training.parallel import Mesh, pick_device, processes
from video_gen.training.public import (
    fill_student,
    is_public,
    new_transformer,
    public_transformer,
    with_init,
    with_public_teacher,
)
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun
from video_gen.training.vae_task import VAETask
from video_gen.training.warp_fit import fit_warp, warp_sizes

Resume = Literal["auto", "never"]
KEPT_BYTES = 1 << 30
"""Of decoded clips that the training of a VAE keeps in memory."""
LINEAR_CLIPS = 256
"""Clips on which the VAE's linear path is measured."""


def train_vae(run: VAERun, run_dir: Path, resume: Resume = "auto", profile: int = 0) -> dict[str, float]:
    """Train a VAE into `run_dir`, whose model/ holds vae/ at the end. Returns what `training.loop.train` returns."""
    with processes(run.parallel, run.loop) as mesh:
        torch.manual_seed(run.loop.seed)  # the initial weights, the one use of the global generator
        vae = new_vae(run)
        for size in run.data.sizes:
            vae.latent_shape(*size)  # refuses what does not fit, before a file is read
        clips = open_clips(run.data)
        train_clips, held_out = clips.only("train", KEPT_BYTES), clips.only("validation", KEPT_BYTES // 8)
        say_held_out(len(held_out), len(set(held_out.sources)), say)
        if isinstance(vae, VideoVAE) and run.init is None:
            vae.fit_linear_path(linear_clips(train_clips))
        elif isinstance(vae, VideoVAE):
            assert run.init is not None
            load_vae_weights(run, local_folder(run.init), vae)
        task = VAETask(run, vae, train_clips, held_out, mesh)
        return train(task, run.loop, run.optim, run_dir, run.to_yaml(), resume, profile, mesh)


def new_vae(run: VAERun) -> VAE:
    """A VAE of the run's sizes; or that of the public model that `init` names, with its weights.

    Raises: ConfigError if such a run says sizes of its own.
    """
    if run.init is None or not is_public(run.init):
        return VideoVAE(run.vae)
    if run.vae != VAEConfig():
        raise ConfigError(f"vae: the sizes of {run.init}'s VAE are its own; leave vae out")
    return parts_of(run.init).vae().float().requires_grad_(True)


def encode(run: DiffusionRun) -> None:
    """Fill the caches that training reads, for all stages, and say what is in them."""
    run = with_init(run, say)
    check_captions(run)
    for stage in with_split_of_vae(run).stage_runs():
        parts = encode_latents(stage)
        if stage.text.name:
            encode_texts(stage, {text for part in parts for entry in part.entries for text in entry.texts})
        for part, name in zip(parts, ("for training", "held out")):
            sizes = Counter(entry.bucket for entry in part.entries)
            counted = ", ".join(f"{clips:,} of {bucket_name(bucket)}" for bucket, clips in sorted(sizes.items()))
            say(f"{part.folder}: clips {name}: {counted}")


def train_diffusion(run: DiffusionRun, run_dir: Path, resume: Resume = "auto", profile: int = 0) -> dict[str, float]:
    """Train a transformer into `run_dir`, whose model/ is a whole pipeline at the end: in one go, or stage after stage.

    Raises: ConfigError if there is no VAE, or the model that `init` names does not fit; what `training.loop.train` raises.
    """
    with processes(run.parallel, run.loop) as mesh:
        run = with_split_of_vae(with_init(run, say), say if mesh.main else lambda text: None)
        if not run.stages:
            return _train_stage(run, run_dir, run.init, resume, profile, mesh)
        return _train_stages(run, run_dir, resume, profile, mesh)


def with_split_of_vae(run: DiffusionRun, say: Callable[[str], None] = say) -> DiffusionRun:
    """The run with the split that its VAE was trained with: what the one holds out the other must not train on."""
    known = known_data(run.vae)
    return (
        run
        if known is None
        else run.model_copy(update={"data": inherited(run.data, split_of(known), "the VAE's", say)})
    )


def _train_stages(run: DiffusionRun, run_dir: Path, resume: Resume, profile: int, mesh: Mesh) -> dict[str, float]:
    """Stage after stage, each from the weights of the one before."""
    if mesh.main:
        open_run_folder(run_dir, run.to_yaml(), resume)
    mesh.wait()
    stages, start, found = run.stage_runs(), run.init, {}
    for number, stage in enumerate(stages, 1):
        folder = run_dir / f"stage-{number}"
        if number < len(stages) and (folder / "model").is_dir():
            say(f"{folder}: finished already")
        else:
            say(f"stage {number} of {len(stages)}, in {folder}")
            found = _train_stage(stage, folder, start, "auto", profile, mesh)
        if run.lora.rank:
            stages[number:] = [
                s.model_copy(update={"lora": s.lora.replace(start=folder / "model")}) for s in stages[number:]
            ]
        else:
            start = folder / "model"
    if mesh.main:  # always: a last stage may have been prolonged
        with whole_folder(run_dir / "model") as new:
            shutil.copytree(run_dir / f"stage-{len(stages)}" / "model", new, dirs_exist_ok=True)
        say(f"all {len(stages)} stages are done; the model is in {run_dir / 'model'}")
    mesh.wait()
    return found


def _train_stage(
    run: DiffusionRun, run_dir: Path, start: Path | None, resume: Resume, profile: int, mesh: Mesh
) -> dict[str, float]:
    """Train from fresh weights, or from those of the model folder `start`."""
    if mesh.main:
        check_captions(run)
    with mesh.main_first():
        train_set, validation_set = encode_latents(run)
    say_held_out(len(validation_set), len({entry.clip_id.split("-")[0] for entry in validation_set.entries}), say)
    captions = {text for entry in (*train_set.entries, *validation_set.entries) for text in entry.texts}
    captions.add(run.sampling.negative_prompt)
    with mesh.main_first():
        read_text = encode_texts(run, captions) if run.text.name else None
    vae = load_vae(run)
    torch.manual_seed(run.loop.seed)
    text = CachedTextEncoder(run.text, read_text) if read_text else build_text_encoder(run.text)
    if start is not None and is_public(start):
        transformer = public_transformer(run, start)
    else:
        sizes = {"latent_channels": vae.config.latent_channels, "text_width": text.width}
        sizes["frame_noise"] = run.diffusion.draws > 1
        known = action_sizes(run, train_set, vae) | warp_sizes(run, vae.config)
        transformer = new_transformer(run.transformer.replace(**sizes, **known))
        if start is not None and isinstance(transformer, VideoTransformer):
            load_weights(run, local_folder(start), transformer, text)
        elif isinstance(transformer, VideoTransformer) and transformer.carry and transformer.carry.warp:
            fit_warp(transformer.carry.warp, vae.to(mesh.device), train_set)
    kind = LoraTask if run.lora.rank else DiffusionTask
    clips = [entry.clip_id for entry in (*train_set.entries, *validation_set.entries)]
    with mesh.main_first():
        pictures = pictures_of(run, clips, vae)
    task = kind(run, transformer, text, vae, train_set, validation_set, mesh, pictures)
    say_buckets(train_set, task.sampler)
    resolved = run.replace(transformer=transformer.config.model_dump())
    return train(task, run.loop, run.optim, run_dir, resolved.to_yaml(), resume, profile, mesh)


def say_buckets(latents: LatentSet, sampler: BatchSampler) -> None:
    """A line per bucket: its clips, how many make a step, and the step's work as a share of the largest bucket's."""
    counts = Counter(zip(latents.buckets, (entry.bucket for entry in latents.entries)))
    largest = next(sampler.step_work(bucket) for bucket in sampler.batch_sizes)
    for (bucket, pixels), clips in sorted(counts.items(), key=lambda item: -sampler.work(item[0][0])):
        share = sampler.step_work(bucket) / largest
        say(f"{bucket_name(pixels)}: {clips:,} clips, {sampler.batch_sizes[bucket]} a step, {share:.0%} of the work")


def train_distill(run: DistillRun, run_dir: Path, resume: Resume = "auto", profile: int = 0) -> dict[str, float]:
    """Distil a trained model into `run_dir`, whose model/ is a whole pipeline at the end, for few steps without guidance."""
    teacher = VideoPipeline.from_pretrained(run.teacher, pick_device(run.loop.device))
    run = with_public_teacher(run, teacher, say)
    known = known_data(run.vae)
    settings = teacher.config.clip.model_dump() | (split_of(known) if known else {})
    run = run.model_copy(update={"data": inherited(run.data, settings, "the teacher's", say)})
    student_run = run_of_student(run, teacher)
    taught = teacher.transformer
    assert not isinstance(taught, Experts)  # `with_public_teacher` refuses them
    student, text = copy.deepcopy(taught), copy.deepcopy(teacher.text)
    if run.init is not None and is_public(run.init):
        fill_student(student, student_run, run.init)
    elif run.init is not None and isinstance(student, VideoTransformer):
        load_weights(student_run, local_folder(run.init), student, text)
    sets = encode_latents(student_run)
    if text.config.name:  # frozen: read, and not computed in each step
        said = {text for part in sets for entry in part.entries for text in entry.texts}
        said |= {teacher.config.sampling.negative_prompt, run.sampling.negative_prompt}
        teacher.text = text = CachedTextEncoder(text.config, encode_texts(student_run, said))
    parts = (student_run, run.distill, teacher, student)
    if run.distill.method == "matching":
        critic = copy.deepcopy(taught)
        task = MatchingTask(*parts, critic, text, *sets)
    else:
        task = ConsistencyTask(*parts, text, *sets)
    return train(task, run.loop, run.optim, run_dir, run.to_yaml(), resume, profile)


def run_of_student(run: DistillRun, teacher: VideoPipeline) -> DiffusionRun:
    """The student's training as that of a transformer: what a `DistillTask` is told."""
    return DiffusionRun(
        data=run.data,
        init=run.teacher if is_public(run.teacher) else None,
        vae=run.teacher if is_public(run.teacher) else run.vae,
        latents=run.latents,
        transformer=teacher.transformer.config,
        text=teacher.text.config,
        diffusion=teacher.config.diffusion.replace(time_distribution="uniform", shift=1.0),
        modes=run.modes,
        sampling=run.sampling.replace(block_frames=run.sampling.block_frames or teacher.config.sampling.block_frames),
        num_samples=run.num_samples,
        loop=run.loop,
        optim=run.optim,
    )


def linear_clips(clips: Clips) -> torch.Tensor:
    """Clips to measure the linear path on, as one batch (b, c, f, h, w)."""
    return to_video(torch.from_numpy(np.stack([clips[i].video for i in spread(clips.buckets, LINEAR_CLIPS)])))


if __name__ == "__main__":
    COMMANDS = {
        ("train", "vae"): Command(TrainVAE, train_vae),
        ("train", "diffusion"): Command(TrainDiffusion, train_diffusion),
        ("train", "distill"): Command(TrainDistill, train_distill),
    }
    sys.exit(exit_code(PROGRAM, lambda: run_command(COMMANDS, ["train", *sys.argv[1:]])))
