"""The models that can be picked, and what each is set to. No torch; the Models page has more to say of them."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from video_gen.config import validate
from video_gen.errors import VideoGenError
from video_gen.plain_yaml import read_yaml
from video_gen.sampling.config import PipelineConfig
from video_gen.shipped import find_model, model_names
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.plain_files import whole
from video_gen.web.studio.roots import Roots, inside

LORA = "lora.safetensors"
NUMBER = re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,6})?")
PLACES = ("model", "*/model", "*/*/model")
"""Of models in a folder of runs."""
OTHERS = (".", "*", "*/*")
"""Of models that came from elsewhere, in such a folder."""
INDEX, LARGEST = "model_index.json", 1 << 20
"""Of a folder of diffusers."""


class Models:
    """Args: first: the one that was named at the start; runs: folders in which there may be more."""

    def __init__(self, first: str, runs: Roots):
        self.first, self.runs = first, runs

    def names(self) -> list[str]:
        """As a job names them: those that ship by name, others by path; the first one first."""
        return list(dict.fromkeys([self.first, *model_names(), *self._own()]))

    def loras(self) -> list[str]:
        """Those that runs have learned, as files."""
        return list(self._found(LORA))

    def check_lora(self, text: str) -> str:
        """Of FILE:SCALE what can be picked. Raises: Missing, as `check`."""
        known = self.loras()
        file, colon, scale = text.rpartition(":")
        if text in known or (colon and file in known and NUMBER.fullmatch(scale)):
            return text
        raise Missing(f"no LoRA '{text[:80]}' among those that can be picked")

    def check(self, name: str) -> str:
        """Raises: Missing if it is none that can be picked: no other folder of this machine is, and nothing of the Hub."""
        if name not in self.names():
            raise Missing(f"no model '{name[:80]}' among those that can be picked")
        return name

    def settings(self, name: str) -> dict[str, Any]:
        """Its clip and sampling, as far as its folder tells without loading it. Raises: Missing."""
        folder = find_model(self.check(name))
        try:
            file = None if folder is None else folder / "model.json"
            if file is None or not file.is_file():
                return {"name": name, "clip": None, "sampling": None}
            config = validate(PipelineConfig, read_yaml(file), str(file))
        except VideoGenError as error:
            return {"name": name, "clip": None, "sampling": None, "error": str(error)}
        return {"name": name, "clip": config.clip.model_dump(), "sampling": config.sampling.model_dump(mode="json")}

    def _own(self) -> Iterator[str]:
        places = (*PLACES, *OTHERS)
        yield from (str(Path(found).parent) for found in self._found("model.json", places))
        yield from (str(Path(found).parent) for found in self._found(INDEX, places) if _is_of_wan(Path(found)))

    def _found(self, name: str, places: tuple[str, ...] = PLACES) -> Iterator[str]:
        """Files of this name in the folders of runs."""
        for folder in self.runs.folders.values():
            for place in places:
                for found in sorted(folder.glob(f"{place}/{name}")):
                    if _lies_in(folder, found):
                        yield str(found)


def _is_of_wan(index: Path) -> bool:
    """Whether what diffusers saved is of the family that is read here."""
    with suppress(ValueError, RecursionError):
        told = json.loads(whole(index, LARGEST) or b"{}")
        return isinstance(told, dict) and str(told.get("_class_name")).startswith("Wan")
    return False


def _lies_in(folder: Path, found: Path) -> bool:
    try:
        inside(folder, found.relative_to(folder).as_posix())
    except Missing:
        return False
    return True
