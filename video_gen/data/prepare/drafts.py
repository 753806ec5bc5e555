"""Clips that are written while a file is looked at, so that it is decoded once.

Where shots begin and end is known a little later than they are seen; what is cropped, and what is kept, at the end of the file. So
pictures wait for a moment, and a draft is written of each piece as it seems then. It is byte for byte what would be written
afterwards, or it is thrown away, and written afterwards: drafts save time, and decide nothing.
"""

import os
import shutil
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import av

from video_gen.data.picture import Scaled
from video_gen.data.prepare.coding import Clip, size_of
from video_gen.data.prepare.facts import Facts
from video_gen.data.prepare.pieces import NO_BARS, ROUNDING, Box, Piece, name_of
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.prepare.shots import find_shots
from video_gen.data.video_file import Timed
from video_gen.data.video_info import VideoInfo

LAG = 48
"""Frames after which nothing is learned any more of a frame but in rare cases: those that a blend and what is around it reach."""
STEP = 16
"""Frames after which it is seen to it again."""
MOST_HELD = 2**28
"""Bytes of pictures that may wait; with larger ones there are no drafts."""


class Seen(Protocol):
    """What was seen of a file so far."""

    def since(self, frame: int) -> Facts:
        """Curves alone, of frames from `frame` on."""
        ...

    def bars(self) -> Box:
        """What is black on opposite sides in all of it."""
        ...


@dataclass(frozen=True)
class _Waiting:
    start: float
    end: float
    picture: Scaled
    box: Box


class Drafts:
    """Of one file; to be used in a `with`, at whose end those are gone that nobody took.

    Args: folder: where they are written, and kept once they are known to be right.
    """

    def __init__(self, name: str, folder: Path, config: PrepareConfig):
        self.name, self.folder, self.config = name, folder, config
        self._own = folder / f".{uuid.uuid4().hex}"
        self._made: dict[str, Box] = {}
        """Name of a piece, without suffix -> what was cropped."""
        self._held: deque[_Waiting] = deque()
        self._done = 0
        """Frames that are written or passed over."""
        self._clip: Clip | None = None
        self._first = 0
        """The clip's first frame, in the file."""
        self._box: Box = NO_BARS
        self._clip_box: Box | None = None
        """What seems to be cropped; and what is of the clip, None once that changed."""
        self._off = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up()
        shutil.rmtree(self._own, ignore_errors=True)

    def begin(self, info: VideoInfo, digest: str) -> None:
        """What the file is, and a hash of its content."""
        self._info, self._digest = info, digest
        width, height = size_of(info, self._box, self.config)[0]
        self._off = info.kind != "video" or (LAG + STEP) * width * height * 3 // 2 > MOST_HELD

    def add(self, timed: Timed, picture: Scaled, seen: Seen) -> None:
        """The next frame, which was seen already, and as what picture."""
        if self._off:
            return
        size = size_of(self._info, self._box, self.config)[0]
        wanted = picture if picture.size == size else timed.scaled(*size)
        self._held.append(_Waiting(timed.start, timed.end, wanted, self._box))
        if len(self._held) == LAG + STEP:
            self._advance(STEP, seen)
            self._box = seen.bars() if self.config.crop else NO_BARS

    def end(self, seen: Seen) -> None:
        """There are no more frames."""
        if not self._off:
            self._advance(len(self._held), seen)
            self._close(self._info.duration)

    def take(self, pieces: Sequence[Piece]) -> None:
        """Keep those of pieces that are good so far and turned out as they seemed."""
        for piece in pieces:
            if not piece.refused and self._made.get(piece.name) == piece.box:
                with suppress(OSError):
                    os.replace(self._own / f"{piece.name}.mp4", self.folder / f"{piece.name}.mp4")

    def _advance(self, count: int, seen: Seen) -> None:
        """Write the first `count` frames that wait, each into its piece."""
        offset = max(0, self._done - LAG)
        shots = find_shots(seen.since(offset), self.config.shots)
        begin_of = {offset + i: offset + shot.start for shot in shots for i in range(shot.start, shot.end)}
        for _ in range(count):
            waiting, begin = self._held.popleft(), begin_of.get(self._done)
            if begin in (None, self._done) or self._is_long(waiting.start):
                self._close(waiting.start)
            if begin is not None:
                self._write(waiting)
            if self._off:
                return
            self._done += 1

    def _is_long(self, time: float) -> bool:
        return self._clip is not None and time - self._clip.start >= self.config.keep.max_seconds - ROUNDING

    def _write(self, waiting: _Waiting) -> None:
        try:
            if self._clip is None:
                self._own.mkdir(parents=True, exist_ok=True)
                draft = self._own / "draft.mp4"
                self._clip = Clip(draft, self.name, waiting.start, self._info, waiting.box, self.config)
                self._first, self._clip_box = self._done, waiting.box
            if waiting.box != self._clip_box:
                self._clip_box = None
            else:
                self._clip.add(waiting.end, waiting.picture)
        except (OSError, av.FFmpegError):  # the disk is full, say: whoever writes the clips will say so
            self._give_up()

    def _close(self, end: float) -> None:
        """The clip, if there is one, ends before the frame that is next, at the time `end`."""
        clip, box = self._clip, self._clip_box
        if clip is None:
            return
        name = name_of(self._digest, self._first, self._done)
        try:
            whole = box is not None and clip.finish(end - clip.start) == 0
            clip.close()
            self._clip = None
            if whole and box is not None:
                os.replace(self._own / "draft.mp4", self._own / f"{name}.mp4")
                self._made[name] = box
        except (OSError, av.FFmpegError):
            self._give_up()

    def _give_up(self) -> None:
        """What waits and what is half-written is let go of."""
        self._off = True
        self._held.clear()
        with suppress(OSError, av.FFmpegError):
            if self._clip is not None:
                self._clip.close()
        self._clip = None
