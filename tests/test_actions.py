"""Actions beside clips: read, cut into windows, kept in the latent index; and what is refused."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
import torch
from odd_files import encode, number, numbered

from video_gen.data import latents as latents_module
from video_gen.data.action_files import beside, write_vocabulary
from video_gen.data.actions import at_rate, scaled, usage, window, write_actions
from video_gen.data.check import check
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.folder import look
from video_gen.data.latents import LatentSet, encode_clips, known_latents, known_vocabulary, stamp_of
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError
from video_gen.vocabulary import Axis, Vocabulary, read_vocabulary

TURN = Axis(name="turn", unit="degrees", low=-20, high=20, kind="delta")
LEVEL = Axis(name="throttle", low=0, high=1)
WORDS = Vocabulary(keys=("forward", "fire"), axes=(TURN, LEVEL), fps=8)
CONFIG = dict(num_frames=5, fps=8, height=16, width=16, validation_fraction=0.0)


def rows_of(frames, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.zeros((frames, 4))
    rows[:, :2] = rng.integers(0, 2, (frames, 2))
    rows[:, 2] = rng.integers(-30, 31, frames) * 0.625
    rows[:, 3] = rng.integers(0, 5, frames) / 4
    return rows


def make(folder, clips=2, frames=13, vocabulary=WORDS):
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder, vocabulary)
    for index in range(clips):
        rng = np.random.default_rng(index)
        video = np.cumsum(rng.integers(0, 12, (frames, 16, 16, 3)), axis=0).astype(np.uint8)
        write_video(folder / f"{index}.mp4", video, vocabulary.fps)
        write_actions(folder / f"{index}.mp4", rows_of(frames, index), vocabulary)
    return folder


def test_what_is_written_is_read_exactly(tmp_path):
    folder = make(tmp_path / "a")
    rows = rows_of(13)
    rows[3, 2] = 5.625
    write_actions(folder / "0.mp4", rows, WORDS)
    clips = Clips(ClipConfig(folder=folder, **CONFIG, stride=4))
    own = [i for i in range(len(clips)) if clips.name(i) == "0.mp4"]
    assert len(own) == 3
    for place, index in enumerate(own):
        np.testing.assert_array_equal(np.array(clips.actions[index])[:-1], rows[4 * place : 4 * place + 4])
        assert not np.array(clips.actions[index])[-1].any()
    assert 5.625 in {row[2] for row in clips.actions[own[0]]}


def test_windows_at_half_the_rate_or_keys_add_deltas_and_average_levels():
    rows = rows_of(13)
    found = window(rows, WORDS, start=0.25, frames=3, fps=4, shown_from=np.arange(13) / 8)
    for index, first in enumerate((2, 4)):
        both = rows[first : first + 2]
        np.testing.assert_array_equal(found[index], [*both[:, :2].max(0), both[:, 2].sum(), both[:, 3].mean()])
    halved = at_rate(WORDS, 4)
    assert (halved.axes[0].low, halved.axes[0].high, halved.axes[1].high) == (-40, 40, 1)
    assert np.abs(scaled(found, halved)).max() <= 1
    with pytest.raises(DataError, match="fps is 16"):
        at_rate(WORDS, 16)


@pytest.mark.parametrize("name, stamps", [("a.mp4", None), ("a.mkv", None), ("a.mp4", [0.0, 0.3, -0.3, 0.2])])
def test_actions_are_those_of_the_frames_that_are_shown(tmp_path, name, stamps):
    """Whatever the container rounds, and however a camera's clock trembles."""
    frames, late = 120, np.tile(stamps or [0.0], 120)[:120]
    encode(
        tmp_path / name,
        list(numbered(frames)),
        rate=24_000,
        stamps=[round((i + x) * 1000) + 400 for i, x in enumerate(late)],
        options={"bf": "0"},
    )
    lines = [json.dumps({"axes": {"n": i % 64}}) for i in range(frames)]
    beside(tmp_path / name).write_text("\n".join(lines))
    write_vocabulary(tmp_path, Vocabulary(axes=(Axis(name="n", low=0, high=99),), fps=24))
    clips = Clips(ClipConfig(folder=tmp_path, num_frames=93, fps=24, height=48, width=64, stride=9))
    for index in range(len(clips)):
        shown = [number(frame) for frame in clips[index].video]
        true = [np.mean([(a + i) % 64 for i in range(max(1, (b - a) % 64))]) for a, b in pairwise(shown)]
        assert [row[0] for row in clips.actions[index]][:-1] == true and len(shown) == 93
    assert len(clips) == 3


