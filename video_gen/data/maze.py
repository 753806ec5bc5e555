"""The built-in world that is walked through: layouts of rooms and doors, and what a walk does to where one is.

Lengths are in cells, x to the east and y to the south; a heading is in degrees, 0 = east and 90 = south. All is exact and
depends on the configuration and the index of the clip alone. `maze_view.py` draws it.
"""

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from video_gen.vocabulary import Vocabulary

ROOMS_X, ROOMS_Y, ROOM = 3, 2, 3
"""Rooms of a layout, and cells along a side of one."""
WIDTH, HEIGHT = ROOMS_X * (ROOM + 1) + 1, ROOMS_Y * (ROOM + 1) + 1
"""Cells of a layout, its outer walls included."""
FPS = 12.0
TURN = 10.0
"""Degrees a frame."""
STEP = 1 / 6
"""Cells a frame."""
RADIUS = 0.3
"""How near one gets to a wall."""
REACH = 1.3
"""How far away a door may be to be opened."""
DOOR_FRAMES, OPEN_FRAMES = 6, 36
"""Frames that a door takes to open, and stays so."""
PASSABLE = 0.85
"""Share of its opening that a door must have to let through."""
KEYS = ("forward", "back", "left", "right", "open")
VOCABULARY = Vocabulary(keys=KEYS, fps=FPS)
WALL, FREE, DOOR, PASSAGE = range(4)


@dataclass(frozen=True)
class Thing:
    """What stands in a room, or moves about in it."""

    kind: str
    """barrel, plant, lamp; orb, ghost, which move"""
    place: tuple[float, float]
    other: tuple[float, float]
    """Where it goes to and comes back from; `place` of what stands."""
    period: int = 1
    """Frames there and back."""
    hue: float = 0.0

    @property
    def solid(self) -> bool:
        return self.period == 1

    def at(self, times: np.ndarray) -> np.ndarray:
        """(f,) frame numbers to places (f, 2)."""
        phase = (times % self.period) / self.period
        share = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
        return np.array(self.place) + share[:, None] * (np.array(self.other) - np.array(self.place))


@dataclass(frozen=True)
class Layout:
    """One map."""

    cells: np.ndarray
    """(HEIGHT, WIDTH) of WALL, FREE, DOOR, PASSAGE."""
    rooms: np.ndarray
    """(HEIGHT, WIDTH) the number of the room of each cell that is none of wall, counted over all layouts; of a door or passage,
    that of the room before it."""
    doors: tuple[tuple[int, int, bool], ...]
    """(x, y, whether one goes through it along x)"""
    things: tuple[Thing, ...]

    @property
    def door_at(self) -> dict[tuple[int, int], int]:
        return {(x, y): index for index, (x, y, _) in enumerate(self.doors)}


@dataclass(frozen=True)
class Pose:
    """Where one stands, and how the doors do: all that the next frame depends on, besides the action."""

    x: float
    y: float
    heading: float
    """Degrees, 0 to 360."""
    doors: tuple[float, ...]
    """How far each is open, 0 to 1."""
    timers: tuple[int, ...]
    """Frames that each stays open."""
    time: int = 0


@dataclass(frozen=True)
class Walk:
    """A clip of the maze as it truly is."""

    layout: int
    x: np.ndarray
    """(f,)"""
    y: np.ndarray
    heading: np.ndarray
    """(f,) degrees"""
    doors: np.ndarray
    """(f, number of doors) how far each is open"""
    time: np.ndarray
    """(f,) by which what moves has moved"""
    keys: np.ndarray
    """(f, len(KEYS)) bool, what was held between a frame and the next"""


# -------------------- the map


def make_layout(seed: int, number: int) -> Layout:
    """The layout of that number: rooms in a grid, all within reach of each other."""
    rng = np.random.default_rng([seed, number, 0])
    cells = np.full((HEIGHT, WIDTH), WALL)
    rooms = np.full((HEIGHT, WIDTH), -1)
    first = number * ROOMS_X * ROOMS_Y
    for r in range(ROOMS_X * ROOMS_Y):
        x, y = _corner(r)
        cells[y : y + ROOM, x : x + ROOM] = FREE
        rooms[y : y + ROOM, x : x + ROOM] = first + r
    doors = []
    for a, b, needed in _links(rng):
        if not needed and rng.random() > 0.6:
            continue
        (x, y), along_x = _corner(a), b == a + 1
        at = int(rng.integers(ROOM))
        x, y = (x + ROOM, y + at) if along_x else (x + at, y + ROOM)
        is_door = rng.random() < 0.6
        cells[y, x], rooms[y, x] = DOOR if is_door else PASSAGE, first + a
        if is_door:
            doors.append((x, y, along_x))
    return Layout(cells, rooms, tuple(doors), tuple(_things(rng, cells)))


