"""Recording a `gymnasium` environment: a policy that holds keys, the frames it leads to, and what the environment tells.

A policy of one habit makes a model that shows what is usual and not what is done. So keys are held for one step and for forty,
alone and together, with stretches in which nothing is done and others in which one runs into whatever is ahead.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.config import validate
from video_gen.data.action_files import beside, write_vocabulary
from video_gen.data.actions import write_actions
from video_gen.data.claim import claim
from video_gen.data.config import RecordConfig
from video_gen.data.metadata import add_rows
from video_gen.data.video_writer import write_video
from video_gen.data.views import fit
from video_gen.errors import ConfigError, DataError
from video_gen.files import written
from video_gen.plain_json import parse
from video_gen.vocabulary import Vocabulary

RECORDING = "recording.json"
MOST_STATE = 256
"""Numbers of a part of an observation up to which it is kept as state."""
MOST_FPS = 1_000
"""That a vocabulary can say."""
SHORTEST = 2
"""Frames of an episode that are worth a file."""
IDLE = ("noop", "no-op", "nothing", "idle", "none")


@dataclass(frozen=True)
class Controls:
    """An action space as keys and axes."""

    vocabulary: Vocabulary
    to_action: Callable[[np.ndarray], Any]
    """A row (a,) to what the environment takes."""
    exclusive: bool
    """Whether at most one key can be held."""
    idle: bool = True
    """Whether nothing can be done."""


@dataclass
class Policy:
    """What is done: a value, drawn anew when its time is over."""

    vocabulary: Vocabulary
    exclusive: bool
    rng: np.random.Generator
    idle: bool = True
    row: np.ndarray = field(init=False)
    left: int = 0

    def __call__(self) -> np.ndarray:
        """The row (a,) of the next frame."""
        if self.left <= 0:
            self.row, self.left = self._draw()
        self.left -= 1
        return self.row

    def _draw(self) -> tuple[np.ndarray, int]:
        rng, keys, axes = self.rng, len(self.vocabulary.keys), self.vocabulary.axes
        row = np.array([0.0] * keys + [min(max(0.0, axis.low), axis.high) for axis in axes])
        kind = rng.choice(["tap", "hold", "push", "idle"], p=[0.25, 0.45, 0.15, 0.15])
        low, high = {"tap": (1, 3), "hold": (3, 13), "push": (13, 41), "idle": (2, 31)}[str(kind)]
        length = int(rng.integers(low, high))
        if kind == "idle" and self.idle:
            return row, length
        if keys:
            count = 1 if self.exclusive else int(rng.choice([0, 1, 2, 3], p=[0.1, 0.55, 0.3, 0.05]))
            row[rng.permutation(keys)[:count]] = 1.0
        for index, axis in enumerate(axes, keys):
            if rng.random() < 0.8:
                row[index] = rng.uniform(axis.low, axis.high) * float(rng.choice([0.2, 1.0]))
                row[index] = min(max(row[index], axis.low), axis.high)
        return row, length


def record(config: RecordConfig, folder: Path, progress: Callable[[int, int], None] | None = None) -> tuple[int, int]:
    """Record the clips that the folder does not have yet.

    Returns: clips there are, and those of them that were there before.
    Raises: ConfigError if there is no such environment, or it has no pictures or no actions that can be written down; DataError
        if the folder holds another recording; KeyboardInterrupt, after which the same call goes on.
    """
    env, fps = open_env(config)
    try:
        controls = controls_of(env, fps)
        claim(folder, RECORDING, config.model_dump(mode="json", exclude={"clips"}), "recording")
        write_vocabulary(folder, controls.vocabulary)
        rows, before = [], 0
        for index in range(config.clips):
            name = f"clip_{index:06d}.mp4"
            if (folder / name).exists() and beside(folder / name).exists():
                before += 1
            else:
                _record_clip(env, config, controls, folder / name, config.seed + index, fps)
            rows.append({"file_name": name, "text": config.caption, "env": config.env, "seed": config.seed + index})
            if progress:
                progress(index + 1, config.clips)
        add_rows(folder, rows)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped: the clips made so far are in {folder}; the same command goes on") from None
    finally:
        env.close()
    return config.clips, before


def open_env(config: RecordConfig) -> tuple[Any, float]:
    """The environment, and frames a second. Raises: ConfigError if it cannot be had, or has no pictures."""
    try:
        import gymnasium
    except ImportError:
        raise ConfigError("data record: gymnasium is not installed; pip install 'video-gen[games]'") from None
    try:
        options = parse(config.options)
        if not isinstance(options, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise ConfigError(f'options is {config.options!r}: {error}; give JSON such as {{"frame_skip": 3}}') from None
    if not config.env:
        raise ConfigError("env is empty; name an environment of gymnasium, such as --env CarRacing-v3")
    try:
        env = gymnasium.make(config.env, render_mode="rgb_array", disable_env_checker=True, **options)
    except Exception as error:  # whatever an environment of somebody else's raises
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"env '{config.env}': cannot be made: {type(error).__name__}: {reason}") from None
    modes = env.metadata.get("render_modes", ())
    if "rgb_array" not in modes:
        env.close()
        raise ConfigError(
            f"env '{config.env}': has no pictures: it renders {', '.join(map(str, modes)) or 'nothing'}, and not rgb_array"
        )
    own: Any = env.metadata.get("render_fps")
    if config.fps is None and not (isinstance(own, Real) and 0 < float(own) / config.skip <= MOST_FPS):
        env.close()
        raise ConfigError(f"env '{config.env}': says {own or 'nothing'} of its frames a second; give --fps")
    return env, config.fps or float(own) / config.skip


def controls_of(env: Any, fps: float) -> Controls:
    """Keys and axes of an environment's action space. Raises: ConfigError for a space of another kind, or with none to choose."""
    from gymnasium import spaces

    space = env.action_space
    what = f"env '{env.spec.id if env.spec else type(env).__name__}': its actions are {space}"

    def vocabulary(**words: Any) -> Vocabulary:
        try:
            return validate(Vocabulary, words | {"fps": fps}, source=what)
        except ConfigError as error:
            raise ConfigError(f"{error}: wrap it, or choose another variant of it") from None

    names = _names(env)
    if isinstance(space, spaces.Discrete):
        known = names if len(names) == space.n else [f"action {i}" for i in range(int(space.n))]
        idle = next((i for i, name in enumerate(known) if name.lower() in IDLE), None)
        keys = [name for i, name in enumerate(known) if i != idle]
        places = [i for i in range(int(space.n)) if i != idle]

        def discrete(row: np.ndarray) -> int:
            return int(space.start) + (places[int(row.argmax())] if row.any() or idle is None else idle)

        return Controls(vocabulary(keys=keys), discrete, True, idle is not None)
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        keys = names if len(names) == space.shape[0] else [f"key {i}" for i in range(space.shape[0])]
        return Controls(vocabulary(keys=keys), lambda row: row.astype(space.dtype), False)
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and np.isfinite([space.low, space.high]).all():
        known = names if len(names) == space.shape[0] else [f"axis {i}" for i in range(space.shape[0])]
        axes = [{"name": n, "low": float(a), "high": float(b)} for n, a, b in zip(known, space.low, space.high)]
        return Controls(vocabulary(axes=axes), lambda row: row.astype(space.dtype), False)
    raise ConfigError(
        f"{what}; Discrete, MultiBinary and bounded Box of one dimension can be recorded: wrap it, or choose another variant of it"
    )