def test_a_variable_rate_with_actions_is_refused(tmp_path):
    stamps = [i * 1000 for i in range(10)] + [10_000 + i * 3000 for i in range(10)]
    encode(tmp_path / "a.mp4", list(numbered(20)), rate=24_000, stamps=stamps)
    beside(tmp_path / "a.mp4").write_text("{}\n" * 20)
    write_vocabulary(tmp_path, Vocabulary(keys=("a",), fps=12))
    config = ClipConfig(folder=tmp_path, num_frames=5, fps=12, height=48, width=64)
    said = "variable frame rate: its frames are 42 to 125 ms apart"
    with pytest.raises(DataError, match=said):
        Clips(config)
    assert said in check(config, workers=1).problems["bad actions"][0][1]


def test_actions_of_animated_pictures_are_read(tmp_path):
    write_video(tmp_path / "a.gif", numbered(12)[:, :16, :16], 10)
    write_vocabulary(tmp_path, Vocabulary(keys=("a",), fps=10))
    config = ClipConfig(folder=tmp_path, num_frames=9, fps=10, height=16, width=16)
    with pytest.raises(DataError, match=r"a\.gif: has no a\.actions\.jsonl beside it"):
        Clips(config)
    beside(tmp_path / "a.gif").write_text('{"keys": ["a"]}\n' * 12)
    assert Clips(config).actions == [((1.0,),) * 8 + ((0.0,),)]


def test_scaled_to_one():
    np.testing.assert_allclose(scaled(np.array([1.0, 0.0, -20.0, 0.75]), WORDS), [1, 0, -1, 0.5])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"keys": ["jump"]}', "unknown key 'jump'; the keys are forward, fire"),
        ('{"keys": [], "axes": {"turn": 21}}', "'turn' is 21, out of its range -20 to 20"),
        ('{"keys": [], "axes": {"tilt": 1}}', "unknown axis 'tilt'"),
        ('{"keys": "forward"}', "keys is 'forward'"),
        ('{"keyz": []}', "has 'keyz'"),
        ('{"axes": {"turn": true}}', "axes is"),
        ('{"axes": {"turn": NaN}}', "out of its range"),
        ('{"keys": ["fire", "fire"]}', "one twice"),
        ("[1, 2]", "is list"),
        ("{", "not JSON"),
        ('{"keys": ["fire"], "keys": []}', "'keys' is given twice; leave one out"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, line, said):
    folder = make(tmp_path / "a", clips=1)
    path = beside(folder / "0.mp4")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    with pytest.raises(DataError, match="line 3") as error:
        Clips(ClipConfig(folder=folder, **CONFIG))
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith(f"correct the line, or {folder / 'actions.json'}")


def test_missing_and_stray_files_and_wrong_numbers_of_lines_are_named(tmp_path):
    folder = make(tmp_path / "a", clips=3)
    path = beside(folder / "1.mp4")
    lines = path.read_text()
    path.write_text(lines + lines.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"1\.actions\.jsonl: has 14 lines, and 1\.mp4 has 13 frames"):
        Clips(ClipConfig(folder=folder, **CONFIG))
    path.unlink()
    with pytest.raises(DataError, match=r"1\.mp4: has no 1\.actions\.jsonl beside it"):
        Clips(ClipConfig(folder=folder, **CONFIG))
    report = check(ClipConfig(folder=folder, **CONFIG), quarantine=("bad actions",), workers=1)
    assert [name for name, _ in report.problems["bad actions"]] == ["1.mp4"]
    assert len(Clips(ClipConfig(folder=folder, **CONFIG))) == 4  # without the one in quarantine
    path.write_text(lines)
    (folder / "of nothing.actions.jsonl").write_text(lines)
    with pytest.raises(DataError, match=r"holds the actions of no video"):
        Clips(ClipConfig(folder=folder, **CONFIG))
    (folder / "of nothing.actions.jsonl").unlink()
    (folder / "actions.json").unlink()
    with pytest.raises(DataError, match=r"the folder has no actions\.json"):
        Clips(ClipConfig(folder=folder, **CONFIG))


