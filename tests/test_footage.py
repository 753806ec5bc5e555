"""What footage is measured by, on photographs that a camera passes over, whole and spoiled; and the command on small models."""

import json

import numpy as np
import pytest
import torch
from photographs import SPOILED, blurred, drifted, frozen, moved, noisy, shots, shuffled
from playable import playable

from video_gen.cli import main
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.folder import write_quarantine
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.evaluate_footage import evaluate_footage
from video_gen.evaluation import footage
from video_gen.evaluation.features import drawn
from video_gen.evaluation.footage import Measures, VideoSet, alone, compare, gains
from video_gen.evaluation.footage_run import Chosen, given_frames
from video_gen.evaluation.intervals import mean
from video_gen.evaluation.lpips import LPIPS
from video_gen.training.known_data import remember_data

pytest.importorskip("torchmetrics")
CPU = torch.device("cpu")
UP, DOWN, SILENT = 1, -1, 0


@pytest.fixture(scope="module")
def lpips():
    return LPIPS.drawn()


@pytest.fixture(scope="module")
def clips():
    return shots(4)


def measured(clips, lpips):
    return {name: float(x.mean()) for name, x in compare(clips, shots(4), lpips, CPU).items()}


# -------------------- beside the true video


def test_the_same_is_without_fault(clips, lpips):
    found = compare(clips, clips, lpips, CPU)
    assert (found["psnr_clip"] > 90).all() and (found["drawn_lpips"] == 0).all() and (found["flicker"] == 0).all()
    assert found["ssim"] == pytest.approx(1, abs=1e-5) and found["psnr"].shape == found["ssim"].shape == (4, 9)


