"""The addresses of the Create page: its form, its queue, and the gallery of what was made."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from video_gen.config import Config
from video_gen.errors import ConfigError, VideoGenError
from video_gen.files import written
from video_gen.web.studio.answers import Missing, plain, said
from video_gen.web.studio.form import APART, FILES, command, fields, python, sample_of
from video_gen.web.studio.gallery import Entry
from video_gen.web.studio.process import Elsewhere
from video_gen.web.studio.studio import Studio

looking = Elsewhere("video_gen.web.studio.looking")
PAGE = 200
"""Results that are told at once, at most."""
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of addresses that name the time at which a result was made."""


class Named(Config):
    id: int


class Names(Config):
    names: tuple[str, ...]


class Ticket(Config):
    ticket: str


class ModelName(Config):
    model: str


def routes(studio: Studio) -> APIRouter:
    router = APIRouter(prefix="/api")
    _form(router, studio)
    _jobs(router, studio)
    _results(router, studio)
    _bin(router, studio)
    return router


def _form(router: APIRouter, studio: Studio) -> None:
    @router.get("/create/form")
    def form() -> dict[str, Any]:
        return {
            "groups": fields(),
            "models": studio.models.names(),
            "loras": studio.models.loras(),
            "model": studio.model,
            "settings": studio.models.settings(studio.model),
        }

    @router.get("/create/model")
    def model(name: str) -> dict[str, Any]:
        return studio.models.settings(name)

    @router.post("/create/load")
    async def load(request: Request) -> dict[str, Any]:
        name = studio.models.check((await said(request, ModelName)).model)
        studio.queue.prepare(name)
        return {"model": name}

    @router.post("/create/command")
    async def words(request: Request) -> dict[str, Any]:
        """What the form says, as a command line and as Python, before it is made."""
        values, name = _values(studio, await plain(request))
        sample = sample_of({**values, "model": name})
        return {"command": command(sample), "python": python(sample)}


def _values(studio: Studio, given: Any) -> tuple[dict[str, Any], str]:
    """A page's values with files in the place of what it names, and the model. Raises: ConfigError, Missing."""
    if not isinstance(given, dict):
        raise ConfigError("the request: expected a mapping of settings")
    values = {name: value for name, value in given.items() if value is not None}
    name = values.pop("model", studio.model)
    if not isinstance(name, str):
        raise ConfigError("model: expected a name")
    if wrong := [key for key in values if key in APART]:
        raise ConfigError(f"{wrong[0]} is not for a page to say")
    if "loras" in values:
        given_loras = values["loras"] if isinstance(values["loras"], list) else [values["loras"]]
        values["loras"] = [studio.models.check_lora(str(one)) for one in given_loras]
    for key in FILES:
        if key in values:
            values[key] = _file(studio, key, values[key])
    return values, studio.models.check(name)


def _file(studio: Studio, key: str, value: Any) -> str:
    kind, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "upload":
        return str(studio.uploads.file(name).absolute())
    if kind == "result":
        return str(studio.gallery.file(name).absolute())
    if kind == "data":
        root, _, inner = name.partition("/")
        if (path := studio.data.find(root, inner)).is_file():
            return str(path)
    raise ConfigError(f"{key.replace('_', ' ')}: expected a file that was sent, a result, or a clip of a data set")


def _jobs(router: APIRouter, studio: Studio) -> None:
    @router.post("/jobs")
    async def add(request: Request) -> dict[str, Any]:
        values, name = _values(studio, await plain(request))
        return {"id": studio.queue.add(values, name).id}

    @router.post("/jobs/cancel")
    async def cancel(request: Request) -> dict[str, Any]:
        job = studio.queue.cancel((await said(request, Named)).id)
        return {"id": job.id}

    @router.post("/jobs/retry")
    async def retry(request: Request) -> dict[str, Any]:
        return {"id": studio.queue.retry((await said(request, Named)).id).id}

    @router.post("/jobs/dismiss")
    async def dismiss(request: Request) -> None:
        studio.queue.dismiss((await said(request, Named)).id)

    @router.post("/jobs/first")
    async def first(request: Request) -> None:
        studio.queue.first_of_all((await said(request, Named)).id)

    @router.get("/jobs/draft")
    async def draft(id: int) -> Response:
        """The newest picture of the video under way: its frames side by side."""
        job, picture = studio.queue.draft
        if job != id or not picture:
            raise Missing(f"no picture of job {id}")
        return Response(picture, media_type="image/jpeg")


def _results(router: APIRouter, studio: Studio) -> None:
    gallery = studio.gallery

    @router.get("/results")
    def results(start: int = 0, count: int = 60, words: str = "") -> dict[str, Any]:
        """Newest first: so many from there on, of those that hold the words."""
        found = gallery.matching(words[:500])
        start, count = min(max(0, start), len(found)), min(max(0, count), PAGE)
        return {"total": len(found), "start": start, "items": [shown(studio, e) for e in found[start : start + count]]}

    @router.get("/results/item")
    def item(name: str) -> dict[str, Any]:
        """All that is known of one, and what makes the same file."""
        entry = gallery.find(name)
        facts = gallery.facts(entry)
        told: dict[str, Any] = {"item": shown(studio, entry), "facts": facts, "command": None, "python": None}
        own = facts.get("studio")
        if isinstance(own, dict) and isinstance(own.get("options"), dict):
            try:
                sample = sample_of(own["options"])
                told |= {"command": command(sample), "python": python(sample, str(own.get("device", "cpu")))}
            except VideoGenError as error:
                told["error"] = str(error)
        return told

    @router.get("/results/video")
    def video(name: str, v: str = "", download: bool = False) -> FileResponse:
        headers = FOR_EVER if v else {}
        attached = f"{name}.mp4" if download else None
        return FileResponse(gallery.file(name), media_type="video/mp4", headers=headers, filename=attached)

    @router.get("/results/poster")
    async def poster(name: str, v: str = "") -> Response:
        file = gallery.file(name, ".webp")
        if not file.is_file():  # of a video that the command line made
            content = await studio.apart.run(looking.poster_of, gallery.file(name))
            with written(file) as temporary:
                temporary.write_bytes(content)
        return FileResponse(file, media_type="image/webp", headers=FOR_EVER if v else {})

    @router.post("/results/delete")
    async def delete(request: Request) -> dict[str, Any]:
        return {"ticket": gallery.delete((await said(request, Names)).names)}


def _bin(router: APIRouter, studio: Studio) -> None:
    @router.get("/bin")
    def bins() -> dict[str, Any]:
        return {"bins": studio.gallery.bins()}

    @router.post("/bin/restore")
    async def restore(request: Request) -> dict[str, Any]:
        return {"names": studio.gallery.restore((await said(request, Ticket)).ticket)}

    @router.post("/bin/empty")
    async def empty(request: Request) -> dict[str, Any]:
        await plain(request)
        return {"bytes": studio.gallery.empty()}


def shown(studio: Studio, entry: Entry) -> dict[str, Any]:
    """What a page's wall needs of a result."""
    facts = studio.gallery.facts(entry)
    own = facts.get("studio")
    own = own if isinstance(own, dict) else {}
    return {
        "name": entry.name,
        "made": entry.made / 1e9,
        "v": str(entry.made),
        "bytes": entry.bytes,
        "prompt": facts.get("prompt", ""),
        "seed": facts.get("seed"),
        "fps": facts.get("fps"),
        "frames": own.get("frames", facts.get("num_frames")),
        "width": own.get("width"),
        "height": own.get("height"),
        "model": own.get("model"),
        "loop": facts.get("loop", False),
    }
