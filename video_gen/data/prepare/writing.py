"""Pieces as files, decoded once more, but for those of which there is a draft."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from video_gen.data.action_files import beside
from video_gen.data.actions import actions_of, window, write_actions
from video_gen.data.container import slack_of
from video_gen.data.prepare.coding import Clip, count_of, rate_of, shrinks, size_of
from video_gen.data.prepare.facts import Facts
from video_gen.data.prepare.pieces import Piece
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.video_file import Timed, every_frame, frames_from
from video_gen.data.video_info import VideoInfo
from video_gen.errors import DataError
from video_gen.files import written
from video_gen.vocabulary import Vocabulary

FAR = 5.0
"""Seconds between pieces over which it is better to jump than to read on."""


def write_pieces(
    path: Path,
    info: VideoInfo,
    pieces: Sequence[Piece],
    output: Path,
    config: PrepareConfig,
    drafts: Path | None = None,
) -> None:
    """Write those pieces of one file that `output` does not have yet, as .mp4 or .png.

    Args: drafts: a folder in which some of them may lie already; these are moved.
    Raises: DataError if the file cannot be read any more, or `output` not be written.
    """
    missing = [piece for piece in pieces if not (output / file_name(piece, info)).exists()]
    if info.kind == "image":
        for piece in missing:
            _write_image(path, info, piece, output / file_name(piece, info), config)
        return
    if drafts is not None:
        missing = [
            p for p in missing if not _taken(drafts / f"{replace(p, mark='').name}.mp4", output / file_name(p, info))
        ]
    # one pass through the file serves all its pieces, unless there are long stretches between them
    for run in _runs(missing):
        frames = frames_from(path, info, run[0].start_time, shrinks(info, config.short_side))
        for piece in run:
            _write_video(path, frames, info, piece, output / file_name(piece, info), config)


def cut_actions(
    path: Path,
    facts: Facts,
    pieces: Sequence[Piece],
    output: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary | None,
) -> None:
    """Write the actions of pieces of one file beside their clips, each for the frames that are shown; where there are none, none
    stay.

    Raises: DataError if they do not fit the file, or `output` cannot be written.
    """
    info, times = facts.info, facts.curves.get("time", np.zeros(0))
    assert info is not None
    rows = None
    if vocabulary is not None and info.kind == "video":
        rows = actions_of(beside(path), str(path), vocabulary, info.num_frames, info.fps, times=times)
    for piece in pieces:
        target, fps = output / file_name(piece, info), rate_of(info, config)
        if rows is None or vocabulary is None:
            beside(target).unlink(missing_ok=True)
            continue
        count = count_of(piece.seconds, fps)
        own = window(rows, vocabulary, piece.start_time, count, fps, times - slack_of(info.tick))
        own[-1] = rows[piece.end - 1]
        write_actions(target, own, vocabulary)


def file_name(piece: Piece, info: VideoInfo) -> str:
    return piece.name + (".mp4" if info.kind == "video" else ".png")


def _taken(draft: Path, target: Path) -> bool:
    """Whether there was a draft, which is the clip now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(draft, target)
    except OSError:
        return False
    return True


def _runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces in their order, in groups that lie far from each other."""
    run: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if run and piece.start_time - run[-1].end_time > FAR:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _write_video(
    path: Path, frames: Iterator[Timed], info: VideoInfo, piece: Piece, target: Path, config: PrepareConfig
) -> None:
    with (
        written(target) as temporary,
        Clip(temporary, piece.source, piece.start_time, info, piece.box, config) as clip,
    ):
        for timed in frames:
            if clip.due(timed.end) > clip.number:
                clip.add(timed.end, timed.scaled(*clip.whole))
            if clip.number >= clip.count(piece.seconds):
                break
        if lacking := clip.finish(piece.seconds):
            raise DataError(
                f"{path}: from {piece.start_time:.2f} s on lacks {lacking} frames that it had when it was looked at"
            )


def _write_image(path: Path, info: VideoInfo, piece: Piece, target: Path, config: PrepareConfig) -> None:
    whole, (x, y, width, height) = size_of(info, piece.box, config)
    timed = next(iter(every_frame(path, info)))
    with written(target) as temporary:
        Image.fromarray(timed.scaled(*whole).rgb()[y : y + height, x : x + width]).save(temporary, "PNG")
