"""The small language of the built-in worlds: "two red circles and a blue square, fast", written and read back."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 240),
    "yellow": (240, 220, 40),
    "purple": (170, 50, 210),
    "orange": (250, 140, 30),
    "cyan": (40, 210, 220),
    "white": (240, 240, 240),
}
BACKGROUND = (16, 16, 24)
SHAPES = ("circle", "square", "triangle")
SPEEDS = ("slow", "fast")
NUMBERS = ("no", "a", "two", "three")
MAX_OBJECTS = 3
VOWELS = "aeiou8"
"""What words begin with that take "an"; of digits, 8."""

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Scene:
    """What a clip of `bounce` or `kicks` shows."""

    objects: tuple[tuple[str, str], ...]
    """(colour, shape) of each, in the order of COLOURS and SHAPES."""
    speed: str

    def __post_init__(self):
        order = {c: i for i, c in enumerate(COLOURS)}, {s: i for i, s in enumerate(SHAPES)}
        ordered = tuple(sorted(self.objects, key=lambda o: (order[0][o[0]], order[1][o[1]])))
        object.__setattr__(self, "objects", ordered)


def with_article(words: str) -> str:
    """Such as "a red circle", "an orange square", "an 8"."""
    return f"{'an' if words[0] in VOWELS else 'a'} {words}"


def caption(scene: Scene) -> str:
    """The scene in words; equal objects are counted."""
    groups = []
    for (colour, shape), number in Counter(scene.objects).items():
        groups.append(f"{NUMBERS[number]} {colour} {shape}s" if number > 1 else with_article(f"{colour} {shape}"))
    listed = groups[0] if len(groups) == 1 else f"{', '.join(groups[:-1])} and {groups[-1]}"
    return f"{listed}, {scene.speed}"


def parse_caption(text: str) -> Scene | None:
    """The inverse of `caption`; None if the text is not of this language. "a orange circle" is read, too."""
    text = re.sub(rf"\ba (?=[{VOWELS}])", "an ", text)
    listed, _, speed = text.rpartition(", ")
    objects: list[tuple[str, str]] = []
    for group in re.split(r", | and ", listed):
        words = group.split(" ")
        if len(words) != 3 or words[0] not in (*NUMBERS[1:], "an"):
            return None
        number, colour, shape = NUMBERS.index(words[0].removesuffix("n")), words[1], words[2]
        if number > 1 and shape.endswith("s"):
            shape = shape[:-1]
        if colour not in COLOURS or shape not in SHAPES:
            return None
        objects += [(colour, shape)] * number
    if speed not in SPEEDS or not 1 <= len(objects) <= MAX_OBJECTS:
        return None
    scene = Scene(tuple(objects), speed)
    return scene if caption(scene) == text else None


def held_out(colour: str, shape: str) -> bool:
    """Combinations that training never shows: a third of the shapes of every second colour, so that each colour and each
    shape is seen with others."""
    index = list(COLOURS).index(colour)
    return index % 2 == 0 and SHAPES[(index // 2) % len(SHAPES)] == shape


def random_scene(rng: np.random.Generator, split: Split) -> Scene:
    """1 to 3 objects. `train` shows no held-out combination, `held_out` at least one."""
    every = [(c, s) for c in COLOURS for s in SHAPES]
    seen = [o for o in every if not held_out(*o)]
    unseen = [o for o in every if held_out(*o)]
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    pool = seen if split == "train" else every
    objects = [pool[rng.integers(len(pool))] for _ in range(count)]
    if split == "held_out":
        objects[0] = unseen[rng.integers(len(unseen))]
    return Scene(tuple(objects), SPEEDS[rng.integers(len(SPEEDS))])


def random_captions(count: int, seed: int, split: Split = "train") -> list[str]:
    """Captions to sample from, the same ones for the same seed."""
    rng = np.random.default_rng([seed, 0xCA9])
    return [caption(random_scene(rng, split)) for _ in range(count)]
