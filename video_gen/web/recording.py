"""What was played as a clip with its actions, in the format that training reads."""

import json
from pathlib import Path

import numpy as np

from video_gen.data.actions import write_actions, write_vocabulary
from video_gen.data.video_writer import write_video
from video_gen.files import explained
from video_gen.vocabulary import Action, Vocabulary

LONGEST_BYTES = 512 * 2**20
"""Of frames in memory, at which a recording ends by itself."""


class Recording:
    """Frames and what was done between them, until `write` makes files of them.

    Args: folder: of the data set, made if it is not there.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, fps: float, caption: str):
        self.folder, self.caption, self.fps = folder, caption, fps
        self.vocabulary = vocabulary.replace(fps=fps)
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
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_vocabulary(self.folder, self.vocabulary)
        taken = {path.stem for path in self.folder.glob("clip_*.mp4")}
        name = next(name for name in (f"clip_{i:04d}" for i in range(10**9)) if name not in taken)
        video = self.folder / f"{name}.mp4"
        write_actions(video, [*(row.tolist() for row in self.rows), self.vocabulary.row(Action())], self.vocabulary)
        write_video(video, np.stack(self.frames), self.fps, crf=4, metadata={"prompt": self.caption})
        with (
            explained(self.folder / "metadata.jsonl"),
            (self.folder / "metadata.jsonl").open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps({"file_name": video.name, "text": self.caption}) + "\n")
        return video
