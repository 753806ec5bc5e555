"""The addresses of the Data page: folders of clips, what is in them, what is wrong with them, and what mends them."""

import asyncio
from contextlib import suppress
from typing import Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import Field

from video_gen.config import Config, validate
from video_gen.data.config import ClipConfig, bucket_name
from video_gen.data.editing import set_caption, set_quarantine
from video_gen.data.folder import BY_HAND
from video_gen.data.windows import best_bucket, windows
from video_gen.errors import DataError
from video_gen.web.studio.answers import Missing, said
from video_gen.web.studio.data_check import report_of
from video_gen.web.studio.data_find import Asked, facets, found_of, told_of
from video_gen.web.studio.data_sets import DataSet, quarantine_of, work
from video_gen.web.studio.plain_files import plain
from video_gen.web.studio.studio import Studio

PAGE = 200
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of addresses that name the version of a file."""
MOST_STARTS = 5000
Kind = Literal["unreadable", "bad actions", "caption too long", "too short", "near-duplicate", "still"]


class SetName(Config):
    set: str


class Caption(Config):
    set: str
    name: str
    text: str = Field(max_length=20_000)


class Quarantine(Config):
    set: str
    reasons: dict[str, str | None] = Field(max_length=10_000)
    """Name -> why, None = out of it."""


class Shape(Config):
    """The part of a `ClipConfig` that makes windows."""

    num_frames: int = ClipConfig().num_frames
    fps: float = ClipConfig().fps
    height: int = ClipConfig().height
    width: int = ClipConfig().width
    buckets: tuple[tuple[int, int, int], ...] = Field(default=(), max_length=64)
    stride: int | None = None

    def config(self, **more: Any) -> ClipConfig:
        """Raises: ConfigError if it is none that training takes."""
        return validate(ClipConfig, self.model_dump() | more, source="the request")


class Windows(Config):
    set: str
    name: str | None = None
    """A file; None = all of them."""
    clip: Shape = Shape()


class Check(Config):
    set: str
    clip: Shape = Shape()
    validation_fraction: float = ClipConfig().validation_fraction
    quarantine: tuple[Kind, ...] = ("unreadable",)
    max_tokens: int = Field(default=128, ge=2, le=100_000)


def routes(studio: Studio) -> APIRouter:
    router = APIRouter(prefix="/api/data")
    _looking(router, studio)
    _files(router, studio)
    _windows(router, studio)
    _mending(router, studio)
    _checking(router, studio)
    return router


def _looking(router: APIRouter, studio: Studio) -> None:
    sets = studio.sets

    @router.get("/sets")
    def names() -> dict[str, Any]:
        return plain({"sets": sets.names(), "roots": list(sets.roots.folders)})

    @router.get("/set")
    async def one(set: str) -> dict[str, Any]:
        """What is in a folder, counted."""
        found = await sets.opened(set)
        return await asyncio.to_thread(_told, found)

    def _told(found: DataSet) -> dict[str, Any]:
        report, kept = report_of(found), quarantine_of(found.folder)
        told = {name: found.told[name] for name in ("notes", "faults", "vocabulary", "prepared")}
        return plain({"set": found.ref, **told, "report": report, "quarantine": kept, **facets(found, report, kept)})

    @router.get("/clips")
    async def clips(
        set: str,
        start: int = Query(0, ge=0),
        count: int = Query(60, ge=1, le=PAGE),
        words: str = "",
        trouble: str = "",
        source: str = "",
        shape: str = "",
        kind: Literal["", "video", "image"] = "",
        shortest: float = 0.0,
        longest: float = 0.0,
        sort: Literal["name", "longest", "shortest", "largest"] = "name",
    ) -> dict[str, Any]:
        found, asked = await sets.opened(set), Asked(words, trouble, source, shape, kind, shortest, longest, sort)

        def chosen() -> dict[str, Any]:
            report, kept = report_of(found), quarantine_of(found.folder)
            items = found_of(found, asked, report, kept)
            shown = [told_of(found, item, report, kept) for item in items[start : start + count]]
            return plain({"total": len(items), "items": shown})

        return await asyncio.to_thread(chosen)

    @router.post("/probe")
    async def probe(request: Request) -> dict[str, Any]:
        """Find out in the background what the files are."""
        return {"missing": sets.probe(await sets.opened((await said(request, SetName)).set))}


def _files(router: APIRouter, studio: Studio) -> None:
    sets = studio.sets

    @router.get("/clip")
    async def clip(set: str, name: str) -> dict[str, Any]:
        """All that is known of one."""
        found = await sets.opened(set)
        item = found.item(name)
        if not item.get("refused"):
            with suppress(DataError):  # the answer says so itself
                await sets.facts(found, item)
        return await asyncio.to_thread(
            lambda: plain(told_of(found, item, report_of(found), quarantine_of(found.folder)))
        )

    @router.get("/thumb")
    async def thumb(set: str, name: str, v: str = "") -> FileResponse:
        found = await sets.opened(set)
        path = await sets.thumbnail(found, found.item(name))
        return FileResponse(path, media_type="image/webp", headers=FOR_EVER if v else None)

    @router.get("/picture")
    async def picture(set: str, name: str) -> FileResponse:
        found = await sets.opened(set)
        return FileResponse(await sets.large(found, found.item(name)), media_type="image/webp")

    @router.get("/video")
    async def video(set: str, name: str) -> FileResponse:
        found = await sets.opened(set)
        path, kind = await sets.played(found, found.item(name))
        return FileResponse(path, media_type=kind)

    @router.get("/preview")
    async def preview(set: str, name: str) -> FileResponse:
        """The start of a video that browsers do not play as it is."""
        found = await sets.opened(set)
        return FileResponse(await sets.preview(found, found.item(name)), media_type="video/mp4")

    @router.get("/actions")
    async def actions(set: str, name: str) -> dict[str, Any]:
        found = await sets.opened(set)
        item, vocabulary = found.item(name), found.told["vocabulary"]
        file = found.actions(item)
        if vocabulary is None:
            raise Missing(f"{set[:80]}: nothing says what its actions mean")
        facts = await sets.facts(found, item)
        rows = await sets.pictures.run(work.action_rows, file, item["name"], vocabulary, facts)
        return {"vocabulary": vocabulary, "rows": rows}


def _windows(router: APIRouter, studio: Studio) -> None:
    @router.post("/windows")
    async def cut(request: Request) -> dict[str, Any]:
        """The windows that training makes of a file, or how many of each size it makes of all files that are known."""
        asked = await said(request, Windows)
        config, found = asked.clip.config(), await studio.sets.opened(asked.set)
        if asked.name is None:
            return await asyncio.to_thread(_count, found, config)
        facts = await studio.sets.facts(found, found.item(asked.name))
        return _windows_of(facts, config)


def _windows_of(facts: dict[str, Any], config: ClipConfig) -> dict[str, Any]:
    info = work.info_of(facts)
    bucket = best_bucket(info, config)
    if bucket is None:
        least = min(size[0] for size in config.sizes)
        return {"bucket": None, "starts": [], "why": f"fewer than {least} frames at {config.fps:g} a second"}
    frames, height, width = bucket
    scale = max(width / info.width, height / info.height)
    across, down = width / (info.width * scale), height / (info.height * scale)
    starts = windows(info, config, bucket)
    return {
        "bucket": bucket_name(bucket),
        "count": len(starts),
        "starts": starts[:MOST_STARTS],
        "seconds": frames / config.fps,
        "length": info.duration,
        "crop": [(1 - across) / 2, (1 - down) / 2, across, down],
        "scale": scale,
    }


def _count(found: DataSet, config: ClipConfig) -> dict[str, Any]:
    counts: dict[str, list[int]] = {bucket_name(bucket): [0, 0] for bucket in config.sizes}
    short = unknown = 0
    kept = quarantine_of(found.folder)
    for item in found.items.values():
        if item.get("refused") or item["name"] in kept:
            continue
        facts = found.facts_of(item)
        if facts is None or "error" in facts:
            unknown += 1
            continue
        info = work.info_of(facts)
        bucket = best_bucket(info, config)
        if bucket is None:
            short += 1
            continue
        row = counts.setdefault(bucket_name(bucket), [0, 0])
        row[0] += 1
        row[1] += len(windows(info, config, bucket))
    return {"buckets": [[name, *row] for name, row in counts.items()], "short": short, "unknown": unknown}


def _mending(router: APIRouter, studio: Studio) -> None:
    sets = studio.sets

    @router.post("/caption")
    async def caption(request: Request) -> dict[str, Any]:
        asked = await said(request, Caption)
        found = await sets.opened(asked.set)
        item = found.item(asked.name)
        found.file(item)  # that it is there, and was kept
        async with sets.writing:
            before = await asyncio.to_thread(set_caption, found.folder, asked.name, asked.text)
        sets.forget(asked.set)
        return {"before": before}

    @router.post("/quarantine")
    async def quarantine(request: Request) -> dict[str, Any]:
        """Put files in, or take them out; tells how it was, which brings that back when it is sent."""
        asked = await said(request, Quarantine)
        found = await sets.opened(asked.set)
        reasons: dict[str, str | None] = {}
        for name, reason in asked.reasons.items():
            item = found.item(name)
            if item.get("refused"):
                raise Missing(f"{name[:120]}: was not kept, and training never sees it")
            reasons[name] = None if reason is None else reason.strip()[:300] or BY_HAND
        async with sets.writing:
            before = await asyncio.to_thread(set_quarantine, found.folder, reasons)
        sets.forget(asked.set)
        return {"before": before}


def _checking(router: APIRouter, studio: Studio) -> None:
    @router.post("/check")
    async def check(request: Request) -> dict[str, Any]:
        asked = await said(request, Check)
        found = await studio.sets.opened(asked.set)
        config = asked.clip.config(folder=found.folder, validation_fraction=asked.validation_fraction)
        await asyncio.to_thread(studio.checks.start, found, config, asked.quarantine, asked.max_tokens)
        return {"set": found.ref, "of": len(found.items)}

    @router.post("/check/stop")
    async def stop(request: Request) -> dict[str, Any]:
        asked = await said(request, SetName)
        if studio.checks.running != asked.set:
            raise Missing(f"'{asked.set[:80]}' is not being read")
        studio.checks.stop()
        return {}