def test_likeness_is_that_of_skimage(clips, lpips):
    metrics = pytest.importorskip("skimage.metrics")
    made = noisy(clips, 15)
    found = compare(made, clips, lpips, CPU)
    assert found["psnr"][1, 2] == pytest.approx(metrics.peak_signal_noise_ratio(clips[1, 2], made[1, 2]), abs=1e-3)
    options = dict(channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    true = metrics.structural_similarity(clips[1, 2], made[1, 2], **options)
    assert found["ssim"][1, 2] == pytest.approx(true, abs=0.002)


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_likeness_falls_with_what_is_wrong(clips, lpips, spoil):
    rows = [measured(spoil(clips, much), lpips) for much in SPOILED[spoil]]
    for name, way in (("psnr_clip", DOWN), ("ssim", DOWN), ("drawn_lpips", UP)):
        values = [row[name] * way for row in rows]
        assert values[0] < values[1] < values[2], name
        print(spoil.__name__, SPOILED[spoil], name, [round(value * way, 3) for value in values])
    flicker = [row["flicker"] for row in rows]
    print(spoil.__name__, "flicker", [round(value, 1) for value in flicker])
    assert 0 < flicker[0] < flicker[1] < flicker[2]


# -------------------- of one video alone


HEARD = {
    ("sharpness", blurred): DOWN,
    ("sharpness", frozen): SILENT,
    ("sharpness", shuffled): SILENT,
    ("change", frozen): DOWN,
    ("change", noisy): UP,
    ("change", shuffled): UP,
    ("motion", frozen): DOWN,
    ("motion", shuffled): UP,
    ("vbench_flickering", noisy): DOWN,
    ("vbench_flickering", frozen): UP,
    ("vbench_smoothness", noisy): DOWN,
    ("vbench_smoothness", shuffled): DOWN,
}


@pytest.fixture(scope="module")
def heard():
    """Of each figure the values from whole to most spoiled."""
    measures, found = Measures(LPIPS.drawn(), 8.0, CPU), {}
    clips = np.stack([moved("coffee", 1), moved("astronaut", -0.5, 1)])
    for spoil, steps in SPOILED.items():
        for one in (clips, *(spoil(clips, much) for much in steps)):
            gathered = VideoSet()
            gathered.add(one, ["a", "b"], measures)
            for name, values in gathered.figures.items():
                found.setdefault((name, spoil), []).append(float(np.mean(values)))
    return found


@pytest.mark.parametrize("case", HEARD, ids=lambda case: f"{case[0]}-{case[1].__name__}")
def test_a_figure_hears_what_it_is_for_and_nothing_else(heard, case):
    values, way = np.array(heard[case]), HEARD[case]
    print(case[1].__name__, case[0], values.round(3).tolist())
    if way == SILENT:
        assert values == pytest.approx(values[0], rel=0.05)
    else:
        assert (np.diff(values) * way > 0).all(), values


def test_slow_drift_of_colours_is_no_motion(clips):
    still = np.repeat(clips[:1, :1], 9, axis=1)
    found = [alone(drifted(still, much)[0], 8)["motion"] for much in (0, 20, 50)]
    moves = alone(clips[0], 8)["motion"]
    assert found[0] == 0 and max(found) < 0.25 * moves


# -------------------- sets and intervals


def test_intervals_draw_files_and_not_clips():
    values = np.random.default_rng(0).normal(size=20).tolist()
    files = [f"{i:02}" for i in range(20)]
    once, four = mean(values, files), mean(np.repeat(values, 4).tolist(), np.repeat(files, 4).tolist())
    assert once == four and once.value == pytest.approx(np.mean(values), abs=1e-4)  # copies are no evidence
    assert np.isnan(mean(values, ["a"] * 20).low) and np.isnan(mean([float("nan")], ["a"]).value)
    uneven = mean([1.0, 1, 1, 4], ["a", "a", "a", "b"])
    assert uneven.value == 1.75 and (uneven.low, uneven.high) == (1, 4)


def test_frames_that_were_given_do_not_count(clips, lpips):
    measures, made = Measures(lpips, 8.0, CPU, (drawn(),)), clips.copy()
    made[:, :4] = 0
    one = VideoSet()
    one.add(made, list("abcd"), measures, true=clips, given=4, sides=["other", None, "other", None])
    assert min(one.figures["psnr"]) > 90 and list(one.frames("psnr")) == ["1", "2", "3", "4", "5"]
    features, files = one.side("other", "drawn")
    assert features.shape == (2, 32) and files == ["a", "c"] and len(one.shown) == 4


def test_gains_are_clip_for_clip(clips, lpips):
    measures, good, bad = Measures(lpips, 8.0, CPU), VideoSet(), VideoSet()
    files = list("abcd")
    for spoiled, one, samples in ((noisy(clips, 5), good, 2), (noisy(clips, 15), bad, 1)):
        flat, true = np.repeat(spoiled, samples, axis=0), np.repeat(clips, samples, axis=0)
        one.add(flat, np.repeat(files, samples).tolist(), measures, true=true, samples=samples)
    found = gains(good, bad, 2)
    assert found["psnr"]["low"] > 5 and found["drawn_lpips"]["high"] < 0
    apart = np.mean(good.figures["psnr"]) - np.mean(bad.figures["psnr"])
    assert found["psnr"]["value"] == pytest.approx(apart, abs=1e-3)


# -------------------- the command


def photographed(folder, count=12, frames=9, captions=True):
    folder.mkdir()
    for i, clip in enumerate(shots(count, frames=frames, size=32)):
        write_video(folder / f"{i}.mp4", clip, 24)
        if captions:
            (folder / f"{i}.txt").write_text(f"photograph {i % 4}")
    return folder


@pytest.fixture
def model(tmp_path):
    folder = photographed(tmp_path / "clips")
    pipe = playable(words=None)
    pipe.save_pretrained(tmp_path / "model")
    data = ClipConfig(folder=folder, num_frames=9, fps=24, height=16, width=16, validation_fraction=0.5)
    remember_data(tmp_path / "model" / "vae", data)
    return tmp_path / "model"


def test_the_command_on_a_model(model, tmp_path):
    found = evaluate_footage(
        tmp_path / "out", model, num_clips=4, given=3, samples=2, vbench=tmp_path / "vbench", num_steps=1
    )
    held_out = {
        Clips(ClipConfig(**json.loads((model / "vae/data.json").read_text())), "validation").name(i) for i in range(4)
    }
    assert len(held_out) == 4
    parts = found["parts"]
    assert set(parts["continuation"]["figures"]) == {"true", "vae", "last", "flow", "mean", "made"}
    assert list(parts["continuation"]["at"]["psnr"]["made"]) == ["1", "2", "3", "4", "5", "6"]
    assert set(parts["continuation"]["gains"]) == {"vae", "last", "flow", "mean"}
    assert parts["clips"]["figures"]["vae"]["psnr"]["low"] <= parts["clips"]["figures"]["vae"]["psnr"]["value"]
    assert parts["generation"]["figures"].keys() == {"made", "true"}
    assert (
        all("it takes" in row["refused"] for row in found["distances"])
        and found["protocol"]["features"]["drawn"]["weights"]
    )
    assert "0.5 of the files are held out" in found["protocol"]["clips"]
    assert json.loads((tmp_path / "out/footage.json").read_text()).keys() == found.keys()
    page = (tmp_path / "out/footage.html").read_text()
    assert page.count("<video") > 9 and "moved on by optical flow" in page and "refused" in page
    names = json.loads((tmp_path / "vbench/prompts.json").read_text())
    assert set(names.values()) <= {f"photograph {i}" for i in range(4)} and all("-" in name for name in names)


def test_a_vae_alone(model, tmp_path):
    found = evaluate_footage(tmp_path / "out", vae=model / "vae", num_clips=4)
    assert found["parts"].keys() == {"clips"} and found["parts"]["clips"]["figures"].keys() == {"true", "vae"}
    with pytest.raises(ConfigError, match="what is 'generation', which takes a whole model; give --model"):
        evaluate_footage(tmp_path / "out", vae=model / "vae", what=("generation",))


def test_two_folders_of_any_program(tmp_path, monkeypatch):
    monkeypatch.setattr("video_gen.evaluation.distances.LEAST", 3)
    monkeypatch.setattr("video_gen.evaluation.distances.PER_FEATURE", 0)
    real, other = photographed(tmp_path / "real", 16), tmp_path / "noisy"
    other.mkdir()
    for i, clip in enumerate(noisy(shots(8, seed=1, size=32), 60)):
        write_video(other / f"{i}.mp4", clip, 24)
    (other / "!.mp4").write_bytes(b"nonsense")
    write_quarantine(other, {"!.mp4": "unreadable"})
    found = evaluate_footage(tmp_path / "out", real=real, made=other)
    rows = {(row["distance"], row["set"]): row for row in found["distances"]}
    assert rows["frechet", "made"]["value"] > rows["frechet", "true"]["value"]
    assert rows["frechet", "made"]["low"] < rows["frechet", "made"]["value"] < rows["frechet", "made"]["high"]
    assert rows["kernel", "made"]["real"] == rows["kernel", "made"]["made"] == 8
    figures = found["parts"]["clips"]["figures"]
    assert figures["made"]["change"]["low"] > figures["true"]["change"]["high"]
    assert "9x32x32 at 24 fps" in found["protocol"]["clips"]


def test_what_does_not_fit_is_one_line_before_the_work(model, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="give one of --model, --vae, or both --real and --made"):
        evaluate_footage(out)
    with pytest.raises(ConfigError, match="both --real and --made"):
        evaluate_footage(out, real=tmp_path)
    for options in (
        dict(given=3),
        dict(samples=2),
        dict(vbench=tmp_path / "v"),
        dict(prompts=tmp_path / "p"),
        dict(repeats=1),
    ):
        with pytest.raises(ConfigError, match=r"which is for .*; add that to --what"):
            evaluate_footage(out, real=tmp_path, made=tmp_path, **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"which is for .*; add that to --what"):
            evaluate_footage(out, model, what=("vae",), **options)  # type: ignore[arg-type]
    for options in (dict(seed=0), dict(num_steps=4), dict(guidance_scale=2.0), dict(block_frames=2)):
        for source in (dict(real=tmp_path, made=tmp_path), dict(vae=model / "vae"), dict(model=model, what=("vae",))):
            with pytest.raises(ConfigError, match=r"and no video is made; leave it out"):
                evaluate_footage(out, **source, **options)  # type: ignore[arg-type]
    for options in (dict(what=("vae",)), dict(folder=tmp_path), dict(validation_fraction=0.5), dict(held_out=("a",))):
        with pytest.raises(ConfigError, match=r"with --real and --made all their clips are measured: leave it out"):
            evaluate_footage(out, real=tmp_path, made=tmp_path, **options)
    with pytest.raises(ConfigError, match="two have the same name"):
        evaluate_footage(out, model, features=("drawn", "drawn"))
    with pytest.raises(ShapeError, match=r"given is 4: .* 1 \+ a multiple of 2; nearest are 3 and 5"):
        evaluate_footage(out, model, given=4)
    with pytest.raises(ShapeError, match="given is 9, and a clip has 9 frames"):
        evaluate_footage(out, model, given=9)
    with pytest.raises(ConfigError, match="height is 32, and the model makes 16"):
        evaluate_footage(out, model, height=32)
    with pytest.raises(ShapeError, match="8 frames: the number must be 1"):
        evaluate_footage(out, model, num_frames=8)
    with pytest.raises(DataError, match=r"frechet distance by vae: \d videos on a side, and it takes 32"):
        evaluate_footage(out, model, features=("vae",))
    with pytest.raises(DataError, match="nothing of it is held out"):
        evaluate_footage(out, model, validation_fraction=0.0)
    assert not out.exists()


def test_the_command_line(model, tmp_path, capsys):
    words = ["--vae", str(model / "vae"), "--num-clips", "2", "--output", str(tmp_path / "out")]
    assert main(["evaluate", "footage", *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Flicker" in said and "footage.html" in said
    assert main(["evaluate", "footage", "--model", str(model), "--given", "8"]) == 2
    assert "nearest are 7 and 9" in capsys.readouterr().err


def test_given_frames_by_default_are_about_half():
    class Stub:
        def __init__(self, stride):
            self.config = type("Config", (), {"temporal_stride": stride})

    for frames, stride, want in ((17, 4, 9), (17, 1, 8), (9, 2, 5), (5, 4, 1), (33, 8, 17)):
        assert given_frames(None, ClipConfig(num_frames=frames), Stub(stride)) == want  # type: ignore[arg-type]
    assert given_frames(8, ClipConfig(num_frames=17), Stub(1)) == 8  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="a clip has 1 frames"):
        given_frames(None, ClipConfig(num_frames=1), Stub(4))  # type: ignore[arg-type]


def test_sides_share_no_file(model):
    data = ClipConfig(**json.loads((model / "vae/data.json").read_text())).replace(num_frames=3)
    chosen = Chosen.of(Clips(data), 100)
    sides = {
        side: {f for f, s in zip(chosen.files, chosen.sides) if s == side}
        for side in (footage.REFERENCE, footage.OTHER)
    }
    assert not sides["reference"] & sides["other"] and len(sides["reference"] | sides["other"]) == 12


def test_prompts_of_a_file_are_made_as_often_as_asked_for(model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red cat\n\na dog\n")
    options = dict(what=("generation",), prompts=tmp_path / "prompts.txt", repeats=2, num_clips=2, num_steps=1)
    found = evaluate_footage(tmp_path / "out", model, vbench=tmp_path / "v", **options)  # type: ignore[arg-type]
    names = {"a red cat-0.mp4", "a red cat-1.mp4", "a dog-0.mp4", "a dog-1.mp4"}
    assert {path.name for path in (tmp_path / "v/videos").iterdir()} == names
    assert {row["made"] for row in found["distances"] if row["set"] == "generation"} == {4}
    assert "continuation" not in found["parts"]
