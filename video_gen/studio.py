"""`video-gen studio`: the server of the pages, and what is refused before they are there. No torch in this process."""

import gc
import secrets
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from video_gen.errors import ConfigError
from video_gen.files import check_folder, explained, lock_byte
from video_gen.web.access import LOOPBACK, address_of, listen
from video_gen.web.studio.process import Process
from video_gen.web.studio.worker import work

MESSAGE_BYTES = 1 << 16
"""The longest message that a page may send through a socket."""


def studio(
    model: Path,
    output: Path,
    runs: tuple[Path, ...],
    data: tuple[Path, ...],
    host: str = "127.0.0.1",
    port: int = 8000,
    browser: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Serve the pages until Ctrl-C.

    Args:
        model: the one that is picked first; it is loaded while the first page is looked at.
        output: folder for what is made; runs, data: folders that are looked through. Nothing else is read or written.
        host: an address of this machine; any other than loopback asks for a token, which is printed.
    Raises: ConfigError if the port is taken or the web part is not installed; DataError if `output` cannot be written.
    """
    check_folder(output)
    with alone(output), listen(host, port, "studio") as listener:
        worker = Process(work, (device,))  # first of all, and beside us
        gc.disable()  # all that is imported stays
        try:
            import uvicorn

            from video_gen.web.studio.app import make_app
            from video_gen.web.studio.roots import Roots
            from video_gen.web.studio.studio import Studio
        except ImportError as error:
            worker.kill()
            raise ConfigError(f"studio: {error.name} is not installed; pip install 'video-gen[web]'") from None
        finally:
            gc.enable()
        token = None if host in LOOPBACK else secrets.token_urlsafe(16)
        app = make_app(Studio(output, str(model), Roots(runs), Roots(data), device, worker), token)
        address = address_of(host, listener, token)
        print(f"studio at {address}   (Ctrl-C ends)", flush=True)
        if browser and token is None:
            with suppress(webbrowser.Error):
                webbrowser.open_new_tab(address)
        if missing := [str(folder) for folder in (*runs, *data) if not folder.is_dir()]:
            print(f"not there yet, and shown once they are: {', '.join(missing)}", file=sys.stderr)
        config = uvicorn.Config(
            app, log_level="warning", ws_max_size=MESSAGE_BYTES, ws_ping_interval=20, server_header=False
        )
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Inside, no other studio makes anything in this folder. Raises: ConfigError if one does; DataError."""
    with explained(output):
        output.mkdir(parents=True, exist_ok=True)
        file = (output / ".lock").open("a+", encoding="utf-8")
    with file:
        try:
            free = lock_byte(file, 0, wait=False)
        except OSError:  # a disk without locks: whoever starts two there has been told so by nobody
            free = True
        if not free:
            raise ConfigError(f"studio: another one is open in {output}; go there, or give another --output")
        yield
