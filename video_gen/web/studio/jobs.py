"""Jobs, kept on the disk: what is to be made, in which order, and how far it is.

A job is a file in queue/, and a video that is under way a folder in work/JOB/NUMBER/. A video is finished when that folder says so;
it is then moved to the gallery, written down in the job, and its folder removed, each step of which can be done again. So a studio
that is killed loses no finished video and makes none twice.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from video_gen.config import Config, validate
from video_gen.errors import VideoGenError
from video_gen.files import explained, write_text
from video_gen.web.studio.gallery import PLACE, Gallery
from video_gen.web.studio.worker import DONE

MOST = 2_000
"""Jobs that may wait."""
TRIES = 3
"""Times that a video may be under way when the studio is killed; then it is taken to be the reason."""


class Job(Config):
    id: int = Field(ge=1)
    place: float
    """In the queue: small ones come first."""
    options: dict[str, Any]
    """What was said, as `form.sample_of` takes it; model, count and seed are among it."""
    model: str
    count: int
    seed: int
    created: float
    """Seconds since 1970."""
    state: Literal["waiting", "running", "failed", "cancelled"] = "waiting"
    made: tuple[str, ...] = ()
    """Names of its results, in the order of their seeds."""
    error: str | None = None
    tries: int = 0
    """Of the video that is next."""


class Store:
    """The jobs' files. Args: folder: the studio's own."""

    def __init__(self, folder: Path, gallery: Gallery):
        self.queue, self.work, self.gallery = folder / "queue", folder / "work", gallery

    def save(self, job: Job) -> None:
        """Raises: DataError, as if the disk is full."""
        write_text(self._file(job), job.model_dump_json())

    def remove(self, job: Job) -> None:
        with suppress(OSError):
            self._file(job).unlink(missing_ok=True)
        shutil.rmtree(self.work / f"{job.id:06}", ignore_errors=True)

    def room(self, job: Job) -> Path:
        """An empty folder for a job's next video. Raises: DataError."""
        folder = self.work / f"{job.id:06}" / str(len(job.made))
        with explained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    def finished(self, job: Job) -> Job:
        """The job with its next video, if that is whole, in the gallery and written down. Raises: DataError."""
        folder = self.work / f"{job.id:06}" / str(len(job.made))
        if not ((folder / DONE).is_file() or (folder / PLACE).is_file()):
            return job
        job = job.replace(made=(*job.made, self.gallery.take(folder)), tries=0)
        self.save(job)
        shutil.rmtree(folder, ignore_errors=True)
        return job

    def load(self) -> Iterator[Job]:
        """The jobs of an earlier studio, with what it had finished, ready to go on. What is no job is left alone."""
        for file in sorted(self.queue.glob("[0-9]*.json")) if self.queue.is_dir() else ():
            try:
                job = validate(Job, json.loads(file.read_text(encoding="utf-8")), str(file))
                if self._file(job) != file:
                    continue
                job = self.finished(job)
            except (OSError, ValueError, RecursionError, VideoGenError):
                continue
            if len(job.made) >= job.count:
                self.remove(job)
                continue
            if job.state == "running":
                tries = job.tries + 1
                gave_up = f"the studio ended {tries} times while this video was made; try again, or with smaller sizes"
                failed = tries >= TRIES
                job = job.replace(
                    state="failed" if failed else "waiting", tries=tries, error=gave_up if failed else None
                )
            yield job

    def _file(self, job: Job) -> Path:
        return self.queue / f"{job.id:06}.json"
