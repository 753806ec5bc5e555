"""How prepared clips are coded: x264's settings by time, size, error and time to decode.

    python -m benchmarks.coding [--footage FOLDER]

Films of `benchmarks.piles`, or the videos of a folder, are scaled to a short side of 256 pixels and coded with a key frame every 16
frames. Times are those of one core's CPU, the least of three.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from av.video.frame import VideoFrame

from benchmarks.measure import machine
from benchmarks.piles import draw_films
from benchmarks.tables import Table, write
from video_gen.data.folder import media_files
from video_gen.data.prepare.coding import B_FRAMES, coded, smaller
from video_gen.data.video_file import every_frame, probe
from video_gen.data.video_writer import REPEATABLE, h264_stream
from video_gen.errors import exit_code

SIDE, FRAMES, RATE = 256, 96, Fraction(24)
SETTINGS = [("veryfast", "", crf) for crf in (18, 20)] + [("superfast", "", crf) for crf in (18, 20)]
SETTINGS += [("ultrafast", f"bframes={B_FRAMES}", crf) for crf in (18, 20, 22)]


def scaled(path: Path) -> list[VideoFrame]:
    info = probe(path)
    size = smaller(info.width, info.height, SIDE)
    width, height = (side // 2 * 2 for side in size)
    return [coded(timed.scaled(*size), (0, 0, width, height)) for timed in islice(every_frame(path, info), FRAMES)]


def encode(frames: list[VideoFrame], path: Path, preset: str, more: str, crf: int) -> None:
    options = {"crf": str(crf), "preset": preset, "x264-params": f"{REPEATABLE}:{more}".rstrip(":")}
    with av.open(str(path), "w") as made:
        first = frames[0]
        stream = h264_stream(made, first.height, first.width, RATE, options, int(first.colorspace))
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, 1 / RATE
            made.mux(stream.encode(frame))
        made.mux(stream.encode())


def decode(path: Path) -> list[np.ndarray]:
    """Brightness of each frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return [brightness(frame) for frame in container.decode(stream)]


def brightness(frame: VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width].astype(np.float32)


def least(job: Callable[[], object]) -> float:
    """Milliseconds of CPU."""
    found = []
    for _ in range(3):
        start = time.process_time()
        job()
        found.append(1e3 * (time.process_time() - start))
    return min(found)


def coding_table(paths: list[Path]) -> Table:
    table = Table(
        "coding",
        "Coding prepared clips",
        ("settings", "crf", "ms to code a frame", "bytes a frame", "PSNR, dB", "ms to decode a frame"),
        f"{len(paths)} files, the first {FRAMES} frames of each, short side {SIDE}; means over files.",
    )
    rows: dict[tuple, list[tuple[float, ...]]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.mp4"
        for path in paths:
            frames = scaled(path)
            true = [brightness(frame) for frame in frames]
            for setting in SETTINGS:
                coding = least(lambda frames=frames, setting=setting: encode(frames, made, *setting)) / len(frames)
                error = np.mean([np.square(a - b).mean() for a, b in zip(true, decode(made))])
                decoding = least(lambda: decode(made)) / len(frames)
                rows[setting].append(
                    (coding, made.stat().st_size / len(frames), 10 * np.log10(255**2 / error), decoding)
                )
    for (preset, more, crf), found in rows.items():
        values = np.mean(found, axis=0).tolist()
        table.rows.append(dict(zip(table.columns, [f"{preset} {more}".strip(), crf, *values])))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--footage", type=Path, help="a folder of videos in place of those drawn here")
    parser.add_argument("--work", type=Path, default=Path("runs/piles"), help="a folder for what is drawn")
    parser.add_argument("--output", type=Path, help="a folder for the table, as .md and .json")
    args = parser.parse_args()
    if args.footage is None:
        draw_films(args.work / "films")
    table = coding_table(media_files(args.footage or args.work / "films"))
    print(table.markdown())
    if args.output:
        command = "python -m benchmarks.coding" + (" --footage ..." if args.footage else "")
        write(args.output, [table], machine(torch.device("cpu")), None, command)


if __name__ == "__main__":
    sys.exit(exit_code("coding", main))
