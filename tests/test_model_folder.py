"""Model folders as they are found: damaged, cut, of other parts. One line says which file, and what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pipeline import tiny_pipeline

from video_gen.cli import main
from video_gen.errors import ConfigError, DataError, VideoGenError
from video_gen.model.pretrained import read_config
from video_gen.model.transformer_config import TextConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.pipeline import VideoPipeline


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


def loading(folder: Path) -> str:
    """What loading says, which is one line without a trace of the libraries below."""
    with pytest.raises(VideoGenError) as error:
        VideoPipeline.from_pretrained(folder)
    text = str(error.value)
    assert "\n" not in text and "http" not in text and "pydantic" not in text
    return text


CONFIGS = ["model.json", "vae/config.json", "transformer/config.json", "text/config.json"]


@pytest.mark.parametrize("file", CONFIGS)
def test_damaged_settings(folder, file):
    path = folder / file
    text = path.read_bytes()
    for damage, message in (
        (b"", "is empty"),
        (text[: len(text) // 2], "is no whole JSON"),
        (b"\x80\x04\xff\xfe" * 9, "is no text"),
        (b"[" * 100_000, "is no whole JSON"),
        (b"[1, 2]", "expected a mapping of settings, found list"),
        (b"null", "expected a mapping"),
        (text.replace(b"{", b'{"unknown_key": 1,', 1), "unknown key 'unknown_key'"),
    ):
        path.write_bytes(damage)
        assert message in (said := loading(folder)) and file in said
    path.unlink()
    assert file in loading(folder)
    path.mkdir()
    assert file in loading(folder)


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("transformer/config.json", ("width",), 10**9),
        ("transformer/config.json", ("width",), 65_536),
        ("transformer/config.json", ("width",), 10**30),
        ("transformer/config.json", ("text_width",), 10**9),
        ("vae/config.json", ("latent_channels",), 10**9),
        ("vae/config.json", ("widths",), [16_384]),
        ("text/config.json", ("width",), 10**9),
        ("text/config.json", ("hash_buckets",), 10**12),
        ("text/config.json", ("hash_buckets",), 2**24),
        ("model.json", ("clip", "height"), 10**9),
        ("model.json", ("clip", "num_frames"), 10**9),
        ("model.json", ("clip", "num_frames"), 10),
        ("model.json", ("clip", "fps"), 1e300),
        ("model.json", ("clip", "width"), 18),
        ("model.json", ("sampling", "num_steps"), 10**9),
    ],
)
def test_absurd_sizes_are_one_line_and_allocate_nothing(folder, file, keys, value):
    path = folder / file
    values = json.loads(path.read_text(encoding="utf-8"))
    at = values
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path.write_text(json.dumps(values), encoding="utf-8")
    assert file.split("/")[0] in loading(folder)


@pytest.mark.parametrize("part", ["vae", "transformer", "text"])
def test_damaged_weights(folder, part):
    path = folder / part / "model.safetensors"
    data, state = path.read_bytes(), load_file(path)
    name = next(name for name, x in state.items() if x.is_floating_point())
    broken = {**state, name: state[name].clone()}
    broken[name].view(-1)[-1] = float("nan")
    fewer = {key: x for key, x in state.items() if key != name}
    for tensors, message in (
        (broken, f"{name} is not finite"),
        ({**state, name: state[name] * float("inf")}, "is not finite"),
        (fewer, f"{name} is missing"),
        ({**state, "extra": torch.ones(1)}, "extra"),
        ({**state, name: torch.ones(3, 5, 7)}, f"{name} is (3, 5, 7)"),
    ):
        save_file(tensors, path)
        assert message in (said := loading(folder)) and f"{part}/model.safetensors" in said
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    for damage, message in (
        (pointer, "git lfs pull"),
        (b"", "is empty"),
        (data[:-10], "damaged"),
        (b"x" * 99, "damaged"),
    ):
        path.write_bytes(damage)
        with pytest.raises(DataError) as error:
            VideoPipeline.from_pretrained(folder)
        assert message in str(error.value) and str(path) in str(error.value)
    path.unlink()
    assert f"{part}/model.safetensors: not there" in loading(folder)
    shutil.rmtree(folder / part)
    assert f"holds no {part}/" in loading(folder)


def test_parts_of_different_models(folder, tmp_path):
    torch.manual_seed(0)
    other = VideoVAE(tiny_pipeline().vae.config.replace(latent_channels=8))
    shutil.rmtree(folder / "vae")
    other.save_pretrained(folder / "vae")
    assert "latent_channels is 4, but vae/ has 8" in loading(folder)


def test_permission_denied_is_told_as_that(folder, monkeypatch):
    real = Path.open

    def denied(path, *arguments, **options):
        if path.name in denies:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    for name in ("model.json", "config.json", "model.safetensors"):
        denies = {name}
        assert f"{name}: permission denied; change its rights" in loading(folder)


def test_both_commands_refuse_broken_weights(folder, tmp_path, capsys):
    path = folder / "transformer" / "model.safetensors"
    save_file({name: x * float("nan") for name, x in load_file(path).items()}, path)
    threads = torch.get_num_threads()
    for words in (
        ["sample", "x", "--output", str(tmp_path / "o")],
        ["stream", "x", "--output", str(tmp_path / "s.mp4")],
    ):
        assert main([*words, "--model", str(folder)]) == 2
        error = capsys.readouterr().err
        assert "transformer/model.safetensors: the weights of this VideoTransformer are broken" in error
        assert error.count("\n") == 1
    torch.set_num_threads(threads)
    assert not (tmp_path / "o").exists() and not (tmp_path / "s.mp4").exists()


@pytest.mark.parametrize(
    ("part", "name"), [("vae", "VAE"), ("transformer", "transformer"), ("text", "text encoder")], ids=lambda x: x
)
def test_what_becomes_of_broken_weights_in_memory_is_no_black_video(part, name):
    pipe = tiny_pipeline()
    for parameter in getattr(pipe, part).parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(DataError, match=f"the {name} made numbers that are not finite"):
        pipe("a red circle", num_steps=1)
    with pytest.raises(DataError, match=f"the {name} made"), pipe.stream("a red circle", num_steps=1) as stream:
        next(stream)


def test_settings_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "config.json").write_text('\ufeff{"width": 16}', encoding="utf-8")
    assert read_config(TextConfig, tmp_path / "config.json").width == 16
    with pytest.raises(ConfigError, match=r"config\.json: 'width' is 'wide'"):
        (tmp_path / "config.json").write_text('{"width": "wide"}', encoding="utf-8")
        read_config(TextConfig, tmp_path / "config.json")
