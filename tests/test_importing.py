"""Robot data sets of both kinds and both layouts each, made here as their programs write them."""

import json

import numpy as np
import pytest

from video_gen.cli import main
from video_gen.data.action_files import find_vocabulary
from video_gen.data.actions import read_actions
from video_gen.data.episodes import flat_names
from video_gen.data.importing import import_folder
from video_gen.data.video_file import all_frames
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError

arrow = pytest.importorskip("pyarrow")
h5py = pytest.importorskip("h5py")
from pyarrow import parquet  # noqa: E402

FPS, SIDE = 30, 16
LENGTHS = (5, 7, 4)
CAMERAS = ("observation.images.top", "observation.images.wrist")


def picture(episode, frame, camera=0):
    return np.full((SIDE, SIDE, 3), (40 * episode + 10, 12 * frame + 20, 100 * camera + 20), np.uint8)


def clip(episode, camera=0):
    return np.stack([picture(episode, f, camera) for f in range(LENGTHS[episode])])


def action(episode):
    return np.array([[0.1 * f, -episode, 5.625] for f in range(LENGTHS[episode])], np.float32)


def info(version, **paths):
    features = {name: {"dtype": "video", "shape": [SIDE, SIDE, 3]} for name in CAMERAS}
    features["action"] = {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "grip"]}}
    features["observation.state"] = {"dtype": "float32", "shape": [2], "names": None}
    return {"codebase_version": version, "fps": FPS, "chunks_size": 1000, "features": features} | paths


def table(episodes):
    rows: dict = {
        "action": [],
        "observation.state": [],
        "frame_index": [],
        "episode_index": [],
        "task_index": [],
        "timestamp": [],
    }
    for e in episodes:
        for f, act in enumerate(action(e)):
            rows["action"].append(act.tolist())
            rows["observation.state"].append([float(e), float(f)])
            rows["frame_index"].append(f)
            rows["episode_index"].append(e)
            rows["task_index"].append(e % 2)
            rows["timestamp"].append(np.float32(f / FPS) + 1e-3)  # never to be trusted
    return arrow.table(rows)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, np.ndarray):
        write_video(path, content, FPS, crf=0)
    else:
        parquet.write_table(content, path)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def version_2(folder):
    place = "chunk-{episode_chunk:03d}"
    paths = {
        "data_path": f"data/{place}/episode_{{episode_index:06d}}.parquet",
        "video_path": f"videos/{place}/{{video_key}}/episode_{{episode_index:06d}}.mp4",
    }
    put(folder / "meta/info.json", json.dumps(info("v2.1", **paths)))
    put(
        folder / "meta/tasks.jsonl",
        lines([{"task_index": 0, "task": "Pick it up."}, {"task_index": 1, "task": "Put it down."}]),
    )
    put(folder / "meta/episodes.jsonl", lines([{"episode_index": e, "length": n} for e, n in enumerate(LENGTHS)]))
    for e in range(3):
        put(folder / f"data/chunk-000/episode_{e:06d}.parquet", table([e]))
        for number, camera in enumerate(CAMERAS):
            put(folder / f"videos/chunk-000/{camera}/episode_{e:06d}.mp4", clip(e, number))
    return folder


def version_3(folder):
    """Episodes 0 and 1 in a file, 2 in another; of the second camera all in one, so that its offsets are others."""
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    put(folder / "meta/info.json", json.dumps(info("v3.0", **paths)))
    tasks = arrow.table({"task_index": [0, 1], "__index_level_0__": ["Pick it up.", "Put it down."]})
    put(folder / "meta/tasks.parquet", tasks)
    put(folder / "data/chunk-000/file-000.parquet", table([0, 1]))
    put(folder / "data/chunk-000/file-001.parquet", table([2]))
    top, wrist = CAMERAS
    put(folder / f"videos/{top}/chunk-000/file-000.mp4", np.concatenate([clip(0), clip(1)]))
    put(folder / f"videos/{top}/chunk-000/file-001.mp4", clip(2))
    put(folder / f"videos/{wrist}/chunk-000/file-000.mp4", np.concatenate([clip(e, 1) for e in range(3)]))
    starts = {top: (0, LENGTHS[0], 0), wrist: (0, LENGTHS[0], LENGTHS[0] + LENGTHS[1])}
    rows: dict = {"episode_index": [0, 1, 2], "length": list(LENGTHS)}
    rows |= {"data/chunk_index": [0, 0, 0], "data/file_index": [0, 0, 1]}
    for camera, files in ((top, [0, 0, 1]), (wrist, [0, 0, 0])):
        rows |= {f"videos/{camera}/chunk_index": [0, 0, 0], f"videos/{camera}/file_index": files}
        rows[f"videos/{camera}/from_timestamp"] = [s / FPS - 1e-9 for s in starts[camera]]
        rows[f"videos/{camera}/to_timestamp"] = [(s + n) / FPS for s, n in zip(starts[camera], LENGTHS)]
    put(folder / "meta/episodes/chunk-000/file-000.parquet", arrow.table(rows))
    return folder


