"""What pages say, as typed settings, and what they are told: every mistake one line."""

import json
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from video_gen.config import Config, validate
from video_gen.errors import ConfigError, VideoGenError, line_of

C = TypeVar("C", bound=Config)


class Missing(VideoGenError):
    """What is asked for is not there, or not where it may be looked for: an answer 404."""


async def said(request: Request, kind: type[C]) -> C:
    """The body of a request, JSON. Raises: ConfigError."""
    return validate(kind, await plain(request), source="the request")


async def plain(request: Request) -> Any:
    """The body as plain values. Raises: ConfigError if it is no JSON, or holds text that cannot be written."""
    body = await request.body()
    try:
        values = json.loads(body or b"{}")
        json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the request is no JSON: {str(error)[:120]}") from None
    return values


def explain_mistakes(app: FastAPI) -> None:
    """Errors as JSON, {"error": line}: what was asked wrongly 400, what is not there 404, what we did wrong 500."""

    async def told(request: Request, error: Any) -> JSONResponse:
        code = 404 if isinstance(error, Missing) else 400
        return JSONResponse({"error": line_of(error)}, code)

    async def refused(request: Request, error: Any) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    async def misfit(request: Request, error: Any) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"'{'.'.join(map(str, first['loc'][1:]))}': {first['msg']}"}, 400)

    async def left(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the request ended before its body did"}, 400)

    async def broken(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(
            {"error": line_of(error) or f"a mistake of the studio: {type(error).__name__}: {error}"}, 500
        )

    app.add_exception_handler(VideoGenError, told)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(404, refused)
    app.add_exception_handler(405, refused)
    app.add_exception_handler(RequestValidationError, misfit)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, broken)  # and the server writes down where it was
