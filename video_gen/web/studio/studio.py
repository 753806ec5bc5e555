"""What the pages work with, made once: folders, what is told, and processes for what may go wrong."""

from dataclasses import dataclass, field
from pathlib import Path

from video_gen.web.studio.hub import Hub
from video_gen.web.studio.process import Apart
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_watch import RunWatch


@dataclass(frozen=True)
class Studio:
    """The folders that may be read and written, and the services that every page shares."""

    output: Path
    """What is made goes there: results/, uploads/, queue/, and a folder for each page that keeps something."""
    model: str
    """The one that is picked until somebody picks another."""
    runs: Roots
    data: Roots
    device: str = "auto"
    hub: Hub = field(default_factory=Hub)
    apart: Apart = field(default_factory=Apart)
    """For looking at somebody's files."""

    watch: RunWatch = field(init=False)
    """Of the runs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "watch", RunWatch(self.runs, self.hub))

    def start(self) -> None:
        """In the server's loop."""
        self.hub.start()
        self.watch.start()

    def close(self) -> None:
        self.watch.close()
        self.apart.close()
