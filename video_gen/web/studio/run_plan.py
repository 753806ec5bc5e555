"""What a run would cost, before it is started: `video-gen plan` in a process of its own, as anybody would call it."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from video_gen.errors import DataError
from video_gen.files import explained, write_text
from video_gen.web.studio.plain_files import plain, whole
from video_gen.web.studio.run_folder import RECIPE
from video_gen.web.studio.run_process import environment
from video_gen.web.studio.run_state import one_line

SECONDS = 300
"""That it may take: a few real steps of large models take long."""
LARGEST = 1 << 20


class Planner:
    """Plans, one at a time: they take all cores. Args: work: a folder for what lies about meanwhile."""

    def __init__(self, work: Path):
        self.work, self._turn = work, asyncio.Lock()

    async def plan(self, text: str, kind: str) -> dict[str, Any]:
        """Of a recipe that fits: "hours", or None; "memory_mb"; "parameters"; "notes".

        Raises: DataError with the last line that the command said, if it cannot be planned or takes too long.
        """
        async with self._turn:
            with explained(self.work):
                self.work.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                recipe, output = Path(folder) / RECIPE, Path(folder) / "plan.json"
                write_text(recipe, text)
                said = await self._run("plan", kind, str(recipe), "--output", str(output))
                try:
                    found = json.loads(whole(output, LARGEST) or b"")
                    parameters = sum(int(count) for count in found["parameters"].values())
                except (ValueError, KeyError, AttributeError, TypeError):
                    raise DataError(said or "the plan ended without a word") from None
        memory = found.get("measured_mb") or found.get("memory_mb")
        told = {"hours": found.get("hours"), "memory_mb": memory, "parameters": parameters, "notes": found.get("notes")}
        return plain(told)

    async def _run(self, *words: str) -> str:
        """Run a command to its end. Returns: the last line that it said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "video_gen.cli", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        except BaseException as error:  # also where the page has gone
            _end(process.pid)
            if isinstance(error, TimeoutError):
                raise DataError(f"a plan took longer than {SECONDS} seconds and was given up") from None
            raise
        lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
        return one_line(lines[-1].removeprefix("video-gen: ")) if lines else ""


def _end(pid: int) -> None:
    """End a process that leads a group, and those that it has started."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)
