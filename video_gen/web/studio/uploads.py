"""Pictures and videos that a page sends: as large as may be, of a kind that their content says, looked at in a process apart."""

import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from video_gen.errors import DataError
from video_gen.files import explained, write_text, written
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.kinds import START, kind_of
from video_gen.web.studio.process import Apart, Elsewhere

looking = Elsewhere("video_gen.web.studio.looking")
LARGEST = 1 << 30
"""Bytes of a file."""
KINDS = {
    ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".bmp": "image/bmp",
    ".avif": "image/avif", ".mp4": "video/mp4", ".mov": "video/quicktime", ".mkv": "video/webm", ".avi": "video/x-msvideo",
}  # fmt: skip


class Uploads:
    """Files by their content: one that is sent twice is there once."""

    def __init__(self, folder: Path, apart: Apart):
        self.folder, self.apart = folder, apart

    async def take(self, parts: AsyncIterator[bytes], name: str) -> dict[str, Any]:
        """Keep a file. Returns: what it is. Raises: DataError if it is none that is taken; HTTPException if it is too large."""
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".coming-", dir=self.folder)
        whole = Path(temporary)
        try:
            start, digest, size = b"", hashlib.sha256(), 0
            with explained(self.folder), os.fdopen(handle, "wb") as file:
                async for part in parts:
                    size += len(part)
                    if size > LARGEST:
                        raise HTTPException(413, f"more than {LARGEST >> 20} MB; send a smaller file")
                    start = start if len(start) >= START else (start + part)[:START]
                    digest.update(part)
                    file.write(part)
            shown = name[-60:] or "the file"
            try:
                suffix = kind_of(start)
                whole = whole.rename(whole.with_suffix(suffix))
                found = await self.apart.run(looking.look_at, whole)
            except DataError as error:
                told = str(error).removeprefix(f"{whole}: ").replace(str(whole), shown)
                raise DataError(f"{shown}: {told}") from None
            return self._keep(whole, f"{digest.hexdigest()[:20]}{suffix}", found | {"name": shown})
        finally:
            whole.unlink(missing_ok=True)

    def _keep(self, file: Path, key: str, facts: dict[str, Any]) -> dict[str, Any]:
        poster = facts.pop("poster")
        facts["id"] = key
        with written(self.folder / f"{key}.poster") as temporary:
            temporary.write_bytes(poster)
        write_text(self.folder / f"{key}.json", json.dumps(facts))
        with explained(self.folder):
            os.replace(file, self.folder / key)
        return facts

    async def frame(self, video: Path, number: int) -> dict[str, Any]:
        """A frame of a video of ours as a picture that is kept. Raises: DataError."""
        content, at = await self.apart.run(looking.frame_of, video, number)

        async def whole() -> AsyncIterator[bytes]:
            yield content

        return await self.take(whole(), f"{video.stem}, frame {at}.png")

    def file(self, key: str, suffix: str = "") -> Path:
        """A file that was sent; of its poster or facts with a suffix. Raises: Missing."""
        stem, dot, kind = key.partition(".")
        if not (len(stem) == 20 and set(stem) <= set("0123456789abcdef") and f"{dot}{kind}" in KINDS):
            raise Missing(f"'{key[:60]}' is no file that was sent")
        path = self.folder / f"{key}{suffix}"
        if not path.is_file() or path.is_symlink():
            raise Missing(f"'{key[:60]}' is not there any more; send it again")
        return path