def check_clips(out, camera=0, episodes=range(3)):
    words = find_vocabulary(out)
    for e in episodes:
        frames = np.stack([frame for _, frame in all_frames(out / f"episode_{e:06d}.mp4")]).astype(int)
        assert np.abs(frames - clip(e, camera)).max() <= 6
        np.testing.assert_array_equal(
            read_actions(out / f"episode_{e:06d}.actions.jsonl", words), action(e).astype(np.float64)
        )
    return words


@pytest.mark.parametrize("make", [version_2, version_3])
@pytest.mark.parametrize("camera", [0, 1])
def test_lerobot(tmp_path, make, camera):
    made, notes = import_folder("lerobot", make(tmp_path / "a"), tmp_path / "out", camera=("top", "wrist")[camera])
    words = check_clips(tmp_path / "out", camera)
    assert made == 3 and notes == [] and words.fps == FPS
    assert [axis.name for axis in words.axes] == ["x", "y", "grip"]
    assert [axis.kind for axis in words.axes] == ["absolute"] * 3
    assert (words.axes[0].low, round(words.axes[0].high, 4)) == (0, 0.6)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["Pick it up.", "Put it down.", "Pick it up."]
    state = np.load(tmp_path / "out" / "state" / "episode_000001.npz")["observation.state"]
    np.testing.assert_array_equal(state, [[1, f] for f in range(LENGTHS[1])])


def test_lerobot_says_what_it_takes_and_leaves_out(tmp_path):
    folder = version_2(tmp_path / "a")
    (folder / "data/chunk-000/episode_000001.parquet").unlink()
    made, notes = import_folder("lerobot", folder, tmp_path / "out")
    assert made == 2
    assert (
        "camera observation.images.top of" in notes[0]
        and "1 episodes have no files there, such as number 1" in notes[1]
    )


def test_lerobot_that_is_damaged(tmp_path, capsys):
    folder = version_2(tmp_path / "a")
    put(folder / f"videos/chunk-000/{CAMERAS[0]}/episode_000001.mp4", clip(1)[:-2])
    with pytest.raises(DataError, match="episode_000001: has 5 pictures and 7 rows"):
        import_folder("lerobot", folder, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"camera 'side': there is observation\.images\.top"):
        import_folder("lerobot", folder, tmp_path / "out", camera="side")
    (folder / "data/chunk-000/episode_000000.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"episode_000000\.parquet: cannot be read"):
        import_folder("lerobot", folder, tmp_path / "other")
    with pytest.raises(DataError, match=r"has no meta/info\.json"):
        import_folder("lerobot", tmp_path, tmp_path / "other")
    put(folder / "meta/info.json", json.dumps(info("v1.6")))
    assert main(["data", "import", "lerobot", str(folder), str(tmp_path / "other")]) == 2
    assert "versions 2 and 3" in capsys.readouterr().err


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_path": "data/{foo}.parquet"}, r"data_path is 'data/{foo}\.parquet' \(KeyError: 'foo'\)"),
        ({"data_path": 7}, "'data_path' is 7"),
        ({"fps": "abc"}, "'fps' is 'abc'"),
        ({"fps": 1200}, "'fps' is 1200"),
        ({"fps": None}, "says no fps; give --fps"),
        ({"features": ["action"]}, r"'features' is \['action'\]"),
        ({"chunks_size": 0}, "'chunks_size' is 0"),
        ({"features": info("v2.1")["features"] | {"action": {"names": ["a\nb", "y", "z"]}}}, "a name is one line"),
    ],
)
def test_lerobot_whose_description_is_damaged(tmp_path, changes, said):
    folder = version_2(tmp_path / "a")
    edited(folder / "meta/info.json", **changes)
    with pytest.raises((DataError, ConfigError), match=rf"meta/info\.json: .*{said}"):
        import_folder("lerobot", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def spoiled(episode, column, value):
    """A table of an episode in which a number of the third row is another one."""
    found = table([episode])
    values = found[column].to_pylist()
    values[2] = value
    return found.set_column(found.column_names.index(column), column, arrow.array(values))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table([]), "has no rows of actions"),
        (spoiled(1, "action", [0, float("nan"), 0]), "'y' of action 2 is nan"),
        (spoiled(1, "action", [0]), "column action holds no rows of as many numbers"),
        (spoiled(1, "frame_index", 7), "its frame_index does not count from 0"),
        (table([1]).slice(0, 6), "has 7 pictures and 6 rows of actions"),
    ],
)
def test_lerobot_whose_table_is_damaged(tmp_path, content, said):
    folder = version_2(tmp_path / "a")
    put(folder / "data/chunk-000/episode_000001.parquet", content)
    with pytest.raises(DataError, match=rf"episode_000001\.parquet.*: {said}"):
        import_folder("lerobot", folder, tmp_path / "out")


