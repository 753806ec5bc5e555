"""The maze as it is seen: rays cast through the map, all columns of many frames at a time.

A ray goes from cell to cell to the first wall or closed part of a door (Amanatides & Woo 1987, "A Fast Voxel Traversal Algorithm");
floors are found from the row of a pixel, things stand upright and turn to whoever looks. Everything is drawn at twice the
size, from textures as coarse as their distance asks for, and averaged down.
"""

from dataclasses import dataclass

import numpy as np

from video_gen.data.maze import DOOR, ROOMS_X, ROOMS_Y, WALL, Layout, Thing, Walk, make_layout
from video_gen.data.maze_textures import (
    LEVELS,
    SIZE,
    VARIANTS,
    Textures,
    door_of,
    floor_of,
    make_textures,
    sprite,
    wall_of,
)

FINER = 2
"""Pixels are averages of so many squared."""
HALF_VIEW = 0.66
"""Half the width of what is seen at distance 1: 67 degrees from side to side."""
DIM = 0.16
"""How much darker it gets with distance."""
PART = 48
"""Frames drawn at a time: more need memory and are no faster."""
CEILING = np.array([58, 62, 78], np.float32)
HEIGHTS = {"barrel": (0.0, 0.6), "plant": (0.0, 0.7), "lamp": (0.0, 0.95), "orb": (0.28, 0.72), "ghost": (0.15, 0.75)}
"""Where a thing begins and ends above the floor."""


@dataclass(frozen=True)
class _Hits:
    """Where the rays of frames end, each (f, w)."""

    distance: np.ndarray
    """Along the way one looks."""
    u: np.ndarray
    """Across the wall, 0 to 1."""
    texture: np.ndarray
    light: np.ndarray


def draw_walk(seed: int, layouts: int, walk: Walk, height: int, width: int) -> np.ndarray:
    """The clip of a walk, (f, h, w, 3) uint8."""
    layout = make_layout(seed, walk.layout)
    rooms = layouts * ROOMS_X * ROOMS_Y
    textures = make_textures(seed, rooms)
    frames = np.empty((len(walk.x), height, width, 3), np.uint8)
    for first in range(0, len(frames), PART):
        some = slice(first, first + PART)
        pose = (walk.x[some], walk.y[some], np.deg2rad(walk.heading[some]))
        frames[some] = _draw(layout, textures, rooms, pose, walk.doors[some], walk.time[some], height, width)
    return frames


def _draw(
    layout: Layout,
    textures: Textures,
    rooms: int,
    pose: tuple[np.ndarray, np.ndarray, np.ndarray],
    doors: np.ndarray,
    time: np.ndarray,
    height: int,
    width: int,
) -> np.ndarray:
    h, w = height * FINER, width * FINER
    hits = _cast(layout, rooms, pose, doors, w)
    focal = w / 2 / HALF_VIEW
    rows = np.arange(h, dtype=np.float32) + 0.5 - h / 2
    half = focal * 0.5 / hits.distance
    above = (rows[None, :, None] + half[:, None]) / (
        2 * half[:, None]
    )  # 0 at a wall's upper edge and 1 at its lower one
    is_wall = (above >= 0) & (above < 1)
    picture = np.empty((len(half), h, w, 3), np.float32)
    picture[:] = CEILING * (0.35 + 0.65 * np.abs(rows[:, None, None]) / (h / 2))
    f, r, c = np.nonzero(is_wall)
    level = _level(hits.distance, focal)
    found = textures.look_up(hits.texture[f, c], hits.u[f, c], above[f, r, c], level[f, c])
    picture[f, r, c] = found * hits.light[f, c, None]
    _draw_floor(picture, textures, layout, pose, is_wall, rows, focal)
    for thing in layout.things:
        _draw_thing(picture, thing, pose, time, hits.distance, rows, focal)
    small = picture.reshape(-1, height, FINER, width, FINER, 3).mean((2, 4))
    return small.clip(0, 255).round().astype(np.uint8)


