"""Robot data sets as folders of clips with actions: LeRobot's and Minari's. `lerobot.py` and `minari.py` read them.

A frame is known by its index, never by a time stamp in floating point: a frame's time is its index over the rate, by design.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np

from video_gen.data.action_files import beside, write_vocabulary
from video_gen.data.actions import write_actions
from video_gen.data.claim import claim
from video_gen.data.episodes import Episode
from video_gen.data.metadata import add_rows
from video_gen.data.video_writer import write_video
from video_gen.data.views import fit
from video_gen.errors import ConfigError, DataError
from video_gen.files import written
from video_gen.vocabulary import Vocabulary

IMPORT = "import.json"


def import_folder(
    kind: Literal["lerobot", "minari"],
    folder: Path,
    output: Path,
    camera: str | None = None,
    episodes: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[str]]:
    """Write the episodes that `output` does not have yet as clips with actions, captions and state.

    Returns: how many clips there are, and what is to be said.
    Raises: DataError if it is no such data set, or damaged; ConfigError if an option does not fit it, or a library is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give that of the data set")
    try:
        if kind == "lerobot":
            from video_gen.data.lerobot import read
        else:
            from video_gen.data.minari import read
        found = read(folder, camera, episodes, fps)
    except ImportError as error:
        raise ConfigError(
            f"data import {kind}: {error.name} is not installed; pip install 'video-gen[robots]'"
        ) from None
    own = {
        "kind": kind,
        "folder": str(folder.resolve()),
        "camera": camera,
        "height": height,
        "width": width,
        "fps": fps,
    }
    claim(output, IMPORT, own, "import")
    write_vocabulary(output, found.vocabulary)
    rows = []
    for done, episode in enumerate(found.episodes, 1):
        video = output / f"{episode.name}.mp4"
        if not (video.exists() and beside(video).exists()):
            _write(video, episode, found.vocabulary, height, width)
        rows.append({"file_name": video.name, "text": episode.caption})
        if progress:
            progress(done, len(found.episodes))
    add_rows(output, rows)
    return len(found.episodes), found.notes


def _write(video: Path, episode: Episode, vocabulary: Vocabulary, height: int | None, width: int | None) -> None:
    frames = []
    with closing(episode.frames()) as pictures:  # type: ignore[type-var]
        for picture in pictures:
            h, w = height or picture.shape[0] // 2 * 2, width or picture.shape[1] // 2 * 2
            frames.append(fit(picture, h, w))
    if len(frames) != len(episode.rows):
        raise DataError(
            f"{episode.source}, {episode.name}: has {len(frames)} pictures and {len(episode.rows)} rows of actions; the data set "
            "is damaged, or still being written: copy it again"
        )
    if episode.state:
        state = video.parent / "state" / f"{video.stem}.npz"
        with written(state) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **episode.state)  # type: ignore[arg-type]
    write_actions(video, episode.rows, vocabulary)
    write_video(video, np.stack(frames), vocabulary.fps, crf=8, metadata={"caption": episode.caption})
