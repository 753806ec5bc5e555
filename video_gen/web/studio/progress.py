"""How far the video under way is, how long the rest takes, and what pages are told of that and of the queue."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from video_gen.web.studio.jobs import Job

SHOWN = 200
"""Jobs that a page is told of."""
ORDER = {"running": 0, "waiting": 1, "failed": 2, "cancelled": 3}
LITTLE = 0.02
"""Of a video, before which its pace says nothing."""


@dataclass
class Under:
    """The video under way."""

    job: int
    began: float | None = None
    """When its first step came, on the clock `time.monotonic`."""
    done: float = 0.0
    frames: int = 0
    version: int = 0
    stopping: bool = False
    took: list[float] = field(default_factory=list)
    """Seconds of the job's videos before it."""

    def left(self, videos: int) -> float | None:
        """Seconds until it and `videos` more are made; None = not known yet."""
        if self.began is None or self.done < LITTLE:
            return sum(self.took) / len(self.took) * (videos + 1) if self.took else None
        whole = (time.monotonic() - self.began) / self.done
        return whole * (1 - self.done) + whole * videos


def queue_told(jobs: Iterable[Job], worker: tuple[str, str], trouble: str | None) -> dict[str, Any]:
    """The queue for a page. Args: worker: its state, and its model."""
    ordered = sorted(jobs, key=lambda job: (ORDER[job.state], job.place))
    shown = [
        {
            "id": job.id,
            "state": job.state,
            "prompt": str(job.options.get("prompt", ""))[:300],
            "model": job.model,
            "count": job.count,
            "made": len(job.made),
            "seed": job.seed,
            "error": job.error,
        }
        for job in ordered[:SHOWN]
    ]
    state, model = worker
    return {"jobs": shown, "total": len(ordered), "worker": {"state": state, "model": model}, "trouble": trouble}


def progress_told(under: Under, job: Job) -> dict[str, Any]:
    """The video under way for a page."""
    return {
        "id": job.id,
        "done": under.done,
        "left": under.left(job.count - len(job.made) - 1),
        "version": under.version,
        "frames": under.frames,
        "stopping": under.stopping,
        "made": len(job.made),
    }
