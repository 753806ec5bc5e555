"""Piles of footage: how fast they are prepared, and what a data set of 100,000 files costs to check, to compare and to start from.

    python -m benchmarks.piles film
    python -m benchmarks.piles film --footage my-films
    python -m benchmarks.piles many

`film` prepares films of 720p that are drawn here, or those of a folder, in one process and in two, at several sizes. `many` draws
100,000 small clips, prepares them, and does what `data check` and training do at their start. Each is a process of its own: time is
that of the clock and, beside it, of the CPUs, since others may use the machine; memory is the peak of the largest process.
"""

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import machine
from benchmarks.tables import Table, write
from video_gen.data.batches import BatchSampler
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.duplicates import near_duplicates
from video_gen.data.folder import media_files
from video_gen.data.manifest import MANIFEST, read_manifest
from video_gen.data.prepare.facts import load
from video_gen.data.prepare.preparing import facts_file
from video_gen.data.video_file import every_frame, probe
from video_gen.data.video_info import VideoInfo
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError, exit_code

FILMS = 6
FPS, HEIGHT, WIDTH = 24, 720, 1280
SHOTS, SHOT_SECONDS = 6, 5
SIDES = (128, 256, None)
"""Short sides that films are prepared at; None = as they are."""
SMALL, SMALL_FRAMES, SMALL_FPS = 32, 9, 8
FOLDER = 1000
"""Files of a folder of the pile of small ones."""
BATCH = 16
PR_SET_CHILD_SUBREAPER = 36

# -------------------- what is drawn


