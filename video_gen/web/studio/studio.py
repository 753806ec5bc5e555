"""What the pages work with, made once: folders, what is told, and processes for what may go wrong."""

from pathlib import Path

from video_gen.web.studio.data_check import Checks
from video_gen.web.studio.data_sets import DataSets
from video_gen.web.studio.gallery import Gallery
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.jobs import Store
from video_gen.web.studio.live_stream import Live
from video_gen.web.studio.models import Models
from video_gen.web.studio.play_world import Remote
from video_gen.web.studio.process import Apart, Process
from video_gen.web.studio.queue import Queue
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_watch import RunWatch
from video_gen.web.studio.uploads import Uploads


class Studio:
    """The folders that may be read and written, and the services that every page shares.

    Args:
        output: for what is made: results/, bin/, uploads/, queue/, work/, and a folder for each page that keeps something.
        model: the one that is picked until somebody picks another.
        runs, data: what may be looked through and changed besides.
        device: to sample on.
        worker: the process that samples, if it was started before; see `worker.work`.
    """

    def __init__(
        self, output: Path, model: str, runs: Roots, data: Roots, device: str = "auto", worker: Process | None = None
    ):
        self.output, self.model, self.runs, self.data, self.device = output, model, runs, data, device
        self.hub = Hub()
        self.apart = Apart()  # for looking at somebody's files
        self.gallery = Gallery(output / "results", output / "bin")
        self.uploads = Uploads(output / "uploads", self.apart)
        self.models = Models(model, runs)
        self.queue = Queue(Store(output, self.gallery), self.hub, device, model, worker)
        self.watch = RunWatch(runs, self.hub)
        self.world = Remote(output / "play", self.hub, device)
        sets = Roots((*data.folders.values(), output / "play"))  # what was played is data, too
        self.sets = DataSets(sets, output / "data", self.hub)
        self.checks = Checks(self.hub)
        self.live = Live(output / "live", self.gallery, self.hub, device)

    def start(self) -> None:
        """In the server's loop."""
        self.hub.start()
        self.watch.start()
        self.queue.start()
        self.live.start()
        self.world.start()

    def close(self) -> None:
        self.watch.close()
        self.queue.close()
        self.live.close()
        self.world.close()
        self.sets.close()
        self.checks.close()
        self.apart.close()