def test_lerobot_whose_other_files_are_damaged(tmp_path):
    folder = version_2(tmp_path / "a")
    put(folder / "meta/tasks.jsonl", lines([{"task_index": 0, "task": "Pick it up."}, {"index": 1}]))
    with pytest.raises(DataError, match=r"tasks\.jsonl, row 2: task_index is None"):
        import_folder("lerobot", folder, tmp_path / "out")
    three = version_3(tmp_path / "b")
    put(three / "data/chunk-000/file-001.parquet", table([2]).slice(0, 3))
    with pytest.raises(DataError, match=r"file-001\.parquet, episode_000002: has 4 pictures and 3 rows"):
        import_folder("lerobot", three, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"fps is 5, and .* says 30; leave it out"):
        import_folder("lerobot", three, tmp_path / "out", fps=5)


@pytest.mark.parametrize("make", ["lerobot", "minari"])
def test_ranges_are_those_of_all_episodes_whichever_are_imported(tmp_path, make):
    folder = version_2(tmp_path / "a") if make == "lerobot" else minari_hdf5(tmp_path / "a")
    for few in (1, None, 2):
        made, _ = import_folder(make, folder, tmp_path / "out", episodes=few, fps=FPS)
        assert made == (few or 3)
    assert find_vocabulary(tmp_path / "out").axes[1].low <= -2  # type: ignore[union-attr]


SPACES = {
    "observation_space": {
        "type": "Dict",
        "subspaces": {
            "image": {"type": "Box", "dtype": "uint8", "shape": [SIDE, SIDE, 3], "low": 0, "high": 255},
            "pose": {"type": "Box", "dtype": "float32", "shape": [2], "low": [0, 0], "high": [1, 1]},
        },
    },
    "action_space": {"type": "Box", "dtype": "float32", "shape": [3], "low": [-6, -6, -6], "high": [6, 6, 6]},
}


def minari_metadata(folder, **spaces):
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: json.dumps(space) for name, space in (SPACES | spaces).items()}
    (folder / "metadata.json").write_text(json.dumps({"total_episodes": 3} | written))


def minari_hdf5(folder):
    minari_metadata(folder / "data")
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for e in range(3):
            group = file.create_group(f"episode_{e}")
            seen = group.create_group("observations")
            seen["image"], seen["pose"] = clip(e), np.zeros((LENGTHS[e], 2), np.float32)
            group["actions"], group["rewards"] = action(e)[:-1], np.zeros(LENGTHS[e] - 1)
    return folder


def minari_arrow(folder):
    minari_metadata(folder / "data")
    for e in range(3):
        n, place = LENGTHS[e], folder / "data" / str(e)
        place.mkdir(parents=True)
        image = arrow.FixedSizeListArray.from_arrays(arrow.array(clip(e).reshape(-1)), SIDE * SIDE * 3)
        pose = arrow.FixedSizeListArray.from_arrays(arrow.array(np.zeros(2 * n, np.float32)), 2)
        padded = np.concatenate([action(e)[:-1], np.zeros((1, 3), np.float32)])  # as Minari pads the last row
        acts = arrow.FixedSizeListArray.from_arrays(arrow.array(padded.reshape(-1)), 3)
        seen = arrow.StructArray.from_arrays([image, pose], names=["image", "pose"])
        batch = arrow.record_batch({"observations": seen, "actions": acts, "rewards": arrow.array(np.zeros(n))})
        with arrow.OSFile(str(place / "part-0.arrow"), "wb") as file, arrow.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        (place / "metadata.json").write_text(json.dumps({"id": e, "total_steps": n - 1}))
    return folder


@pytest.mark.parametrize("make", [minari_hdf5, minari_arrow])
def test_minari(tmp_path, make):
    made, _ = import_folder("minari", make(tmp_path / "a"), tmp_path / "out", fps=20)
    words = find_vocabulary(tmp_path / "out")
    assert made == 3 and words is not None and words.fps == 20 and words.axes[0].high == 6
    for e in range(3):
        frames = np.stack([frame for _, frame in all_frames(tmp_path / "out" / f"episode_{e:06d}.mp4")]).astype(int)
        assert np.abs(frames - clip(e)).max() <= 6
        rows = read_actions(tmp_path / "out" / f"episode_{e:06d}.actions.jsonl", words)
        np.testing.assert_array_equal(rows[:-1], action(e)[:-1].astype(np.float64))
        assert len(rows) == LENGTHS[e]


