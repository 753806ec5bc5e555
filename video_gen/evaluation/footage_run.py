"""One measurement of footage: which clips, what a model makes of them, and the sets that fill on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from video_gen.data import flow
from video_gen.data.clips import Clips, spread
from video_gen.data.config import ClipConfig
from video_gen.errors import DataError, ShapeError
from video_gen.evaluation.distances import Kind, two_halves
from video_gen.evaluation.drift import reconstruct
from video_gen.evaluation.footage import OTHER, REFERENCE, Measures, VideoSet, distances_of, gains
from video_gen.evaluation.vbench import VBenchFolder
from video_gen.files import read_lines
from video_gen.progress import bar
from video_gen.sampling.parts import VAE
from video_gen.sampling.pipeline import VideoPipeline

What = Literal["vae", "continuation", "generation"]
BATCH = 8


@dataclass(frozen=True)
class Chosen:
    """The clips that are measured."""

    clips: Clips
    indices: list[int]
    files: list[str]
    """Of each."""
    sides: list[str]
    """Of each, `REFERENCE` or `OTHER`: halves that share no file."""

    @classmethod
    def of(cls, clips: Clips, count: int) -> "Chosen":
        indices = spread(clips.buckets, count)
        files = [clips.name(i) for i in indices]
        other = set(two_halves(files)[1])
        return cls(clips, indices, files, [OTHER if i in other else REFERENCE for i in range(len(files))])

    def batch(self, start: int) -> tuple[np.ndarray, list[str], list[str], list[str]]:
        """Videos, files, sides and captions of the next few."""
        some = slice(start, start + BATCH)
        videos = np.stack([self.clips[i].video for i in self.indices[some]])
        return videos, self.files[some], self.sides[some], [self.clips.captions[i] for i in self.indices[some]]

    def __len__(self) -> int:
        return len(self.indices)


def given_frames(given: int | None, data: ClipConfig, vae: VAE | None) -> int:
    """Frames that a continuation goes on from; None = about half of the clip.

    Raises: ShapeError if latents take no so many, or none are left to make.
    """
    assert vae is not None
    stride = vae.config.temporal_stride
    half = 1 + max(0, (data.num_frames // 2 - 1 + stride // 2) // stride) * stride
    frames = half if given is None else given
    if (frames - 1) % stride:
        low = 1 + (frames - 1) // stride * stride
        raise ShapeError(
            f"given is {frames}: a latent frame of this model stands for {stride} pixel frames and the first for one, so it goes "
            f"on from 1 + a multiple of {stride}; nearest are {low} and {low + stride}"
        )
    if frames >= data.num_frames:
        raise ShapeError(
            f"given is {frames}, and a clip has {data.num_frames} frames; give fewer, or a larger --num-frames"
        )
    return frames


class Run:
    """The sets of one measurement, as they fill."""

    def __init__(
        self,
        measures: Measures,
        chosen: Chosen,
        data: ClipConfig,
        pipeline: VideoPipeline | None,
        vae: VAE | None,
        parts: Sequence[What],
        seed: int,
        settings: dict[str, Any],
    ):
        self.measures, self.chosen, self.data, self.pipeline, self.vae = measures, chosen, data, pipeline, vae
        self.parts, self.seed, self.settings = parts, seed, settings
        self.sets: dict[str, dict[str, VideoSet]] = {"clips": {"true": VideoSet()}}
        self.captions: dict[str, list[str]] = {}
        self.given, self.samples = 0, 1
        self.notes: list[str] = []

    # -------------------- a folder

    def measure_folder(self, others: Chosen) -> None:
        made = self.sets["clips"].setdefault("made", VideoSet())
        for side, chosen, one in (("real", self.chosen, self.sets["clips"]["true"]), ("made", others, made)):
            with bar(f"measuring {side}", "clips") as progress:
                for start in range(0, len(chosen), BATCH):
                    videos, files, sides, captions = chosen.batch(start)
                    one.add(videos, files, self.measures, sides=sides if side == "real" else [OTHER] * len(files))
                    self.captions.setdefault("clips", []).extend(captions)
                    progress(min(start + BATCH, len(chosen)), len(chosen))

    # -------------------- a model or a VAE

    def measure_model(
        self, given: int | None, samples: int, prompts: Path | None, repeats: int, folder: Path | None
    ) -> None:
        texts, files = self._prompts(prompts)
        writer = VBenchFolder(folder) if folder and "generation" in self.parts else None
        if "continuation" in self.parts:
            self.given, self.samples = given_frames(given, self.data, self.vae), samples
        with bar("measuring", "clips") as progress:
            for start in range(0, len(self.chosen), BATCH):
                self._clips(start)
                progress(min(start + BATCH, len(self.chosen)), len(self.chosen))
        if "generation" in self.parts:
            jobs = [(text, file) for text, file in zip(texts, files) for _ in range(repeats)]
            self._generate(jobs, writer)
            note = writer.close() if writer else None
            self.notes += [note] if note else []

    def _clips(self, start: int) -> None:
        """Measure a batch of clips, what the VAE makes of them, and their continuations."""
        videos, files, sides, captions = self.chosen.batch(start)
        others = [side if side == OTHER else None for side in sides]
        assert self.vae is not None
        rebuilt, _ = reconstruct(videos, self.vae)
        clips = self.sets["clips"]
        clips["true"].add(videos, files, self.measures, sides=sides)
        clips.setdefault("vae", VideoSet()).add(rebuilt, files, self.measures, true=videos, sides=others)
        self.captions.setdefault("clips", []).extend(captions)
        if "continuation" not in self.parts:
            return
        g, rest = self.given, videos.shape[1] - self.given
        begun = videos[:, :g]
        made = self._continue(videos, captions, start)  # (b, samples, f, h, w, 3)
        sets: dict[str, np.ndarray] = {"true": videos, "vae": rebuilt}
        sets["last"] = np.concatenate([begun, np.repeat(begun[:, -1:], rest, axis=1)], axis=1)
        sets["flow"] = np.stack([np.concatenate([clip, flow.extrapolate(clip, rest)]) for clip in begun])
        if self.samples > 1:
            sets["mean"] = made.mean(1).round().astype(np.uint8)
        part = self.sets.setdefault("continuation", {"made": VideoSet()})
        for name, shown in sets.items():
            wanted = others if name in ("last", "flow") else ()
            true = None if name == "true" else videos
            part.setdefault(name, VideoSet()).add(shown, files, self.measures, true=true, given=g, sides=wanted)
        flat, repeated = made.reshape(-1, *made.shape[2:]), np.repeat(videos, self.samples, axis=0)
        wanted = [side if not k else None for side in others for k in range(self.samples)]
        names = [file for file in files for _ in range(self.samples)]
        part["made"].add(flat, names, self.measures, true=repeated, given=g, sides=wanted, samples=self.samples)
        self.captions.setdefault("continuation", []).extend(captions)

    def _continue(self, videos: np.ndarray, captions: list[str], start: int) -> np.ndarray:
        assert self.pipeline is not None
        made = []
        for i, (video, caption) in enumerate(zip(videos, captions)):
            seeds = [self.seed + (start + i) * self.samples + k for k in range(self.samples)]
            options: dict[str, Any] = {"num_frames": len(video), "video": video[: self.given], **self.settings}
            made.append(self.pipeline.generate([caption] * self.samples, seeds=seeds, **options))
        return np.stack(made)

    def _generate(self, jobs: list[tuple[str, str]], writer: VBenchFolder | None) -> None:
        assert self.pipeline is not None
        one = self.sets.setdefault("generation", {}).setdefault("made", VideoSet())
        with bar("generating", "videos") as progress:
            for start in range(0, len(jobs), BATCH):
                texts, files = map(list, zip(*jobs[start : start + BATCH]))
                seeds = [self.seed + start + i for i in range(len(texts))]
                videos = self.pipeline.generate(texts, seeds=seeds, num_frames=self.data.num_frames, **self.settings)
                one.add(videos, files, self.measures, sides=[OTHER] * len(texts))
                self.captions.setdefault("generation", []).extend(texts)
                for video, text, number in zip(videos, texts, seeds):
                    if writer:
                        writer.add(video, text, self.data.fps, number)
                progress(min(start + BATCH, len(jobs)), len(jobs))

    def _prompts(self, file: Path | None) -> tuple[list[str], list[str]]:
        """Captions for generation, and what each belongs to; those of the other half of the clips unless told."""
        if "generation" not in self.parts or self.pipeline is None:
            return [], []
        if file is not None:
            texts = [line for line in map(str.strip, read_lines(file)) if line]
            if not texts:
                raise DataError(f"{file}: holds no caption; write one a line")
            files = texts
        else:
            chosen = self.chosen
            places = [i for i, side in enumerate(chosen.sides) if side == OTHER] or list(range(len(chosen)))
            texts = [chosen.clips.captions[chosen.indices[i]] for i in places]
            files = [chosen.files[i] for i in places]
            if not any(texts):
                self.notes.append("the clips have no captions: what is generated is asked for by none")
        self.pipeline.text.tokenise(texts)  # too long a text is told before the work
        return texts, files

    # -------------------- what came out

    def found(self, distances: Sequence[Kind]) -> dict[str, Any]:
        clips = self.sets["clips"]
        parts: dict[str, Any] = {
            part: {"figures": {name: one.estimates() for name, one in sets.items()}} for part, sets in self.sets.items()
        }
        more = {name: clips[name] for name in ("vae", "made") if name in clips}
        if "continuation" in self.sets:
            sets = self.sets["continuation"]
            parts["continuation"] |= {
                "given": self.given,
                "at": {
                    name: {key: one.frames(name) for key, one in sets.items() if name in one.by_frame}
                    for name in sets["made"].by_frame
                },
                "gains": {
                    key: gains(sets["made"], sets[key], self.samples) for key in sets if key not in ("made", "true")
                },
            }
            more |= {f"continuation: {key}": sets[key] for key in ("made", "last", "flow")}
        if "generation" in self.sets:
            more["generation"] = self.sets["generation"]["made"]
            parts["generation"]["figures"]["true"] = parts["clips"]["figures"]["true"]
        return {
            "parts": parts,
            "distances": distances_of(clips["true"], more, self.measures, distances),
            "protocol": self.protocol(),
            "notes": self.notes,
        }

    def protocol(self) -> dict[str, Any]:
        """What one must know to measure the same again, but for the clips' own."""
        sides = self.chosen.sides
        told: dict[str, Any] = {
            "count": f"{len(self.chosen)} clips of {len(set(self.chosen.files))} files",
            "halves": f"{sides.count(REFERENCE)} clips as reference, {sides.count(OTHER)} of other files beside them",
            "lpips": self.measures.lpips.about,
            "features": {features.name: features.protocol for features in self.measures.features},
            "consistency": {one.name: f"{one.kind}, weights {one.weights}" for one in self.measures.looks},
        }
        if self.pipeline is not None:
            settings = {name: value for name, value in self.settings.items() if name != "block_frames"}
            sampling = self.pipeline.config.sampling.replace(**settings)
            told |= {"model": self.pipeline.origin, "seed": self.seed, "sampling": sampling.model_dump()}
            told["samples"] = self.samples
        return told
