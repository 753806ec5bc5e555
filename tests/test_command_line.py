"""The command line as a person meets it: every mistake one line with the remedy, every option explained, names found anywhere."""

import re
import shlex
import subprocess
import sys
import time

import pytest
import torch
from pydantic import ValidationError

from video_gen import __version__, progress
from video_gen.arguments.generate import Sample
from video_gen.arguments.train import TrainVAE
from video_gen.cli import COMMANDS, main, of_what
from video_gen.command_line import find, handed_over, parse, read
from video_gen.config import load_yaml
from video_gen.errors import ConfigError, DataError, exit_code
from video_gen.model.pretrained import local_folder
from video_gen.options import options_of
from video_gen.sampling.config import SamplingConfig
from video_gen.shipped import CONFIGS, MODELS, config_names, default_model
from video_gen.training.recipes import DiffusionRun, VAERun


def parsed(line: str):
    words = of_what(shlex.split(line))
    names, command = find(COMMANDS, words)
    return parse(names, command, words[len(names) :])


# -------------------- options


def test_every_option_has_a_help_text():
    for names, command in COMMANDS.items():
        for option in options_of(command.kind):
            assert (option.field.description or "").strip(), f"{' '.join(names)} {option.name}"


def test_what_is_measured_or_taken_from_elsewhere_is_no_option():
    names = {option.name for command in COMMANDS.values() for option in options_of(command.kind)}
    hidden = {"--vae.latent-mean", "--vae.latent-std", "--transformer.latent-channels", "--transformer.text-width"}
    assert not names & {*hidden, "--stages"} and "--vae.latent-channels" in names
    assert VAERun.model_validate({"vae": {"latent_channels": 1, "latent_mean": [0.5]}}).vae.latent_mean == (0.5,)


def test_every_setting_of_sampling_can_be_said():
    given = handed_over(
        parsed("sample x --late-scale .5 3 --negative-prompt grey --guidance-optimal-scale --times .9 .4")
    )
    assert (
        given["late_scale"] == (0.5, 3.0) and given["guidance_optimal_scale"] is True and given["times"] == (0.9, 0.4)
    )
    names = {option.path[-1] for option in options_of(Sample)}
    assert set(SamplingConfig.model_fields) - names == {"action_scale"}  # of worlds that are played
    with pytest.raises(ConfigError, match="--shift"):
        parsed("sample x --shift 0")


def test_values_of_all_forms():
    found = parsed(
        "train vae --data.buckets 17 64 64 9 32 48 --optim.betas 0.8 .9 --optim.adam-names a b --loop.no-tensorboard "
        "--vae.stem 4 --data.stride=3 --loop.train_steps 9 --vae.widths 8 16 --run somewhere"
    )
    assert found.run.data.buckets == ((17, 64, 64), (9, 32, 48)) and found.run.optim.betas == (0.8, 0.9)
    assert found.run.optim.adam_names == ("a", "b") and not found.run.loop.tensorboard and found.run.vae.stem == 4
    assert found.run.data.stride == 3 and found.run.loop.train_steps == 9 and found.run.vae.widths == (8, 16)
    assert handed_over(found)["run_dir"].name == "somewhere" and handed_over(found)["run"] is found.run
    assert parsed("train diffusion --diffusion.shift auto").run.diffusion.shift == "auto"
    assert parsed("train diffusion --diffusion.shift 2").run.diffusion.shift == 2.0
    assert parsed("data check my-clips --quarantine").quarantine == ()


def test_none_takes_back_what_a_file_sets_and_what_is_not_said_stays_unsaid(tmp_path):
    (tmp_path / "a.yaml").write_text("crop: 32\ndata: {stride: 4}\n", encoding="utf-8")
    run = parsed(f"train vae {tmp_path / 'a.yaml'} --crop None --data.fps 16").run
    assert run.crop is None and run.data.stride == 4
    assert run.data.model_fields_set == {"stride", "fps"} and run.loop.model_fields_set == set()


