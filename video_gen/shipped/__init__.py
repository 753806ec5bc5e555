"""What comes with the package: configurations and a trained model, each found by its name from any folder. No torch.

A name is looked for where one works first; what lies there wins. `configs/NAME.yaml` and `models/NAME` are the same names.
"""

import difflib
import re
from pathlib import Path

from video_gen.errors import ConfigError, DataError

CONFIGS = Path(__file__).resolve().parent / "configs"
MODELS = Path(__file__).resolve().parent / "models"
DEFAULT_MODEL = "bounce"
OWN_DEMO, OWN_VAE = Path("runs/demo/diffusion/model"), Path("runs/vae/model/vae")
OWN_MODELS = ("runs/*/model", "runs/*/*/model")
"""Where models of one's own are, seen from where one works."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def config_names() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def model_names() -> list[str]:
    return sorted(path.parent.name for path in MODELS.glob("*/model.json"))


def find_config(path: Path) -> Path:
    """A YAML file: one that is there, or the one of that name that ships. Raises: ConfigError that lists those."""
    if path.is_file():
        return path
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    if path.parent.name in ("", "configs") and name in config_names():
        return CONFIGS / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: is no file but a folder; give the YAML file in it")
    if close := difflib.get_close_matches(name, config_names(), n=1):
        hint = f"perhaps you meant '{close[0]}' ({about(CONFIGS / f'{close[0]}.yaml')}); there are {', '.join(config_names())}"
    else:
        known = (f"{name} ({about(CONFIGS / f'{name}.yaml')})" for name in config_names())
        hint = f"these ship with Video Gen: {', '.join(known)}"
    raise ConfigError(f"{path}: no such configuration file; {hint}")


def about(config: Path) -> str:
    """What a shipped configuration says of itself: the line below its command, up to the end of its first sentence."""
    lines = config.read_text(encoding="utf-8").splitlines()
    return re.split(r"[.:;] |$", lines[1].lstrip("# "), maxsplit=1)[0].rstrip(" .:;,")


def find_model(path: str | Path) -> Path | None:
    """A model folder, or a part of one: one that is there, or the one of that name that ships. None = neither."""
    path = Path(path)
    if path.is_dir():
        return path
    parts = path.parts[1:] if path.parts[:1] == ("models",) else path.parts
    shipped = MODELS.joinpath(*parts)
    return shipped if parts and parts[0] in model_names() and shipped.is_dir() else None


def default_model(own: Path = OWN_DEMO, part: str = "") -> Path:
    """The model where none is named: the run of one's own if it is there, else (that part of) the one that ships."""
    return own if own.is_dir() else Path(DEFAULT_MODEL, part)


def looks_like_hub_id(path: str | Path) -> bool:
    """Whether this can be OWNER/NAME on the Hub, and not a folder that was mistyped."""
    text = str(path)
    return (
        bool(HUB_ID.fullmatch(text))
        and Path(text).parts[0] not in ("runs", "models")
        and not Path(text).parent.is_dir()
    )


def no_such_model(path: str | Path, reason: str = "no such folder") -> DataError:
    """The error that names the models there are."""
    own = sorted(str(found) for pattern in OWN_MODELS for found in Path().glob(pattern) if found.is_dir())
    close = difflib.get_close_matches(str(path), [*model_names(), *own], n=1)
    hint = f"perhaps you meant '{close[0]}'; " if close else ""
    there = f"here: {', '.join(own)}" if own else "there is none of your own under runs/"
    return DataError(f"model {path}: {reason}; {hint}with Video Gen: {', '.join(model_names())}; {there}")