def _names(env: Any) -> list[str]:
    """What the environment calls its actions, if it does: in small letters, unless some differ in these alone."""
    inner = env.unwrapped
    game: Any = getattr(inner, "game", None)
    names = []
    if hasattr(inner, "get_action_meanings"):
        names = [str(name) for name in inner.get_action_meanings()]
    elif hasattr(game, "get_available_buttons"):  # ViZDoom
        names = [button.name for button in game.get_available_buttons()]
    small = [name.lower() for name in names]
    return small if len(set(small)) == len(set(names)) else names


def _record_clip(env: Any, config: RecordConfig, controls: Controls, video: Path, seed: int, fps: float) -> None:
    policy = Policy(controls.vocabulary, controls.exclusive, np.random.default_rng([seed, 3]), controls.idle)
    frames, rows, states = [], [], []
    observation, info = env.reset(seed=seed)
    while True:
        frames.append(_frame(env, config))
        states.append(dict(_state(observation, info)))
        row = policy()
        rows.append(row)
        if len(frames) == config.frames:
            break
        ended = False
        for _ in range(config.skip):
            observation, _, terminated, truncated, info = env.step(controls.to_action(row))
            ended = terminated or truncated
            if ended:
                break
        if ended and _has_gone(env):  # there is no picture of the end: what was done last led to nothing that is seen
            break
        if ended:  # what comes after belongs to another episode
            frames.append(_frame(env, config))
            states.append(dict(_state(observation, info)))
            rows.append(np.array(controls.vocabulary.row(controls.vocabulary.action([0.0] * len(row)))))
            break
    if len(frames) < SHORTEST:
        raise DataError(f"env '{config.env}': the episode of seed {seed} ends at once; choose another --seed")
    shapes = {name: value.shape for name, value in states[0].items()}
    same = [name for name in shapes if all(name in s and s[name].shape == shapes[name] for s in states)]
    kept = {name: np.stack([state[name] for state in states]) for name in same}
    state = video.parent / "state" / f"{video.stem}.npz"
    if kept:
        with written(state) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **kept)  # type: ignore[arg-type]
    write_video(video, np.stack(frames), fps, crf=8, metadata={"env": config.env, "seed": str(seed)})
    write_actions(video, rows, controls.vocabulary)  # last: killed while it codes, it leaves no actions of no video


def _has_gone(env: Any) -> bool:
    """Whether a game has closed its picture with its episode, as ViZDoom does."""
    game: Any = getattr(env.unwrapped, "game", None)
    return hasattr(game, "is_episode_finished") and game.is_episode_finished()


def _frame(env: Any, config: RecordConfig) -> np.ndarray:
    frame = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ConfigError(f"env '{config.env}': render() gives no (h, w, 3) uint8 picture; wrap it")
    height, width = config.height or frame.shape[0] // 2 * 2, config.width or frame.shape[1] // 2 * 2
    return np.array(fit(frame, height, width))  # its own: environments draw into the same picture again


def _state(observation: Any, info: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """What is no picture of an observation, and numbers of `info`."""
    parts = observation.items() if isinstance(observation, Mapping) else [("observation", observation)]
    for name, value in [*parts, *((f"info.{key}", value) for key, value in info.items())]:
        array = np.array(value) if isinstance(value, np.ndarray | int | float | np.number | np.bool_) else None
        if array is not None and array.size <= MOST_STATE and array.dtype.kind in "biuf":
            yield name, array
