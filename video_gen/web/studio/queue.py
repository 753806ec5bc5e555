"""The queue: one video after the other in the worker's process, in the order of the jobs, and what pages are told of it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from video_gen.command_line import handed_over
from video_gen.errors import ConfigError, VideoGenError
from video_gen.sampling.fit import Fit
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.form import said, sample_of
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.jobs import MOST, Job, Store
from video_gen.web.studio.process import Process, ending
from video_gen.web.studio.progress import Under, progress_told, queue_told
from video_gen.web.studio.worker import Order, Wanted, work

PATIENCE = 10.0
"""Seconds in which the worker may finish a step before it is ended."""
PAGE_FIRST = 1.0
"""Seconds in which the first page may come before a model is loaded; it then asks for one itself."""
DEATHS = 3
"""Of the worker, one after the other and before it had a model: then it is started again only for a new job."""
NOT_SAID = ("model", "device", "output", "compile", "count", "format")


class Queue:
    """Everything happens in the server's loop; what the worker says comes in from its thread.

    Args: worker: one that was started before; None = it is started with us.
    """

    def __init__(self, store: Store, hub: Hub, device: str, model: str, worker: Process | None = None):
        self.store, self.hub, self.device, self.first = store, hub, device, model
        self._worker = worker
        self._later: asyncio.TimerHandle | None = None
        self.jobs: dict[int, Job] = {}
        self.under: Under | None = None
        self.draft: tuple[int, bytes] = (
            0,
            b"",
        )  # a job, and its newest picture: kept for who asks a moment after its end
        self.trouble: str | None = None
        self.state: tuple[str, str] = ("starting", model)
        self._process: Process | None = None
        self._deaths = 0
        self._closing = False
        self._last = 0  # number of a job
        self._took: tuple[int, list[float]] = (0, [])  # a job, and the seconds of its videos so far

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for job in self.store.load():
            self.jobs[job.id] = job
            self._save(job)
        self._last = max(self.jobs, default=0)
        self._begin_worker()
        self._later = self._loop.call_later(PAGE_FIRST, self.prepare, self.first)
        self._pump()
        self._tell()

    def close(self) -> None:
        self._closing = True
        if self._process is not None:
            self._process.kill()

    # -------------------- what a page asks for

    def add(self, options: Mapping[str, Any], model: str) -> Job:
        """Raises: ConfigError for what `sample` would refuse, or too many jobs; DataError if it cannot be written."""
        if len(self.jobs) >= MOST:
            raise ConfigError(f"{MOST} jobs wait already; let some be done, or cancel them")
        sample = sample_of({**options, "model": model})
        self._last += 1
        place = max((job.place for job in self.jobs.values()), default=0.0) + 1
        job = Job(
            id=self._last, place=place, options=said(sample), model=model, count=sample.count, seed=sample.seed,
            created=time.time(),
        )  # fmt: skip
        self.store.save(job)
        self.jobs[job.id] = job
        self._deaths, self.trouble = 0, None
        self._pump()
        self._tell()
        return job

    def cancel(self, number: int) -> Job:
        """End it, finished videos staying; one that has not begun is gone at once. Raises: Missing."""
        job = self.job(number)
        if self.under is not None and self.under.job == number:
            if not self.under.stopping and self._process is not None:
                self.under.stopping = True
                self._process.send(("stop", number))
                self._loop.call_later(PATIENCE, self._end_worker, self.under)
        elif job.state == "waiting" and not job.made:
            self._forget(job)
        elif job.state == "waiting":
            self._put(job.replace(state="cancelled"))
        self._tell()
        return job

    def retry(self, number: int) -> Job:
        """Let one that failed or was cancelled go on. Raises: Missing."""
        job = self.job(number)
        if job.state in ("failed", "cancelled"):
            self._put(job := job.replace(state="waiting", error=None, tries=0))
            self._deaths, self.trouble = 0, None
            self._pump()
            self._tell()
        return job

    def dismiss(self, number: int) -> None:
        """Forget one that failed or was cancelled. Raises: Missing, ConfigError."""
        job = self.job(number)
        if job.state not in ("failed", "cancelled"):
            raise ConfigError(f"job {number} is {job.state}; cancel it first")
        self._forget(job)
        self._tell()

    def first_of_all(self, number: int) -> None:
        """Let it be the next. Raises: Missing."""
        job = self.job(number)
        self._put(job.replace(place=min(other.place for other in self.jobs.values()) - 1))
        self._tell()

    def prepare(self, model: str) -> None:
        """Load a model before it is needed, if nothing else is to do."""
        if self._later is not None:
            self._later.cancel()
        if self.under is None and self._process is not None and self.state != ("ready", model):
            self._process.send(("load", Wanted(model, Fit(), ())))

    def job(self, number: int) -> Job:
        if (job := self.jobs.get(number)) is None:
            raise Missing(f"no job {number}; it may be done")
        return job

    # -------------------- the worker

    def _begin_worker(self) -> None:
        def hear(message: Any) -> None:
            self._from_thread(self._heard, process, message)

        def ended(code: int) -> None:
            self._from_thread(self._ended, process, code)

        self.state = ("starting", self.first)
        process = self._process = self._worker or Process(work, (self.device,))
        self._worker = None
        process.listen(hear, ended)

    def _from_thread(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(function, *args)

    def _heard(self, process: Process, message: tuple) -> None:
        if process is not self._process or self._closing:
            return
        kind, about, *rest = message
        if kind in ("loading", "ready"):
            self.state, self.trouble = (kind, about), None
            self._deaths = 0 if kind == "ready" else self._deaths
        elif kind == "trouble":
            self.state, self.trouble = ("ready", ""), rest[0]
        elif self.under is None or about != self.under.job:
            return
        elif kind == "step":
            self.under.began = self.under.began or time.monotonic()
            self.under.done = rest[0]
            self._tell_progress()
            return
        elif kind == "draft":
            self.draft, self.under.frames = (about, rest[0]), rest[1]
            self.under.version += 1
            self._tell_progress()
            return
        else:
            self._settle(kind, rest)
        self._pump()
        self._tell()

    def _settle(self, kind: str, rest: list) -> None:
        """A video's end: made, failed or stopped."""
        under = self.under
        assert under is not None
        job, self.under = self.jobs[under.job], None
        try:
            if kind == "made":
                job = self.store.finished(job)
                self.hub.tell("results", {"newest": job.made[-1], "at": time.time()})
                if len(job.made) >= job.count:
                    self._forget(job)
                    return
                if under.began is not None:
                    under.took.append(time.monotonic() - under.began)
                self._took = (job.id, under.took)
                job = job.replace(state="cancelled" if under.stopping else "waiting")
            elif kind == "stopped":
                job = job.replace(state="cancelled")
            else:
                job = job.replace(state="failed", error=rest[0])
        except (
            VideoGenError,
            OSError,
        ) as error:  # as a full disk: the video is kept where it is, until somebody tries again
            job = job.replace(state="failed", error=str(error))
        self._put(job)

    def _ended(self, process: Process, code: int) -> None:
        if process is not self._process or self._closing:
            return
        stopping = self.under is not None and self.under.stopping
        if self.under is not None:
            reason = f"the process that made it ended {ending(code)}; smaller sizes may do"
            self._settle("stopped" if stopping else "failed", [reason])
        self._deaths += not stopping
        self._process = None
        if self._deaths < DEATHS:
            self._begin_worker()
        else:
            self.state, self.trouble = ("gone", ""), f"the worker ended {ending(code)}, {self._deaths} times"
        self._pump()
        self._tell()

    def _end_worker(self, under: Under) -> None:
        """If it has not stopped by itself."""
        if self.under is under and self._process is not None:
            self._process.kill()

    def _pump(self) -> None:
        """Begin the next video, if none is under way."""
        while self.under is None and not self._closing:
            waiting = [job for job in self.jobs.values() if job.state == "waiting"]
            if not waiting:
                return
            if self._process is None:
                if self._deaths >= DEATHS:
                    return
                self._begin_worker()
            self._begin(min(waiting, key=lambda job: (job.place, job.id)))

    def _begin(self, job: Job) -> None:
        try:
            job = self.store.finished(job)  # what a full disk kept from being written down
            if len(job.made) >= job.count:
                self._forget(job)
                return
            order = order_of(job, self.store)
            job = job.replace(state="running")
            self.store.save(job)
        except (VideoGenError, OSError) as error:
            self.jobs[job.id] = job.replace(state="failed", error=str(error))
            return
        self.jobs[job.id] = job
        self.under = Under(job.id, took=self._took[1] if self._took[0] == job.id else [])
        assert self._process is not None
        self._process.send(("make", order))  # if that fails, its end is told

    # -------------------- keeping and telling

    def _put(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._save(job)

    def _save(self, job: Job) -> None:
        try:
            self.store.save(job)
        except VideoGenError as error:
            self.trouble = str(error)

    def _forget(self, job: Job) -> None:
        self.jobs.pop(job.id, None)
        self.store.remove(job)

    def _tell(self) -> None:
        self.hub.tell("queue", queue_told(self.jobs.values(), self.state, self.trouble))
        self._tell_progress()

    def _tell_progress(self) -> None:
        self.hub.tell("progress", None if self.under is None else progress_told(self.under, self.jobs[self.under.job]))


def order_of(job: Job, store: Store) -> Order:
    """The job's next video. Raises: ConfigError, DataError."""
    seed = job.seed + len(job.made)
    sample = sample_of({**job.options, "seed": seed, "count": 1})
    options = {name: value for name, value in handed_over(sample).items() if name not in NOT_SAID}
    wanted = Wanted(job.model, options.pop("fit"), options.pop("loras"))
    return Order(job.id, wanted, store.room(job), options, {"model": job.model, "options": said(sample)})