def _rays(heading: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The way of each column's ray, (f, w) along x and along y; of length 1 along the way one looks."""
    across = HALF_VIEW * ((np.arange(width) + 0.5) / width * 2 - 1)
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    return cos - across * sin, sin + across * cos


def _cast(
    layout: Layout, rooms: int, pose: tuple[np.ndarray, np.ndarray, np.ndarray], doors: np.ndarray, width: int
) -> _Hits:
    x, y, heading = pose
    dx, dy = (way.ravel() for way in _rays(heading, width))
    frame = np.repeat(np.arange(len(x)), width)
    px, py = x[frame], y[frame]
    dx, dy = (np.where(np.abs(way) < 1e-9, 1e-9, way) for way in (dx, dy))
    cx, cy = np.floor(px).astype(int), np.floor(py).astype(int)
    step_x, step_y = np.sign(dx).astype(int), np.sign(dy).astype(int)
    to_x, to_y = (cx + (dx > 0) - px) / dx, (cy + (dy > 0) - py) / dy
    per_x, per_y = np.abs(1 / dx), np.abs(1 / dy)
    door_number = np.full(layout.cells.shape, -1)
    along_x = np.zeros(layout.cells.shape, bool)
    for index, (column, row, along) in enumerate(layout.doors):
        door_number[row, column], along_x[row, column] = index, along
    distance, u = np.zeros(len(px)), np.zeros(len(px))
    texture, light = np.zeros(len(px), int), np.ones(len(px))
    left = np.arange(len(px))
    while len(left):
        i = left
        by_x = to_x[i] < to_y[i]
        gone = np.where(by_x, to_x[i], to_y[i])
        from_x, from_y = cx[i], cy[i]
        cx[i] += np.where(by_x, step_x[i], 0)
        cy[i] += np.where(by_x, 0, step_y[i])
        to_x[i] += np.where(by_x, per_x[i], 0)
        to_y[i] += np.where(by_x, 0, per_y[i])
        cell = layout.cells[cy[i], cx[i]]
        wall = cell == WALL
        hit = i[wall]
        distance[hit] = gone[wall]
        place = np.where(by_x[wall], py[hit] + gone[wall] * dy[hit], px[hit] + gone[wall] * dx[hit]) % 1
        forth = np.where(by_x[wall], step_x[hit] < 0, step_y[hit] > 0)
        u[hit] = np.where(forth, 1 - place, place)
        variant = _variant(cx[hit], cy[hit], by_x[wall], forth)
        texture[hit] = wall_of(layout.rooms[from_y[wall], from_x[wall]], variant)
        light[hit] = np.where(by_x[wall], 0.78, 1.0)
        done = wall.copy()
        is_door = cell == DOOR
        if is_door.any():
            k = i[is_door]
            number, along = door_number[cy[k], cx[k]], along_x[cy[k], cx[k]]
            reach = np.where(along, (cx[k] + 0.5 - px[k]) / dx[k], (cy[k] + 0.5 - py[k]) / dy[k])
            across = np.where(along, py[k] + reach * dy[k] - cy[k], px[k] + reach * dx[k] - cx[k])
            opened = doors[frame[k], number]
            closed = (reach > 0) & (across >= 0) & (across < 1) & (across >= opened)
            at = k[closed]
            distance[at], u[at] = reach[closed], (across - opened)[closed].clip(0, 0.999)
            texture[at] = door_of(rooms)
            light[at] = np.where(along[closed], 0.85, 1.0)
            done[is_door] |= closed
        left = i[~done]
    shape = (len(x), width)
    light = light / (1 + DIM * distance)
    distance = np.maximum(distance, 0.05)
    u = np.minimum(u, 0.9999)
    return _Hits(*(a.reshape(shape) for a in (distance, u, texture, light)))  # type: ignore[arg-type]


def _variant(x: np.ndarray, y: np.ndarray, by_x: np.ndarray, forth: np.ndarray) -> np.ndarray:
    """Which of its walls a room has at a side of a cell: the same whenever one comes by."""
    mixed = (x * 7 + y * 13 + by_x * 5 + forth * 11) % 7
    return np.where(mixed < VARIANTS, mixed, 0)


def _level(distance: np.ndarray, focal: float) -> np.ndarray:
    """How coarse a texture is to be at a distance, so that one of its pixels is about one of the picture's."""
    return np.clip(np.log2(np.maximum(SIZE * distance / focal, 1e-6)).round(), 0, LEVELS - 1).astype(np.int32)


def _draw_floor(
    picture: np.ndarray,
    textures: Textures,
    layout: Layout,
    pose: tuple[np.ndarray, np.ndarray, np.ndarray],
    is_wall: np.ndarray,
    rows: np.ndarray,
    focal: float,
) -> None:
    x, y, heading = pose
    w = picture.shape[2]
    f, r, c = np.nonzero(~is_wall & (rows > 0)[None, :, None])
    distance = focal * 0.5 / rows[r]
    dx, dy = _rays(heading, w)
    at_x, at_y = x[f] + distance * dx[f, c], y[f] + distance * dy[f, c]
    cell_x = np.clip(np.floor(at_x).astype(int), 0, layout.cells.shape[1] - 1)
    cell_y = np.clip(np.floor(at_y).astype(int), 0, layout.cells.shape[0] - 1)
    texture = floor_of(np.maximum(layout.rooms[cell_y, cell_x], 0))
    level = _level(distance * 1.5, focal)
    colour = textures.look_up(texture, at_x % 1 * 0.9999, at_y % 1 * 0.9999, level)
    picture[f, r, c] = colour / (1 + DIM * distance)[:, None]


def _draw_thing(
    picture: np.ndarray,
    thing: Thing,
    pose: tuple[np.ndarray, np.ndarray, np.ndarray],
    time: np.ndarray,
    depth: np.ndarray,
    rows: np.ndarray,
    focal: float,
) -> None:
    x, y, heading = pose
    place = thing.at(time)
    dx, dy = place[:, 0] - x, place[:, 1] - y
    ahead = dx * np.cos(heading) + dy * np.sin(heading)
    aside = -dx * np.sin(heading) + dy * np.cos(heading)
    low, high = HEIGHTS[thing.kind]
    size = (high - low) * focal
    w = picture.shape[2]
    for f in np.flatnonzero(ahead > 0.3):
        columns = np.arange(w) + 0.5 - w / 2 - aside[f] / ahead[f] * focal
        u = columns / size * ahead[f] + 0.5
        v = (rows * ahead[f] / focal - 0.5 + high) / (high - low)
        c = np.flatnonzero((u >= 0) & (u < 1) & (depth[f] > ahead[f]))
        r = np.flatnonzero((v >= 0) & (v < 1))
        if not len(c) or not len(r):
            continue
        found = sprite(thing.kind, thing.hue)[np.ix_((v[r] * 32).astype(int), (u[c] * 32).astype(int))]
        under = picture[f][np.ix_(r, c)]
        colour = found[..., :3] / (1 + DIM * ahead[f] * 0.6)
        picture[f][np.ix_(r, c)] = under + found[..., 3:] * (colour - under)