def test_minari_with_choices_has_a_key_for_each(tmp_path):
    folder = tmp_path / "a"
    minari_metadata(folder / "data", action_space={"type": "Discrete", "n": 4, "start": 0})
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = clip(0), np.array([2, 0, 3, 3])
    import_folder("minari", folder, tmp_path / "out", fps=20)
    words = find_vocabulary(tmp_path / "out")
    assert words is not None and words.keys == ("action 0", "action 1", "action 2", "action 3")
    rows = read_actions(tmp_path / "out" / "episode_000000.actions.jsonl", words)
    assert rows[:-1].argmax(1).tolist() == [2, 0, 3, 3] and not rows[-1].any()


def test_minari_that_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="give --fps"):
        import_folder("minari", minari_hdf5(tmp_path / "a"), tmp_path / "out")
    folder = tmp_path / "b"
    minari_metadata(folder / "data")
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = np.zeros((5, 2)), np.zeros((4, 3))
    with pytest.raises(DataError, match="holds no pictures"):
        import_folder("minari", folder, tmp_path / "out", fps=20)


def minari_of(folder, actions, **spaces):
    """An episode with those actions."""
    minari_metadata(folder / "data", **spaces)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = clip(0)[: len(actions) + 1], actions
    return folder


@pytest.mark.parametrize(
    ("actions", "space", "said"),
    [
        (np.zeros((0, 3)), {}, r"main_data\.hdf5, episode_000000: has no actions"),
        (np.full((4, 3), np.nan), {}, r"main_data\.hdf5, episode_000000: 'axis 0' of action 0 is nan"),
        (np.array([0, 4]), {"type": "Discrete", "n": 4}, "episode_000000: has action 4, and there are 0 to 3"),
        (np.array([0, 1]), {"type": "Discrete", "n": "x"}, r"metadata\.json: action_space is damaged"),
        (np.array([0, 1]), {"type": "Tuple"}, r"metadata\.json: actions are Tuple"),
    ],
)
def test_minari_that_is_damaged(tmp_path, actions, space, said):
    folder = minari_of(tmp_path / "a", actions, action_space=space or SPACES["action_space"])
    with pytest.raises(DataError, match=said):
        import_folder("minari", folder, tmp_path / "out", fps=20)


def test_a_folder_whose_description_is_no_object_is_refused(tmp_path):
    folder = version_2(tmp_path / "a")
    put(tmp_path / "out/import.json", "[]")
    with pytest.raises(DataError, match=r"import\.json: damaged \(is list and no object\); choose another folder"):
        import_folder("lerobot", folder, tmp_path / "out")


def test_what_was_done_may_lie_outside_of_what_the_space_says(tmp_path):
    folder = minari_hdf5(tmp_path / "a")
    minari_metadata(folder / "data", action_space=SPACES["action_space"] | {"low": [-1, -1, -1], "high": [1, 1, 1]})
    import_folder("minari", folder, tmp_path / "out", fps=20)
    words = find_vocabulary(tmp_path / "out")
    assert words is not None and words.axes[2].high >= 5.625 and words.axes[0].low == -1
    read_actions(tmp_path / "out" / "episode_000000.actions.jsonl", words)


def test_another_import_does_not_mix_with_what_is_there(tmp_path):
    folder = version_2(tmp_path / "a")
    import_folder("lerobot", folder, tmp_path / "out", episodes=1)
    import_folder("lerobot", folder, tmp_path / "out", camera=None, episodes=1)
    with pytest.raises(DataError, match="holds another import \\(camera is None and not 'wrist'\\)"):
        import_folder("lerobot", folder, tmp_path / "out", camera="wrist")


def test_captions_that_somebody_changed_stay(tmp_path):
    folder, path = version_2(tmp_path / "a"), tmp_path / "out" / "metadata.jsonl"
    import_folder("lerobot", folder, tmp_path / "out")
    changed = path.read_text().replace("Pick it up.", "Lift it.")
    path.write_text(changed)
    import_folder("lerobot", folder, tmp_path / "out", episodes=1)
    assert path.read_text() == changed


def test_names_however_they_are_nested():
    assert flat_names([["a", "b"]], 2, "action") == ["a", "b"]
    assert flat_names({"motors": ["a", "b"]}, 2, "action") == ["a", "b"]
    assert flat_names({"a": 0, "b": 1}, 2, "action") == ["a", "b"]
    assert flat_names(None, 2, "action") == ["action 0", "action 1"]
    assert flat_names(["a", "a"], 2, "action") == ["action 0", "action 1"]
