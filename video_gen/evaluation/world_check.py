"""Whether the figures of a built-in world mean anything for a model: it must have been trained on that world."""

from collections.abc import Mapping, Sequence
from typing import Literal

from video_gen.data.config import WorldName
from video_gen.errors import ConfigError

ObjectWorld = Literal["bounce", "kicks"]
"""Worlds whose objects `recover` knows."""
MadeWorld = Literal["bounce", "kicks", "digits", "pendulum"]


def choose_world(models: Mapping[str, WorldName], asked: WorldName | None, known: Sequence[WorldName]) -> WorldName:
    """The world to measure: the one asked for, else that of the first model, if it is one of those `known`."""
    own = next(iter(models.values()))
    return asked or (own if own in known else known[0])


def check_world(models: Mapping[str, WorldName], wanted: WorldName, any_world: bool = False) -> list[str]:
    """What is to be said with the figures of the world `wanted` about models, given by name with the worlds they record.

    Returns: a sentence for each model of another world, or of an unknown one; none if all fit.
    Raises: ConfigError if there is such a model, unless `any_world`.
    """
    others: dict[str, WorldName] = {name: found for name, found in models.items() if found != wanted}
    if others and not any_world:
        name, found = next(iter(others.items()))
        if found == "unknown":
            remedy = f'write "world": "{wanted}" into its model.json if it was this one'
        else:
            remedy = "measure a model of this world"
        raise ConfigError(
            f"{_trained(name, found)}, and what is to be measured is the world '{wanted}'; {remedy}, or add --any-world"
        )
    return [f"{_trained(name, found)}: {_meaning(found, wanted)}" for name, found in others.items()]


def _trained(name: str, found: WorldName) -> str:
    if found == "unknown":
        return f"model {name} does not say on which world it was trained"
    on = "clips of no built-in world" if found == "none" else f"the world '{found}'"
    return f"model {name} was trained on {on}"


def _meaning(found: WorldName, wanted: WorldName) -> str:
    if found == "unknown":
        return f"its figures mean what they say if it was '{wanted}'"
    return f"its figures tell how far its videos are from the world '{wanted}', and not how good they are"