def test_actions_json_in_a_folder_below_is_no_other_vocabulary(tmp_path):
    make(tmp_path / "below", clips=1)
    own, other = tmp_path / "actions.json", tmp_path / "below" / "actions.json"
    found = look(tmp_path)
    assert found.notes == [
        f"{other}: is not read, since actions.json stands in the folder itself; move it to {tmp_path}"
    ]
    own.write_text(other.read_text())
    assert look(tmp_path).notes == look(tmp_path).faults == []
    other.write_text('{"keys": ["zz"], "fps": 8}')
    with pytest.raises(DataError, match=rf"{other}: says other keys, axes or rate than {own}"):
        Clips(ClipConfig(folder=tmp_path, **CONFIG))


def test_vocabularies_that_do_not_fit(tmp_path):
    path = tmp_path / "actions.json"
    for text, said in (
        ('{"keys": ["a", "a"], "fps": 8}', "stands twice"),
        ('{"fps": 8}', "neither keys nor axes"),
        ('{"keys": ["a"]}', "fps"),
        ('{"axes": [{"name": "x", "low": 1, "high": 1}], "fps": 8}', "low must be below high"),
        ("nonsense", "not JSON"),
        ('{"keys": ["a"], "keys": ["b"], "fps": 8}', "'keys' is given twice"),
        ("[" * 100_000, "nested too deeply"),
    ):
        path.write_text(text)
        with pytest.raises((ConfigError, DataError), match=said):
            read_vocabulary(path)
    make(tmp_path / "a", clips=1)
    with pytest.raises(
        DataError, match="other keys, axes or rate than are written here: keys forward, fire, and not forward;"
    ):
        write_vocabulary(tmp_path / "a", WORDS.replace(keys=("forward",)))


def test_actions_of_another_rate_than_the_video_are_refused(tmp_path):
    folder = make(tmp_path / "a", clips=1)
    (folder / "actions.json").write_text(WORDS.replace(fps=10).model_dump_json())
    with pytest.raises(DataError, match=r"has 8 frames a second, and .*actions\.json says fps 10"):
        Clips(ClipConfig(folder=folder, **CONFIG))


def test_the_report_counts_presses_and_idling(tmp_path, capsys):
    from video_gen.data.check import render

    held = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    found = usage([held, held])
    assert (found.presses, found.longest, found.mean, round(found.share, 3)) == (4, 3, 2.5, 0.417)
    render(check(ClipConfig(folder=make(tmp_path / "a"), **CONFIG), workers=1))
    text = capsys.readouterr().out
    assert "nothing is done" in text and "forward" in text and "of -20 to 20 degrees (delta)" in text


def test_actions_go_along_in_the_index_and_changing_them_costs_no_encoding(tmp_path, monkeypatch):
    folder, store = make(tmp_path / "a"), tmp_path / "latents"
    config = ClipConfig(folder=folder, **CONFIG)
    encoded = []

    def encode(video):
        encoded.append(len(video))
        return torch.zeros(len(video), 2, 3, 2, 2)

    entries = encode_clips(Clips(config), encode, store, stamp_of(config))
    assert known_latents(store, config) == entries and known_vocabulary(store, config) == WORDS
    latents = LatentSet(store, entries, known_vocabulary(store, config))
    np.testing.assert_array_equal(latents.actions(0), scaled(np.array(entries[0].actions), WORDS))
    write_actions(folder / "0.mp4", rows_of(13, seed=5), WORDS)
    os.utime(beside(folder / "0.mp4"), (1, 1))
    assert known_latents(store, config) is None
    before = sum(encoded)
    again = encode_clips(Clips(config), encode, store, stamp_of(config))
    assert sum(encoded) == before and again != entries
    assert [e.clip_id for e in again] == [e.clip_id for e in entries]
    assert latents_module.read_index(next(store.glob("index-*.jsonl")))[1] == again


def test_stills_among_clips_with_actions_have_none(tmp_path):
    from PIL import Image

    folder = make(tmp_path / "a", clips=1)
    Image.new("RGB", (16, 16)).save(folder / "still.png")
    clips = Clips(ClipConfig(folder=folder, **CONFIG))
    still = next(i for i in range(len(clips)) if clips.name(i) == "still.png")
    assert clips.actions[still] == ((0.0,) * 4,)


def test_a_line_is_as_the_contract_says(tmp_path):
    folder = make(tmp_path / "a", clips=1)
    row = json.loads(beside(folder / "0.mp4").read_text().splitlines()[1])
    assert set(row) == {"keys", "axes"} and set(row["axes"]) <= {"turn", "throttle"}
