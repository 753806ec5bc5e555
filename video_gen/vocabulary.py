"""What can be done in a world: its keys and axes, in order. Data, models and pages read it. No torch."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from video_gen.config import Config, validate
from video_gen.errors import DataError
from video_gen.files import read_text
from video_gen.plain_json import parse


def _name(said: str) -> str:
    if not re.fullmatch(r"[^\s\x00-\x1f][^\x00-\x1f]{0,63}", said):
        raise ValueError("a name is one line of 1 to 64 characters, the first of them no blank; rename it")
    return said


Name = Annotated[str, AfterValidator(_name)]
ROUNDING = 1e-6
"""Share of an axis's range by which a value may lie outside of it: what rounding does, and no more."""


class Axis(Config):
    """A number that is set or changed at each frame."""

    name: Name
    unit: str = ""
    """Such as degrees."""
    low: float = -1.0
    """The least that one frame's value can be."""
    high: float = 1.0
    """The most."""
    kind: Literal["delta", "absolute"] = "absolute"
    """`delta`: a change, such as a turn of the mouse, and what two frames do adds up; `absolute`: a level, such as a stick."""

    @model_validator(mode="after")
    def _range(self):
        if not self.low < self.high:
            raise ValueError(
                f"axis '{self.name}' goes from low {self.low:g} to high {self.high:g}; low must be below high"
            )
        return self


class Action(Config):
    """What is done between one frame and the next."""

    keys: tuple[str, ...] = ()
    """Those held."""
    axes: dict[str, float] = Field(default_factory=dict)
    """Those that are not at rest."""


class Vocabulary(Config):
    """The keys and axes of a world, as `actions.json` has them."""

    keys: tuple[Name, ...] = ()
    """In the order in which a model sees them."""
    axes: tuple[Axis, ...] = ()
    """Likewise."""
    fps: float = Field(gt=0, le=1_000)
    """Actions a second, one for each frame of the videos."""

    @model_validator(mode="after")
    def _names(self):
        names = [*self.keys, *(axis.name for axis in self.axes)]
        if not names:
            raise ValueError("has neither keys nor axes; name what can be done")
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"'{twice[0]}' stands twice among keys and axes; name each once")
        return self

    @property
    def size(self) -> int:
        """Numbers of one action."""
        return len(self.keys) + len(self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.keys, *(axis.name for axis in self.axes))

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """The least and the most that each number of an action can be; keys are 0 or 1."""
        slacks = [ROUNDING * (axis.high - axis.low) for axis in self.axes]
        return [(0.0, 1.0)] * len(self.keys) + [(a.low - s, a.high + s) for a, s in zip(self.axes, slacks)]

    def same_actions(self, other: "Vocabulary") -> bool:
        """Whether both mean the same by an action; at what rate is another question."""
        return (self.keys, self.axes) == (other.keys, other.axes)

    def row(self, action: Action) -> list[float]:
        """An action as numbers (size,): 0 or 1 for keys, and axes in their own units, at rest 0 or, where that is out of range,
        the nearest to it.

        Raises: ValueError that names what does not fit, and says what does.
        """
        for kind, said, known in (
            ("key", action.keys, self.keys),
            ("axis", action.axes, [axis.name for axis in self.axes]),
        ):
            if unknown := [name for name in said if name not in known]:
                raise ValueError(f"unknown {kind} '{unknown[0]}'; the {kind}s are {', '.join(known) or 'none'}")
        held, row = set(action.keys), [float(key in action.keys) for key in self.keys]
        if len(held) < len(action.keys):
            raise ValueError(f"keys {list(action.keys)} name one twice")
        for axis, (low, high) in zip(self.axes, self.ranges[len(self.keys) :]):
            value = action.axes.get(axis.name, min(max(0.0, axis.low), axis.high))
            if not math.isfinite(value) or not low <= value <= high:
                raise ValueError(f"axis '{axis.name}' is {value:g}, out of its range {axis.low:g} to {axis.high:g}")
            row.append(value)
        return row

    def action(self, row: Sequence[float]) -> Action:
        """What `row` made."""
        keys = tuple(key for key, value in zip(self.keys, row) if value)
        axes = zip(self.axes, row[len(self.keys) :])
        return Action(keys=keys, axes={axis.name: float(value) for axis, value in axes if value})


def read_vocabulary(path: Path) -> Vocabulary:
    """An `actions.json`. Raises: DataError, ConfigError if it is damaged, or does not fit."""
    try:
        values = parse(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); it says which keys and axes there are: write it anew") from None
    return validate(Vocabulary, values, source=str(path))


def read_action(line: str, vocabulary: Vocabulary) -> list[float]:
    """A line of an actions file as `Vocabulary.row`. Raises: ValueError that says what does not fit."""
    try:
        said = parse(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    return vocabulary.row(parse_action(said))


def parse_action(said: Any) -> Action:
    """Plain values, as JSON has them, to an action. Raises: ValueError."""
    if not isinstance(said, Mapping):
        raise ValueError(f'is {type(said).__name__} and no object such as {{"keys": ["forward"], "axes": {{}}}}')
    if unknown := [key for key in said if key not in ("keys", "axes")]:
        raise ValueError(f"has '{unknown[0]}'; an action has keys and axes")
    keys, axes = said.get("keys", []), said.get("axes", {})
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"keys is {keys!r:.60}; it is a list of names")
    numbers = isinstance(axes, Mapping) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in axes.values()
    )
    if not numbers:
        raise ValueError(f'axes is {axes!r:.60}; it is an object such as {{"turn": -3.5}}')
    try:
        return Action.model_construct(keys=tuple(keys), axes={str(k): float(v) for k, v in axes.items()})
    except OverflowError:
        raise ValueError("axes holds a number that is too large") from None
