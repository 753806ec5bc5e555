"""What is known of every clip of a prepared data set, in one file: `manifest.parquet`, a row a piece of footage, kept or not.

Training and `data check` read it in place of every file. It needs pyarrow: pip install 'video-gen[footage]'.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from video_gen.data.packed import Packed, within
from video_gen.data.video_info import VideoInfo
from video_gen.errors import ConfigError, DataError
from video_gen.files import plain, written

MANIFEST = "manifest.parquet"
LATER = ("led", "actions_digest")
"""Columns that manifests from before they came do not have."""


@dataclass(frozen=True)
class Row:
    """A piece of a file of the pile. Those that are kept have a `file_name`, and know what training asks of it."""

    source: str
    """File in the pile."""
    source_digest: str
    """Of its content."""
    refused: str = ""
    """Why it is not kept: a word or two, a colon, and the figure. Empty = kept."""
    shot: int = 0
    start_frame: int = 0
    end_frame: int = 0
    start: float = 0.0
    """Seconds since the source's first frame."""
    end: float = 0.0
    top: float = 0.0
    """Black bars that were cropped, as shares of the picture."""
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0
    motion: float = 0.0
    """Percent of the diagonal a second; -1 = too short to tell."""
    light: float = 0.0
    contrast: float = 0.0
    sharpness: float = 0.0
    overlay: float = 0.0
    caption: str = ""
    changes: str = ""
    """Later captions, as JSON: [[seconds, text], ...]"""
    led: bool = False
    """Whether training always shows the last frame."""
    file_name: str = ""
    """Of the clip, in the folder, or in its shard."""
    shard: str = ""
    """The tar file that it lies in; empty = it is a file of its own."""
    offset: int = 0
    """Of its bytes in the shard."""
    size: int = 0
    """Bytes."""
    digest: str = ""
    """Of its content."""
    actions: bool = False
    """Whether there are actions beside it."""
    actions_offset: int = 0
    actions_size: int = 0
    """Of these in the shard."""
    actions_digest: str = ""
    """Of what is done in the source, and of what it means."""
    kind: str = "video"
    codec: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    num_frames: int = 0
    duration: float = 0.0
    tick: float = 0.0
    pixel_format: str = ""

    @property
    def end_in_shard(self) -> int:
        """Bytes that the shard has at least, for the clip to be there, and what is done in it."""
        return max(self.offset + self.size, self.actions_offset + self.actions_size)

    @property
    def info(self) -> VideoInfo:
        """What `probe` finds in the clip."""
        kind: Any = self.kind
        return VideoInfo(
            kind,
            self.codec,
            self.width,
            self.height,
            self.fps,
            self.num_frames,
            self.duration,
            0,
            False,
            self.pixel_format,
            self.tick,
        )


def place_of(row: Row, folder: Path | str) -> Path | Packed:
    """Where the clip of a row lies."""
    if not row.shard:
        return Path(folder) / row.file_name
    return Packed(within(folder, row.shard), row.offset, row.size, row.file_name)


def write_manifest(folder: Path, rows: list[Row]) -> None:
    """Whole or not at all. Raises: DataError if it cannot be written, ConfigError without pyarrow."""
    pa, pq = _arrow()
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    hints = get_type_hints(Row)
    schema = pa.schema([(field.name, kinds[hints[field.name]]) for field in fields(Row)])
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}
    for name in ("source", "refused"):  # which may hold names that are no UTF-8
        columns[name] = [plain(text) for text in columns[name]]
    with written(folder / MANIFEST) as temporary:
        pq.write_table(pa.table(columns, schema), temporary)


def read_manifest(path: Path | Any, name: str = "") -> list[Row]:
    """All rows. Args: path: a file, or one that is open; `name`: what it is called. Raises: DataError if it is damaged."""
    pa, pq = _arrow()
    try:
        table = pq.read_table(path)
        known = [field.name for field in fields(Row) if field.name in table.column_names or field.name not in LATER]
        columns = {name: table[name].to_pylist() for name in known}
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{name or path}: is no manifest of prepared footage, or damaged ({_line(error)}); prepare it again"
        ) from None
    return [Row(**dict(zip(known, values))) for values in zip(*columns.values())]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _arrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("prepared footage needs pyarrow; pip install 'video-gen[footage]'") from None
    return pa, pq
