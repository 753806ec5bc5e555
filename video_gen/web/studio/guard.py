"""What stands before every request: who comes, how much is sent, and what the answer lets the browser do."""

from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from video_gen.web.access import SAFE, same_origin, welcome

LONGEST = 1 << 20
"""Bytes of a request's body, but for uploads, which count by themselves."""
UPLOADS = "/api/uploads"
COOKIE = "studio"
REFUSED = 4403
"""Code with which a socket is closed."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of an answer that has none of its own: a report, which may do less, says so itself."""


class Guard:
    """ASGI middleware. Args: token: see `access.welcome`."""

    def __init__(self, app: ASGIApp, token: str | None = None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not self._may(scope):
            await self._refuse(scope, receive, send)
        elif scope["type"] == "http":
            await self.app(scope, self._counted(scope, receive), self._dressed(send))
        else:
            await self.app(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        """Reading is for whoever is welcome, but for what another site would put into its own page; all else is for own pages."""
        headers = Headers(scope=scope)
        asked = QueryParams(scope.get("query_string", b"")).get("token")
        known = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if not welcome(headers, asked, known, self.token):
            return False
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            from_elsewhere = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
            return not from_elsewhere or headers.get("sec-fetch-mode") == "navigate"
        return same_origin(headers)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": REFUSED})
            return
        text = "refused: this studio is for its own machine, or for whoever has the token\n"
        await PlainTextResponse(text, 403, SAFE)(scope, receive, send)

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        if scope["path"] == UPLOADS:
            return receive
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > LONGEST:
                raise HTTPException(413, f"more than {LONGEST:,} bytes; send less")
            return message

        return counted

    def _dressed(self, send: Send) -> Send:
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Any = MutableHeaders(scope=message)
                headers.update(SAFE)
                headers.setdefault("Content-Security-Policy", POLICY)
                headers.setdefault("Cache-Control", "no-store")
                if self.token is not None:
                    headers.append("Set-Cookie", f"{COOKIE}={self.token}; HttpOnly; SameSite=strict; Path=/")
            await send(message)

        return dressed
