"""The addresses at which files are sent, and shown again."""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from video_gen.config import Config
from video_gen.web.studio.answers import said
from video_gen.web.studio.guard import UPLOADS
from video_gen.web.studio.studio import Studio
from video_gen.web.studio.uploads import KINDS


class FrameOf(Config):
    result: str
    frame: int


def routes(studio: Studio) -> APIRouter:
    router, uploads, gallery = APIRouter(), studio.uploads, studio.gallery

    @router.post(UPLOADS)
    async def send(request: Request, name: str = "") -> dict[str, Any]:
        return await uploads.take(request.stream(), name)

    @router.post(f"{UPLOADS}/frame")
    async def frame(request: Request) -> dict[str, Any]:
        asked = await said(request, FrameOf)
        return await uploads.frame(gallery.file(asked.result), asked.frame)

    @router.get(f"{UPLOADS}/file")
    def file(id: str) -> FileResponse:
        return FileResponse(uploads.file(id), media_type=KINDS[f".{id.partition('.')[2]}"])

    @router.get(f"{UPLOADS}/poster")
    def poster(id: str) -> FileResponse:
        return FileResponse(uploads.file(id, ".poster"), media_type="image/webp")

    @router.get(f"{UPLOADS}/facts")
    def facts(id: str) -> dict[str, Any]:
        return json.loads(uploads.file(id, ".json").read_text(encoding="utf-8"))

    return router
