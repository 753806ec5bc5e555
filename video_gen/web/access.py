"""Who may come to a page of this machine, and what every answer says to the browser. No torch.

Without a token a server answers whoever names this machine as its host, and no page of another site; where it listens at more than
loopback, whoever has the token, which is printed where it was started.
"""

import hmac
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from video_gen.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def welcome(headers: Any, *given: str | None) -> bool:
    """Whether a request may be answered: with the token where there is one, which stands last; else only if it names this machine,
    since a page elsewhere can have its own name lead here (DNS rebinding)."""
    *said, token = given
    if token is not None:
        return any(one is not None and hmac.compare_digest(one.encode(), token.encode()) for one in said)
    return host_of(headers.get("host", "")) in LOOPBACK


def same_origin(headers: Any) -> bool:
    """Whether a socket is opened, or a request made, by a page of this server, or by no page."""
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False


def host_of(host: str) -> str:
    """A Host header without its port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host


def listen(host: str, port: int, program: str = "play") -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises: ConfigError if it cannot, which says why."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let two servers have one port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(64)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"{program}: {host}, port {port}: {error.strerror or error}; give another --port (0 = a free one), or --host"
        ) from None
    return found


def address_of(host: str, listener: socket.socket, token: str | None) -> str:
    """What to open in a browser."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}/{f'?token={token}' if token else ''}"
