"""Actions beside clips: `a.actions.jsonl` stands beside `a.mp4`, a line a frame; `actions.json` in the folder says what there is.

Neither torch nor numpy.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from video_gen.config import validate
from video_gen.data.packed import address_of, read_whole, within
from video_gen.errors import DataError
from video_gen.files import write_text
from video_gen.plain_json import parse
from video_gen.vocabulary import Vocabulary, read_vocabulary

SUFFIX = ".actions.jsonl"
FILE = "actions.json"


def beside(video: Path) -> Path:
    """Where the actions of a video are."""
    return video.with_name(video.stem + SUFFIX)


def find_vocabulary(folder: Path | str) -> Vocabulary | None:
    """What the folder's `actions.json` says; None if it has none. Raises: DataError, ConfigError if it does not fit."""
    if address_of(folder):
        place = within(folder, FILE)
        try:
            values = parse(read_whole(place))
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error}); prepare the folder again") from None
        return validate(Vocabulary, values, source=place)
    folder = Path(folder)
    return read_vocabulary(folder / FILE) if (folder / FILE).is_file() else None


def write_vocabulary(folder: Path, vocabulary: Vocabulary, anew: bool = False) -> None:
    """Write the folder's `actions.json`. Raises: DataError if it has another one already, unless it is written `anew`."""
    path = folder / FILE
    if path.is_file() and not anew:
        found = read_vocabulary(path)
        if found != vocabulary:
            told = next(_differences(found, vocabulary))
            raise DataError(
                f"{path}: says other keys, axes or rate than are written here: {told}; choose another folder"
            )
        return
    write_text(path, vocabulary.model_dump_json(indent=1))


def _differences(found: Vocabulary, wanted: Vocabulary) -> Iterator[str]:
    if found.keys != wanted.keys:
        yield f"keys {', '.join(found.keys) or 'none'}, and not {', '.join(wanted.keys) or 'none'}"
    for was, now in zip_longest(found.axes, wanted.axes):
        if was != now:
            yield f"axis {was}, and not {now}"
    if found.fps != wanted.fps:
        yield f"fps {found.fps:g}, and not {wanted.fps:g}"