def noise(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """(height, width) of mean 0 and variance 1, that goes on at its borders; amplitudes fall with frequency as those of natural
    pictures do."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(height) * height, np.fft.rfftfreq(width) * width, indexing="ij"))
    frequency[0, 0] = 1
    made = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency**slope, s=(height, width))
    return (made - made.mean()) / made.std()


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8."""
    light = noise(rng, height, width, 1.15)
    colours = [light + 0.5 * noise(rng, height, width, 1.5), light, light + 0.5 * noise(rng, height, width, 1.5)]
    return (np.stack(colours, -1) * 42 + rng.uniform(90, 160, 3)).clip(0, 255).astype(np.uint8)


def shot(rng: np.random.Generator, frames: int) -> Iterator[np.ndarray]:
    """A disc that goes its way before a ground along which the camera moves, with the grain of a film."""
    ground, disc = texture(rng, 1024, 2048), texture(rng, 320, 320)
    y, x = np.mgrid[:320, :320] - 160
    inside = (x**2 + y**2 < 150**2)[..., None]
    speed = rng.uniform(-3, 3, 2)
    for i in range(frames):
        across, down = (round(float(v) * i) for v in speed)
        frame = np.roll(ground, (down, across), (0, 1))[:HEIGHT, :WIDTH]
        left, top = int(480 + 300 * np.sin(i / 20)), int(200 + 150 * np.cos(i / 27))
        part = frame[top : top + 320, left : left + 320]
        part[:] = np.where(inside, disc, part)
        yield (frame + rng.integers(-3, 4, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)


def draw_film(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [frame for _ in range(SHOTS) for frame in shot(rng, SHOT_SECONDS * FPS)]
    write_video(path, np.stack(frames), FPS, crf=23, preset="medium")


def draw_small(place: tuple[Path, int]) -> None:
    """A clip that differs from all others: a camera over a ground of its own."""
    folder, number = place
    path = folder / f"{number // FOLDER:03d}" / f"{number:06d}.mp4"
    if path.exists():
        return
    rng = np.random.default_rng(number)
    ground = Image.fromarray(texture(rng, 24, 24)).resize((2 * SMALL, 2 * SMALL), Image.Resampling.BICUBIC)
    wide, step = np.asarray(ground), rng.integers(1, 4, 2)
    frames = [np.roll(wide, tuple(i * step), (0, 1))[:SMALL, :SMALL] for i in range(SMALL_FRAMES)]
    write_video(path, np.stack(frames), SMALL_FPS, crf=23, preset="ultrafast")
    path.with_suffix(".txt").write_text(f"ground number {number}")


def draw_films(folder: Path) -> None:
    missing = [n for n in range(FILMS) if not (folder / f"{n}.mp4").exists()]
    with Pool() as pool:
        pool.starmap(draw_film, [(folder / f"{number}.mp4", number) for number in missing], chunksize=1)


def draw_many(folder: Path, count: int) -> None:
    places = [(folder, number) for number in range(count)]
    with Pool() as pool:
        for done, _ in enumerate(pool.imap_unordered(draw_small, places, chunksize=100), 1):
            if done % 10_000 == 0:
                print(f"drawn: {done:,}", flush=True)


# -------------------- what is measured


@dataclass(frozen=True)
class Cost:
    """Of a process and those that it started."""

    seconds: float
    """By the clock."""
    cpu: float
    """Seconds of all cores."""
    mebibytes: float
    """The most that one of them had in memory."""

    def row(self, what: str) -> dict[str, object]:
        return {"what": what, "s": self.seconds, "s of CPU": self.cpu, "peak MiB": self.mebibytes}


def cost_of(words: Sequence[str]) -> Cost:
    """Of a command of `video-gen`, or of this file. Raises: DataError if it fails."""
    module = "benchmarks.piles" if words[0] == "start" else "video_gen.cli"
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read().decode("utf-8", "replace")
    _, status, used = os.wait4(process.pid, 0)
    seconds, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise DataError(f"`video-gen {' '.join(words)}` failed: {said.strip()[-400:]}")
    every = [used, *_left_behind()]
    cpu = sum(each.ru_utime + each.ru_stime for each in every)
    return Cost(seconds, cpu, max(each.ru_maxrss for each in every) / 1024)


def _left_behind() -> Iterator[resource.struct_rusage]:
    """Use of processes whose own parent has ended without waiting for them, as those do that workers are forked from."""
    while True:
        try:
            yield os.wait4(-1, 0)[2]
        except ChildProcessError:
            return


def adopt() -> None:
    """From now on such processes become children of this one, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def film_table(pile: Path, work: Path, sides: Sequence[int | None], repeats: int) -> Table:
    """How many seconds of footage are prepared in a second, at best."""
    infos = {path: probe(path) for path in media_files(pile)}
    seconds = sum(info.duration for info in infos.values())
    sizes = ", ".join(sorted({f"{info.width}x{info.height} {info.codec}" for info in infos.values()}))
    rates = [path.stat().st_size * 8e-6 / info.duration for path, info in infos.items() if info.duration]
    table = Table(
        "prepare",
        "Preparing films",
        ("short side", "processes", "s", "s of CPU", "x real time", "x per core", "clips", "MB", "peak MiB"),
        f"`video-gen data prepare` of {len(infos)} files, {seconds:.0f} s, {sizes}, {np.mean(rates):.1f} Mbit/s on average, "
        f"without captions, from the start of the command to its end, best of {repeats}. `x per core`: seconds of footage in a "
        "second of CPU.",
    )
    decoding = {count: seconds / decode_all(infos, count) for count in (1, 2)}
    for side in sides:
        for workers in (1, 2):
            output = work / f"prepared-{side}-{workers}"
            words = ["data", "prepare", str(pile), str(output), "--workers", str(workers)]
            costs = []
            for _ in range(repeats):
                shutil.rmtree(output, ignore_errors=True)
                costs.append(cost_of([*words, "--short-side", str(side)] if side else words))
            cost = min(costs, key=lambda cost: cost.seconds)
            kept = [row for row in read_manifest(output / MANIFEST) if not row.refused]
            row = {"short side": side or "as it is", "processes": workers} | cost.row("")
            row |= {"x real time": seconds / cost.seconds, "x per core": seconds / cost.cpu}
            table.rows.append(row | {"clips": len(kept), "MB": sum(row.size for row in kept) / 1e6})
            shutil.rmtree(output)
        one, two = table.rows[-2:]
        table.findings.append(f"short side {one['short side']}: two processes are {one['s'] / two['s']:.2f} times one")
    one, two = decoding.values()
    table.findings.append(
        f"to decode alone is {one:.1f} times real time in one process, {two:.1f} in two ({two / one:.2f} times one)"
    )
    return table


def decode_all(infos: dict[Path, VideoInfo], processes: int) -> float:
    """Seconds that it takes to decode all files, and no more: what preparing cannot be faster than."""
    with Pool(processes) as pool:
        pool.map(decode, list(infos.items())[:processes], chunksize=1)  # all have started
        start = time.perf_counter()
        pool.map(decode, infos.items(), chunksize=1)
        return time.perf_counter() - start


def decode(file: tuple[Path, VideoInfo]) -> None:
    for _ in every_frame(*file):
        pass


def many_table(pile: Path, work: Path, count: int) -> Table:
    """What a data set of many files costs."""
    table = Table(
        "many",
        f"{count:,} files",
        ("what", "s", "s of CPU", "peak MiB"),
        f"Clips of {SMALL}x{SMALL}, {SMALL_FRAMES} frames, each of its own ground, with captions beside them, prepared into "
        "shards. Each row is a command from its start to its end, but for near-duplicates, which are part of preparing.",
    )
    start, cpu = time.perf_counter(), os.times()
    draw_many(pile, count)
    table.rows.append({"what": "drawing them", "s": time.perf_counter() - start})
    output = work / "many-prepared"
    shutil.rmtree(output, ignore_errors=True)
    prepared = ["data", "prepare", str(pile), str(output), "--format", "shards"]
    sizes = ["--num-frames", str(SMALL_FRAMES), "--fps", str(SMALL_FPS), "--height", str(SMALL), "--width", str(SMALL)]
    for what, words in (
        ("data prepare", prepared),
        ("data prepare once more, nothing new", prepared),
        ("data check", ["data", "check", str(output), *sizes]),
        ("training, up to its first batch", ["start", str(output)]),
    ):
        table.rows.append(cost_of(words).row(what))
        print(table.rows[-1], flush=True)
    rows = read_manifest(output / MANIFEST)
    facts = (load(facts_file(output, row.source)) for row in rows)
    pictures = [each.samples["small"][:4] for each in facts if each is not None]
    start, cpu = time.perf_counter(), time.process_time()
    found = near_duplicates(pictures, [1.0] * len(pictures))
    spent = (time.perf_counter() - start, time.process_time() - cpu)
    table.rows.append({"what": "near-duplicates alone", "s": spent[0], "s of CPU": spent[1]})
    kept = sum(not row.refused for row in rows)
    table.findings.append(f"{kept:,} are kept; {len(found):,} are like another one")
    return table


def start_training(folder: Path) -> None:
    """What training does before its first step, but for the model."""
    config = ClipConfig(folder=folder, num_frames=SMALL_FRAMES, fps=SMALL_FPS, height=SMALL, width=SMALL)
    clips = Clips(config)
    train, held_out = clips.only("train", 1 << 30), clips.only("validation", 1 << 27)
    sampler = BatchSampler(train.buckets, BATCH, 0)
    videos = np.stack([train[i].video for i in sampler.indices(0)])
    print(f"{len(train):,} clips to train on, {len(held_out):,} held out, a batch of {videos.shape}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("film", "many", "start"))
    parser.add_argument("folder", type=Path, nargs="?", help="of `start`: the data set")
    parser.add_argument("--footage", type=Path, help="of `film`: a folder of videos in place of those drawn here")
    parser.add_argument(
        "--sides", type=int, nargs="+", help="of `film`: short sides to prepare at; default 128, 256, all"
    )
    parser.add_argument("--repeats", type=int, default=1, help="of `film`: how often; the fastest counts")
    parser.add_argument("--work", type=Path, default=Path("runs/piles"), help="a folder for what is drawn and prepared")
    parser.add_argument("--count", type=int, default=100_000, help="files of `many`")
    parser.add_argument("--output", type=Path, help="a folder for the table, as .md and .json")
    args = parser.parse_args()
    if args.what == "start":
        start_training(args.folder)
        return
    adopt()
    if args.what == "film":
        if args.footage is None:
            draw_films(args.work / "films")
        table = film_table(args.footage or args.work / "films", args.work, args.sides or SIDES, args.repeats)
    else:
        table = many_table(args.work / f"many-{args.count}", args.work, args.count)
    print(table.markdown())
    if args.output:
        command = f"python -m benchmarks.piles {args.what}" + (" --footage ..." if args.footage else "")
        write(args.output, [table], machine(torch.device("cpu")), None, command)


if __name__ == "__main__":
    sys.exit(exit_code("piles", main))