def _corner(room: int) -> tuple[int, int]:
    return 1 + (room % ROOMS_X) * (ROOM + 1), 1 + (room // ROOMS_X) * (ROOM + 1)


def _links(rng: np.random.Generator) -> list[tuple[int, int, bool]]:
    """Pairs of rooms side by side, and whether all would not be within reach without them."""
    pairs = [(r, r + 1) for r in range(ROOMS_X * ROOMS_Y) if r % ROOMS_X < ROOMS_X - 1]
    pairs += [(r, r + ROOMS_X) for r in range(ROOMS_X * (ROOMS_Y - 1))]
    group = list(range(ROOMS_X * ROOMS_Y))
    found = []
    for index in rng.permutation(len(pairs)):
        a, b = pairs[index]
        needed = group[a] != group[b]
        if needed:
            group = [group[a] if g == group[b] else g for g in group]
        found.append((a, b, needed))
    return found


def _things(rng: np.random.Generator, cells: np.ndarray) -> Iterator[Thing]:
    """In each room one thing in a corner where it is in nobody's way, or one that floats from side to side."""
    for room in range(ROOMS_X * ROOMS_Y):
        x, y = _corner(room)
        hue = float(rng.random())
        if room % 2 == int(rng.integers(2)):
            corners = [(x, y), (x + ROOM - 1, y), (x, y + ROOM - 1), (x + ROOM - 1, y + ROOM - 1)]
            quiet = [(cx, cy) for cx, cy in corners if not _opens(cells, cx, cy)]
            if quiet:
                cx, cy = quiet[int(rng.integers(len(quiet)))]
                kind = ("barrel", "plant", "lamp")[int(rng.integers(3))]
                yield Thing(kind, (cx + 0.5, cy + 0.5), (cx + 0.5, cy + 0.5), hue=hue)
        else:
            kind = ("orb", "ghost")[int(rng.integers(2))]
            middle = ROOM / 2
            a, b = ((x + 0.6, y + middle), (x + ROOM - 0.6, y + middle))
            if rng.random() < 0.5:
                a, b = ((x + middle, y + 0.6), (x + middle, y + ROOM - 0.6))
            yield Thing(kind, a, b, int(rng.integers(36, 72)), hue)


def _opens(cells: np.ndarray, x: int, y: int) -> bool:
    around = (cells[y, x - 1], cells[y, x + 1], cells[y - 1, x], cells[y + 1, x])
    return any(cell in (DOOR, PASSAGE) for cell in around)


# -------------------- what an action does


def advance(layout: Layout, pose: Pose, keys: set[str]) -> Pose:
    """Where one is a frame later."""
    heading = (pose.heading + TURN * (("right" in keys) - ("left" in keys))) % 360
    along = STEP * (("forward" in keys) - ("back" in keys))
    angle = np.deg2rad(heading)
    x, y = pose.x, pose.y
    if along:
        dx, dy = along * float(np.cos(angle)), along * float(np.sin(angle))
        if can_stand(layout, x + dx, y, pose.doors):
            x += dx
        if can_stand(layout, x, y + dy, pose.doors):
            y += dy
    doors, timers = list(pose.doors), list(pose.timers)
    faced = _faced(layout, x, y, heading) if "open" in keys else None
    for index, (cx, cy, _) in enumerate(layout.doors):
        within = abs(x - cx - 0.5) < 0.5 + RADIUS and abs(y - cy - 0.5) < 0.5 + RADIUS
        if index == faced or (within and timers[index]):
            timers[index] = OPEN_FRAMES
        aim = 1.0 if timers[index] else 0.0
        doors[index] = float(np.clip(doors[index] + np.sign(aim - doors[index]) / DOOR_FRAMES, 0, 1))
        timers[index] = max(0, timers[index] - 1)
    return Pose(x, y, heading, tuple(doors), tuple(timers), pose.time + 1)


def can_stand(layout: Layout, x: float, y: float, doors: tuple[float, ...] | None = None) -> bool:
    """Whether there is room at a place; `doors`: how far each is open, None = all are closed."""
    known = layout.door_at
    for cy in range(int(np.floor(y - RADIUS)), int(np.floor(y + RADIUS)) + 1):
        for cx in range(int(np.floor(x - RADIUS)), int(np.floor(x + RADIUS)) + 1):
            cell = layout.cells[cy, cx]
            if cell == WALL or (cell == DOOR and (doors is None or doors[known[cx, cy]] < PASSABLE)):
                return False
    return all((x - t.place[0]) ** 2 + (y - t.place[1]) ** 2 > (RADIUS + 0.2) ** 2 for t in layout.things if t.solid)


def _faced(layout: Layout, x: float, y: float, heading: float) -> int | None:
    """The door that one looks at from near by."""
    angle, known = np.deg2rad(heading), layout.door_at
    for distance in np.arange(0.1, REACH, 0.1):
        cell = int(x + distance * np.cos(angle)), int(y + distance * np.sin(angle))
        if cell in known:
            return known[cell]
        if layout.cells[cell[1], cell[0]] == WALL:
            return None
    return None


# -------------------- walking about


def start(layout: Layout, rng: np.random.Generator) -> Pose:
    """Somewhere in a room, looking somewhere, at some time."""
    places = np.argwhere(layout.cells == FREE)
    doors, timers = (0.0,) * len(layout.doors), (0,) * len(layout.doors)
    while True:
        cy, cx = places[int(rng.integers(len(places)))]
        x, y = cx + rng.uniform(RADIUS, 1 - RADIUS), cy + rng.uniform(RADIUS, 1 - RADIUS)
        if can_stand(layout, x, y):
            heading = TURN * int(rng.integers(round(360 / TURN)))
            return Pose(float(x), float(y), heading, doors, timers, int(rng.integers(10_000)))


def walk(seed: int, layouts: int, index: int, num_frames: int) -> Walk:
    """The walk of a clip: held keys of all lengths, looking round, standing still, walls run into, tours through doors."""
    number = index % layouts
    layout, rng = make_layout(seed, number), np.random.default_rng([seed, index, 1])
    pose, poses, held = start(layout, rng), [], []
    doing = _wander(layout, rng)
    next(doing)
    for _ in range(num_frames):
        keys = doing.send(pose)
        poses.append(pose)
        held.append([key in keys for key in KEYS])
        pose = advance(layout, pose, keys)
    return gather(number, poses, np.array(held))


def gather(layout: int, poses: list[Pose], keys: np.ndarray) -> Walk:
    """Poses one after another as a walk."""
    columns = ([p.x for p in poses], [p.y for p in poses], [p.heading for p in poses])
    x, y, heading = (np.array(column, dtype=np.float64) for column in columns)
    doors = np.array([p.doors for p in poses], dtype=np.float64).reshape(len(poses), -1)
    return Walk(layout, x, y, heading, doors, np.array([p.time for p in poses]), keys)


def _wander(layout: Layout, rng: np.random.Generator) -> Generator[set[str], Pose, None]:
    """Is sent a pose, and yields the keys held there. Starts with a bare `next`."""
    pose = yield set()
    while True:
        kind = rng.choice(["hold", "tour", "idle", "spin"], p=[0.45, 0.4, 0.08, 0.07])
        if kind == "tour":
            goal = tuple(rng.permutation(np.argwhere(layout.cells == FREE))[0][::-1])
            for _ in range(int(rng.integers(20, 90))):
                keys = _towards(layout, pose, goal, rng)
                if keys is None:
                    break
                pose = yield keys
            continue
        keys, length = _held(str(kind), rng)
        for _ in range(length):
            pose = yield keys
            if rng.random() < 0.02:
                pose = yield keys | {"open"}


def _held(kind: str, rng: np.random.Generator) -> tuple[set[str], int]:
    """Keys, and for how many frames they are held."""
    turn = "left" if rng.random() < 0.5 else "right"
    if kind == "idle":
        return set(), int(rng.integers(4, 40))
    if kind == "spin":
        return {turn}, int(rng.integers(24, 48))
    moves = [{"forward"}, {"forward", turn}, {turn}, {"back"}, {"back", turn}, {"open"}, set()]
    chosen = moves[int(rng.choice(len(moves), p=[0.34, 0.16, 0.26, 0.1, 0.04, 0.05, 0.05]))]
    longest = 3 if "open" in chosen else 16
    return chosen, int(rng.integers(1, longest + 1))


def _towards(layout: Layout, pose: Pose, goal: tuple[int, int], rng: np.random.Generator) -> set[str] | None:
    """The keys that lead to a cell; None = one is there, or there is no way."""
    here = int(pose.x), int(pose.y)
    way = _way(layout, here, goal)
    if len(way) < 2:
        return None
    middle = abs(pose.x - here[0] - 0.5) < 0.2 and abs(pose.y - here[1] - 0.5) < 0.2
    aim = way[1]
    bearing = np.rad2deg(np.arctan2(aim[1] + 0.5 - pose.y, aim[0] + 0.5 - pose.x))
    off = (bearing - pose.heading + 180) % 360 - 180
    keys = set()
    if abs(off) > TURN / 2:
        keys.add("right" if off > 0 else "left")
    if abs(off) < 3 * TURN or (not middle and abs(off) < 60):
        keys.add("forward")
    door = layout.door_at.get(aim)
    if door is not None and abs(off) <= TURN and pose.doors[door] < PASSABLE:
        keys = {"open"} if not pose.timers[door] else ({"forward"} if rng.random() < 0.3 else set())
    return keys


def _way(layout: Layout, here: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
    """The cells of a shortest way; empty if there is none."""
    solid = {(int(t.place[0]), int(t.place[1])) for t in layout.things if t.solid}
    came, queue = {goal: goal}, deque([goal])
    while queue:
        x, y = queue.popleft()
        if (x, y) == here:
            way = [here]
            while way[-1] != goal:
                way.append(came[way[-1]])
            return way
        for other in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if other not in came and layout.cells[other[1], other[0]] != WALL and other not in solid:
                came[other] = (x, y)
                queue.append(other)
    return []