def test_groups_are_handed_over_one_by_one_and_without_what_is_not_given():
    given = handed_over(parsed("sample 'a circle' -n 2 --solver sde --guidance-scale 1"))
    assert given["prompt"] == "a circle" and given["count"] == 2 and given["guidance_scale"] == 1
    assert given["solver"] == "sde" and not {"num_steps", "image", "model", "sampling"} & given.keys()


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("sample '-3 degrees, snow'", "-3 degrees, snow"),
        ("sample --seed 1 '--- a ship ---'", "--- a ship ---"),
        ("sample --seed 1 -- --help", "--help"),
        ("sample -- -1", "-1"),
        ("sample ''", ""),
        ("stream -- -x", "-x"),
    ],
)
def test_a_prompt_may_begin_with_a_dash(line, prompt):
    assert parsed(line).prompt == prompt


MISTAKES = [
    ("sample --sede 3", "has no option --sede; perhaps you meant --seed"),
    ("sample -1", "a text that begins with a dash goes last, after --: video-gen sample ... -- '-1'"),
    ("train vae --train-steps 3", "perhaps you meant --loop.train-steps"),
    ("train vae --loop.train-step 3", "perhaps you meant --loop.train-steps"),
    ("train vae --vae.latent-mean 1", "has no option --vae.latent-mean"),
    ("sample a red circle", "'red' is one word too many; put a text of several words in quotes"),
    ("worlds extra", "'extra' is one word too many"),
    ("train vae --crop 8 demo-vae.yaml", "'demo-vae.yaml' is one word too many; a YAML file comes first"),
    ("sample --solver", "--solver needs a value: euler|heun|two_step|unipc|sde|renoise"),
    ("sample --solver --seed 1", "--solver needs a value"),
    ("sample --solver ''", "'--solver' is ''"),
    ("sample --solver eular", "perhaps you meant 'euler'"),
    ("sample --num-steps 1e12", "'--num-steps' is '1e12'"),
    ("sample --num-steps 1000000000000", "less than or equal to 10000"),
    ("sample -n 0", "'--num-videos' is '0'"),
    ("sample --seed -1", "'--seed' is '-1'"),
    ("sample --seed 18446744073709551615", "'--seed' is '18446744073709551615'"),
    ("sample --enlarge 100000", "'--enlarge' is '100000'"),
    ("sample --guidance-scale nan", "'--guidance-scale' is 'nan': Input should be a finite number"),
    ("sample --num-frames -5", "'--num-frames' is '-5'"),
    ("stream --speed 1e12", "'--speed' is '1e12'"),
    ("stream --seconds inf", "'--seconds' is 'inf'"),
    ("train vae --data.fps inf", "'--data.fps' is 'inf': Input should be a finite number"),
    ("train vae --data.fps .inf", "'--data.fps' is '.inf'"),
    ("train vae --data.height -64", "'--data.height' is '-64'"),
    ("train vae --data.buckets 17 64", "--data.buckets 17 64: 2 values, but it takes groups of 3"),
    ("train vae --optim.betas 0.9", "--optim.betas needs 2 values"),
    ("train vae --optim.learning-rate inf", "'--optim.learning-rate' is 'inf'"),
    ("train vae --vae.widths", "'--vae.widths' is []: give at least 1"),
    ("train vae --vae.widths 7 5", "widths 7 and 5"),
    ("train vae --loop.tensorboard=perhaps", "'--loop.tensorboard' is 'perhaps'"),
    ("train diffusion --modes.block-sizes 0", "'--modes.block-sizes' is '0'"),
    ("train diffusion --modes.block-sizes", "'--modes.block-sizes' is []"),
    ("train diffusion --diffusion.shift much", "'--diffusion.shift' is 'much'"),
    ("evaluate steps --num-steps", "'--num-steps' is []"),
    ("evaluate steps --num-steps 4 0", "'--num-steps' is '0'"),
    ("worlds --height 1e9", "'--height' is '1e9'"),
    ("worlds --num-frames 100000000000", "'--num-frames' is '100000000000'"),
    ("data check --fps nan nowhere", "'--fps' is 'nan'"),
    ("smaple x", "no command 'smaple'; perhaps you meant 'sample'"),
    ("train vea", "no command 'train vea'; perhaps you meant 'train vae'"),
    ("evaluate motoin", "perhaps you meant 'evaluate motion'"),
    ("trian vae", "perhaps you meant 'train vae'"),
    ("xyz", "there are demo, sample, stream"),
    ("train vae vae-fotage", "no such configuration file; perhaps you meant 'vae-footage' (A VAE for real footage"),
    ("train vae nowhere/mine.yaml", "demo-vae (The VAE of `make demo`)"),
    ("plan nowhere.yaml", "no such configuration file"),
    ("sample --model bunce", "no such folder; perhaps you meant 'bounce'; with Video Gen: bounce"),
    ("sample --model runs/nothing", "no such folder; with Video Gen: bounce"),
    ("sample --model ./a/b/c", "no such folder; with Video Gen: bounce"),
    ("sample --model nobody/nothing", "not to be had from the Hub"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_code_2(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "pydantic" not in error


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("{widht: 3}", "unknown key 'transformer.widht'; perhaps you meant 'width'"),
        ("{dim: 96, num_haeds: 3}", "unknown key 'transformer.num_haeds'; perhaps you meant 'num_heads'"),
        ("{depth: x}", "'transformer.depth' is 'x': Input should be a valid integer"),
        ("{warp: true}", "transformer: warp moves the frame before"),
    ],
)
def test_a_mistake_in_a_part_of_several_kinds_is_told_once(part, message, capsys, tmp_path):
    (tmp_path / "a.yaml").write_text(f"transformer: {part}")
    assert main(["train", "diffusion", str(tmp_path / "a.yaml")]) == 2
    error = capsys.readouterr().err
    assert f"a.yaml: {message}" in error and error.count("transformer") == 1


# -------------------- help


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["train"], ["train", "-h"], ["data"], ["evaluate", "--help"], ["plan"]]
)
def test_a_group_lists_its_commands_with_a_line_each(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    out = capsys.readouterr().out
    group = words[0] if words and words[0] != "--help" else None
    listed = [" ".join(names) for names in COMMANDS if group in (None, names[0])]
    assert stopped.value.code == 0
    for name in listed:
        assert re.search(rf"^  {name} +\w.*\w", out, re.MULTILINE), name
    assert len(re.findall(r"^  \w", out, re.MULTILINE)) == len(listed)


def test_help_says_where_models_and_configurations_come_from(capsys):
    for words, texts in (
        (
            ["sample"],
            (
                "usage: video-gen sample [PROMPT] [options]",
                "bounce ships",
                "runs/demo/diffusion/model",
                "-n, --num-videos",
            ),
        ),
        (
            ["train", "vae"],
            (
                "usage: video-gen train vae [FILE.yaml] [options]",
                "vae-footage",
                "--loop.no-tensorboard",
                "(default: on)",
            ),
        ),
    ):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(text in out for text in texts)


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"video-gen {__version__}\n"


def test_help_and_mistakes_do_not_wait_for_torch(tmp_path):
    code = (
        "import sys\nfrom video_gen.cli import main\n"
        "try: main(['sample', '--help'])\nexcept SystemExit: pass\n"
        "assert main(['train', 'vae', 'demo-vae', '--crop', '-1']) == 2\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


# -------------------- what ships


def test_shipped_configurations_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("demo-vae", "demo-vae.yaml", "configs/demo-vae.yaml", "../some/configs/demo-vae.yaml"):
        assert load_yaml(VAERun, name) == load_yaml(VAERun, CONFIGS / "demo-vae.yaml")
    (tmp_path / "demo-vae.yaml").write_text("crop: 16\n", encoding="utf-8")
    assert load_yaml(VAERun, "demo-vae.yaml").crop == 16  # what lies there wins
    assert len(config_names()) > 8 and {"vae-footage", "demo-diffusion"} <= {*config_names()}


def test_the_shipped_model_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_folder("bounce") == local_folder("models/bounce") == MODELS / "bounce"
    assert local_folder("bounce/vae") == MODELS / "bounce" / "vae"
    assert default_model() == local_folder(default_model()).relative_to(MODELS)
    own = tmp_path / "runs/demo/diffusion/model"
    own.mkdir(parents=True)
    assert str(default_model()) == "runs/demo/diffusion/model"
    with pytest.raises(DataError, match=r"here: runs/demo/diffusion/model$"):
        local_folder("runs/dmo/diffusion/model")
    (tmp_path / "bounce").mkdir()
    assert str(local_folder("bounce")) == "bounce"  # what lies there wins


def test_what_looks_like_a_path_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()

    def asked(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    for path in (
        "nowhere",
        "./a/b",
        "/a/b",
        "../a/b",
        "mine/model",
        "runs/x",
        "a/b/c",
        "a b/c",
        "models/x",
        "~/x",
        ".hidden/x",
    ):
        with pytest.raises(DataError, match=r"no such folder; .*with Video Gen: bounce"):
            local_folder(path)


def test_without_a_run_of_ones_own_the_shipped_model_samples_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "a red circle", "--num-steps", "1", "--num-frames", "1", "--output", "made"]) == 0
    said = capsys.readouterr()
    assert "model: bounce, which ships with Video Gen" in said.err and list((tmp_path / "made").glob("*.mp4"))


# -------------------- plan


def test_a_plan_is_of_what_the_file_or_the_options_train(tmp_path):
    (tmp_path / "a.yaml").write_text("loop: {batch_size: 2}\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("vae: runs/x/model/vae\n", encoding="utf-8")
    for line, kind in (
        ("plan demo-vae", "vae"),
        ("plan demo-diffusion --vae-yaml demo-vae", "diffusion"),
        ("plan curriculum", "diffusion"),
        ("plan kicks-distill", "distill"),
        ("plan kicks-match", "distill"),
        (f"plan {tmp_path / 'a.yaml'}", "vae"),
        (f"plan {tmp_path / 'a.yaml'} --vae-yaml demo-vae", "diffusion"),
        (f"plan {tmp_path / 'b.yaml'}", "diffusion"),
        ("plan --crop 16", "vae"),
        ("plan --vae-yaml demo-vae --data.fps 8", "diffusion"),
        ("plan --transformer.width 128", "diffusion"),
        ("plan --distill.method matching", "distill"),
        ("plan vae --loop.batch-size 2", "vae"),
        ("plan diffusion a.yaml", "diffusion"),
    ):
        assert of_what(shlex.split(line))[:2] == ["plan", kind], line


def test_every_shipped_configuration_can_be_planned():
    for name in config_names():
        command = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").split()[3]
        assert of_what(["plan", name])[1] == command, name


# -------------------- what gives out


def raises(error: BaseException) -> None:
    raise error


def invalid() -> Exception:
    """What pydantic raises where nobody turned it into a line."""
    try:
        VAERun.model_validate({"vae": {"stem": 3}})
    except ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError("some trouble"), "some trouble"),
        (MemoryError("Unable to allocate 2 TiB"), "not enough memory (Unable to allocate 2 TiB)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "not enough memory (CUDA out of memory)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RecursionError("maximum depth"), "nested too deeply"),
        (invalid(), "vae.stem: Input should be 2 or 4"),
        (ConfigError("two\nlines"), "two lines"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_gives_out_is_one_line(error, line, capsys, monkeypatch):
    assert exit_code("prog", lambda: raises(error)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"prog: {line}") and said.count("\n") == 1
    assert isinstance(error, ConfigError) or "VIDEO_GEN_TRACEBACK=1 shows where" in said
    monkeypatch.setenv("VIDEO_GEN_TRACEBACK", "1")
    with pytest.raises(type(error)):
        exit_code("prog", lambda: raises(error))


def test_a_mistake_of_the_program_keeps_its_traceback():
    for error in (KeyError("x"), RuntimeError("shapes"), TypeError("x")):
        with pytest.raises(type(error)):
            exit_code("prog", lambda error=error: raises(error))


# -------------------- progress


def test_in_a_log_a_line_now_and_then_and_nothing_is_overwritten(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar("reading", "files") as update:
        for done in range(100, 121):
            update(done, 1000)
            now[0] += 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading: 103 of 1,000 files, 10 s each, 2 h 29 min left"
    assert len(lines) == 7 and lines[-1].startswith("reading: 120 of 1,000 files in 3 min")
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_work_that_fails_does_not_say_that_it_is_done(capsys):
    with pytest.raises(ZeroDivisionError), progress.bar("reading") as update:
        update(1, 2)
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.bar("reading", "files") as update:
        update(1, 2)
        time.sleep(0.01)
        update(2, 2)
    assert "\x1b" in capsys.readouterr().err


def test_the_classes_stand_for_themselves():
    assert read(Sample, ["x", "--seed", "3"], "sample").seed == 3
    assert read(TrainVAE, [], "train vae").run == VAERun()
    assert isinstance(parsed("train diffusion demo-diffusion").run, DiffusionRun)
