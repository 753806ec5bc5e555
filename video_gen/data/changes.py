"""How a scene of `bounce` turns into another: which captions follow one another, and what becomes of each object.

Objects that both captions name stay as they are. The others turn into one another where they are, in a quarter of a second, and
move on; what is left over fades out, and what is new fades in where there is room. A change of speed keeps all directions.
"""

from typing import Literal, get_args

import numpy as np

from video_gen.data.captions import COLOURS, MAX_OBJECTS, SHAPES, SPEEDS, Scene, Split, held_out, random_scene

Kind = Literal["colour", "shape", "both", "more", "less", "speed", "scene"]
"""What changes: an object's colour, its shape, both; one object more, one less; the speed; or everything."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHANGE_FRAMES = 4
"""Frames in which a change is done."""
Look = tuple[str, str]
"""(colour, shape)"""


def possible(scene: Scene) -> tuple[Kind, ...]:
    """The kinds of change that a scene can go through."""
    impossible = {"less"} if len(scene.objects) == 1 else {"more"} if len(scene.objects) == MAX_OBJECTS else set()
    return tuple(kind for kind in KINDS if kind not in impossible)


def changed(scene: Scene, kind: Kind, rng: np.random.Generator, split: Split) -> Scene:
    """Another scene, which differs by that kind of change and by no other; `scene` by anything."""
    while True:
        new = _changed(scene, kind, rng, split)
        if new != scene and (split == "held_out" or not any(held_out(*look) for look in new.objects)):
            return new


def become(before: Scene, after: Scene) -> list[tuple[Look | None, Look | None]]:
    """What becomes of each object: (look before, look after), None where it is not there.

    Those that turn into one another share a colour or a shape where they can.
    """
    old, new = list(before.objects), list(after.objects)
    pairs: list[tuple[Look | None, Look | None]] = []
    for least in (2, 1, 0):
        for look in list(old):
            match = next((other for other in new if sum(a == b for a, b in zip(look, other)) >= least), None)
            if match is not None:
                old.remove(look)
                new.remove(match)
                pairs.append((look, match))
    return [*pairs, *((look, None) for look in old), *((None, look) for look in new)]


def _changed(scene: Scene, kind: Kind, rng: np.random.Generator, split: Split) -> Scene:
    objects = list(scene.objects)
    if kind == "scene":
        return random_scene(rng, split)
    if kind == "speed":
        return Scene(scene.objects, SPEEDS[1 - SPEEDS.index(scene.speed)])
    place = int(rng.integers(len(objects)))
    colour, shape = objects[place]
    other_colour = _other(tuple(COLOURS), colour, rng)
    other_shape = _other(SHAPES, shape, rng)
    if kind == "more":
        objects.append((str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))))
    elif kind == "less":
        del objects[place]
    else:
        objects[place] = (other_colour if kind != "shape" else colour, other_shape if kind != "colour" else shape)
    return Scene(tuple(objects), scene.speed)


def _other(values: tuple[str, ...], than: str, rng: np.random.Generator) -> str:
    rest = [value for value in values if value != than]
    return rest[int(rng.integers(len(rest)))]
