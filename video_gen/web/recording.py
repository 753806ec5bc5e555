"""What was played as a clip with its actions, in the format that training reads."""

import re
from pathlib import Path

import numpy as np

from video_gen.data.action_files import find_vocabulary, write_vocabulary
from video_gen.data.actions import write_actions
from video_gen.data.metadata import CAPTIONS, add_rows
from video_gen.data.video_writer import write_video
from video_gen.files import explained, read_text
from video_gen.vocabulary import Action, Vocabulary

LONGEST_BYTES = 512 * 2**20
"""Of frames in memory, at which a recording ends by itself."""


class Recording:
    """Frames and what was done between them, until `write` makes files of them.

    Args: folder: of the data set, made if it is not there; where it holds actions of another kind, one beside it.
    Raises: DataError if it cannot be made.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, fps: float, caption: str):
        self.caption, self.fps = caption, fps
        self.vocabulary = vocabulary.replace(fps=fps)
        places = (folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(2, 10_000)))
        self.folder = next(place for place in places if find_vocabulary(place) in (None, self.vocabulary))
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_vocabulary(self.folder, self.vocabulary)
        self.frames: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []

    def begin(self, frame: np.ndarray) -> None:
        """The frame (h, w, 3) that is seen when the recording starts."""
        self.frames.append(frame)

    def add(self, rows: np.ndarray, frames: np.ndarray) -> None:
        """(n, a) actions, each of which led to one of the (n, h, w, 3) frames."""
        if not self.frames:  # a loaded state shows nothing before its first step
            rows, frames, first = rows[1:], frames[1:], frames[0]
            self.frames.append(first)
        self.rows.extend(rows)
        self.frames.extend(frames)

    @property
    def is_full(self) -> bool:
        return len(self.frames) * self.frames[0].nbytes > LONGEST_BYTES

    def write(self) -> Path | None:
        """Write clip, actions and caption; None if there is nothing to write. Raises: DataError if they cannot be written."""
        if not self.rows:
            return None
        video = self.folder / f"clip_{self._number():04d}.mp4"
        write_actions(video, [*(row.tolist() for row in self.rows), self.vocabulary.row(Action())], self.vocabulary)
        write_video(video, np.stack(self.frames), self.fps, crf=4, metadata={"prompt": self.caption})
        add_rows(self.folder, [{"file_name": video.name, "text": self.caption}])
        return video

    def _number(self) -> int:
        """One that no clip there has, or had."""
        names = [path.name for path in self.folder.glob("clip_*")]
        rows = self.folder / CAPTIONS
        names += re.findall(r"clip_\d+", read_text(rows)) if rows.is_file() else []
        numbers = [int(found[1]) for name in names if (found := re.match(r"clip_(\d+)", name))]
        return max(numbers, default=-1) + 1
