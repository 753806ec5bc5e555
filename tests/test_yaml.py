"""Configuration files as people have them: what is meant is read, and what is wrong is one line that says where."""

import codecs

import pytest

from video_gen.cli import main
from video_gen.config import load_yaml
from video_gen.errors import ConfigError
from video_gen.plain_yaml import read_yaml
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun

LINE = "loop:\n  train_steps: 7\n"


@pytest.mark.parametrize(
    ("raw", "rate", "steps"),
    [
        (codecs.BOM_UTF8 + LINE.encode(), 1e-3, 7),
        (LINE.replace("\n", "\r\n").encode(), 1e-3, 7),
        (b"optim:\n  learning_rate: 5e-4\nloop:\n  train_steps: 1e3\n", 5e-4, 1000),
        (b"optim: {learning_rate: '5e-4'}\n", 5e-4, 1000),
        (b"optim: {learning_rate: +.5E-3}\n", 5e-4, 1000),
        (b"", 1e-3, 1000),
    ],
)
def test_what_is_meant_is_read(tmp_path, raw, rate, steps):
    (tmp_path / "a.yaml").write_bytes(raw)
    run = load_yaml(VAERun, tmp_path / "a.yaml")
    assert run.optim.learning_rate == rate and run.loop.train_steps == steps


def test_a_part_that_names_some_fields_keeps_the_rest(tmp_path):
    (tmp_path / "a.yaml").write_text("sampling: {num_steps: 8}\nmodes: {teacher_forcing: 1.0}\n", encoding="utf-8")
    run = load_yaml(DistillRun, tmp_path / "a.yaml")
    assert (run.sampling.solver, run.sampling.num_steps, run.sampling.guidance_scale) == ("renoise", 8, 1.0)
    assert run.modes.history_dropout == DistillRun().modes.history_dropout == 0.0
    (tmp_path / "b.yaml").write_text("vae: {preset: small, blocks: 1}\n", encoding="utf-8")
    vae = load_yaml(VAERun, tmp_path / "b.yaml").vae
    assert vae.widths == (64, 128, 256) and vae.blocks == 1


def test_a_merged_key_is_not_given_twice(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {seed: 3}\nb: {<<: *a, seed: 9}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"seed": 3}, "b": {"seed": 9}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"loop:\n  seed: 1\n  train_steps: 2\n  seed: 3\n", "'seed' is given twice, in lines 2 and 4; leave one out"),
        (b"loop: {seed: 1}\ndata: {}\nloop: {seed: 2}\n", "'loop' is given twice, in lines 1 and 3"),
        (b"loop:\n\ttrain_steps: 2\n", "line 2: found character '\\t' that cannot start any token; indent with blanks"),
        (b"- loop\n- data\n", "expected a mapping of settings, found list"),
        (b"just words", "expected a mapping of settings, found str"),
        (b"loop: [1\n", "not valid YAML: line 2: expected"),
        (b"\x00\x01\x02\xff", "is no text in UTF-8; a configuration is a YAML file"),
        (b"caf\xe9: 1", "is no text in UTF-8"),
        (b"[" * 3000, "nested too deeply"),
        (b"x" * (2 << 20), "is no text"),
        (b"loop: 2001-99-99\n", "not valid YAML"),
        (b"{[a]: 1}", "not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"data: {fps: .inf}\n", "'data.fps' is inf: Input should be a finite number"),
        (b"data: {fps: .nan}\n", "'data.fps' is nan"),
        (b"data: {fps: 1e300}\n", "'data.fps' is 1e+300: Input should be less than or equal to 1000"),
        (b"data: {fps: -1}\n", "'data.fps' is -1"),
        (b"optim: {betas: [.nan, 0.9]}\n", "'optim.betas.0' is nan"),
        (b"loop: {train_steps: 1000000000000}\n", "'loop.train_steps' is 1000000000000"),
        (b"vae: {widths: []}\n", "'vae.widths' is []: give at least 1"),
        (b"vae: {widths: [0]}\n", "'vae.widths.0' is 0"),
        (b"vae: {latent_mean: [.inf]}\n", "'vae.latent_mean.0' is inf"),
        (b"loop: {train_step: 3}\n", "unknown key 'loop.train_step'; perhaps you meant 'train_steps'"),
        (b"loop: {precision: bf61}\n", "perhaps you meant 'bf16'"),
        (b"loop:\n", "'loop' is None"),
        (b"1: {2: 3}\n", "'1' is 1: Keys should be strings"),
        (b"loop: {1: 3}\n", "'loop.1' is 1: Keys should be strings"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, raw, message):
    (tmp_path / "a.yaml").write_bytes(raw)
    for command in ("train", "plan"):
        assert main([command, "vae", str(tmp_path / "a.yaml")]) == 2
        error = capsys.readouterr().err
        assert message in error and str(tmp_path / "a.yaml") in error
        assert error.count("\n") == 1 and "pydantic" not in error and "http" not in error


def test_a_folder_is_no_configuration(tmp_path, capsys):
    (tmp_path / "folder.yaml").mkdir()
    assert main(["train", "vae", str(tmp_path / "folder.yaml")]) == 2
    assert "is no file but a folder" in capsys.readouterr().err


def test_stages_are_bounded_too(tmp_path):
    (tmp_path / "a.yaml").write_text("stages:\n  - data: {fps: .inf}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stages, number 1, data: 'fps' is inf"):
        load_yaml(DiffusionRun, tmp_path / "a.yaml")
