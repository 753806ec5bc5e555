"""Models of the `transformers` library: from safetensors alone, and whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from video_gen.errors import ConfigError, DataError
from video_gen.model.pretrained import check_finite
from video_gen.model.shards import PICKLES, check_file, files_of, pickle_told

UNREAD = "pooler."
"""In the names of what some encoders have behind their last layer, which is not read here."""
WRITING = ("decoder.", "lm_head.")
"""The other half of a model that reads and writes, which may lie beside an encoder."""


def load_whole(kind: Any, name: str, what: str, subfolder: str | None = None) -> Any:
    """A model of the library, in eval mode.

    Args:
        kind: the library's class. name: a folder or Hub id, and `subfolder` in it; what holds the model alone has one, so there no
            weight may be left over.
        what: it is called so in errors.
    Raises: DataError if a folder's files are missing, damaged or a pickle, or if a weight is missing, left over or not finite;
        ConfigError if the library cannot load it.
    """
    folder = Path(name) / (subfolder or "")
    if folder.is_dir():
        check_weights(folder)
    where: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    try:
        with without_reports():
            model, told = kind.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **where
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: its {what} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    other = sorted(str(key[0]) for key in told["mismatched_keys"])
    missing = sorted(key for key in told["missing_keys"] if UNREAD not in key)
    left = sorted(key for key in told["unexpected_keys"] if subfolder and not key.startswith(WRITING))
    for keys, why in (
        (other, "has another shape than config.json says"), (missing, "is missing"), (left, "is there, which such a model has not"),
    ):  # fmt: skip
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise DataError(f"{folder}: of its {what} {keys[0]}{more} {why}; copy it again, whole")
    check_finite(model.state_dict(), what, folder)
    return model.eval()


def check_weights(folder: Path) -> None:
    """Raises: DataError if a folder has no safetensors, or one that is not whole."""
    found = files_of(folder)
    for files in found.values():
        for file in files:
            check_file(file)
    if found:
        return
    if pickle := next((file for file in sorted(folder.iterdir()) if file.suffix in PICKLES), None):
        raise DataError(pickle_told(pickle))
    raise DataError(f"{folder}: holds no .safetensors; copy the model again, whole")


@contextmanager
def without_reports() -> Iterator[None]:
    """The library tells in a table what it did not find, which here is an error, and draws a bar for each model."""
    from transformers.utils import logging  # type: ignore[import-not-found]

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
