"""Cards, and sharing on the Hub, to a stand-in that keeps what it is sent."""

import inspect
import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from test_pipeline import tiny_pipeline
from test_plan_sample import pipeline

from video_gen.card import card
from video_gen.cli import main
from video_gen.errors import ConfigError, DataError
from video_gen.hub import Hub, push_to_hub
from video_gen.model.lora import Change
from video_gen.model.lora_files import write_lora
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.fit import Fit
from video_gen.sampling.pipeline import VideoPipeline


class Stub:
    """Files by repository and name, as a Hub would hold them."""

    def __init__(self):
        self.held: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok or repo_id not in self.held
        self.held.setdefault(repo_id, {})
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns):
        from huggingface_hub.utils import filter_repo_objects

        names = [str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            self.held[repo_id][name] = (folder_path / name).read_bytes()

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message):
        content = path_or_fileobj if isinstance(path_or_fileobj, bytes) else Path(path_or_fileobj).read_bytes()
        self.held[repo_id][path_in_repo] = content


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


@pytest.fixture
def model(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "run/model")
    (tmp_path / "run/model/vae/data.json").write_text('{"folder": "somewhere"}')
    for name in ("notes.pt", "private.json", "holiday.mp4", "other.safetensors", "merged/model.json"):
        (tmp_path / "run/model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run/model" / name).write_bytes(b"of somebody")
    return tmp_path / "run/model"


@pytest.fixture
def lora(tmp_path):
    told = {"rank": "2", "alpha": "4", "base_model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "trigger_prompt": "sks style"}
    told["modelspec.architecture"] = "WanTransformer/lora"
    told["video_gen"] = "0.1"
    changes = {"blocks.0.ffn.0.weight": Change(torch.ones(4, 2), torch.ones(2, 3))}
    write_lora(tmp_path / "style/lora.safetensors", changes, told)
    for name in ("private.json", "holiday.mp4", "merged/text/config.json"):
        (tmp_path / "style" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "style" / name).write_text("{}")
    return tmp_path / "style"


def test_the_stand_in_takes_what_the_real_one_does():
    for name in ("create_repo", "upload_folder", "upload_file"):
        wanted = inspect.signature(getattr(Hub, name)).parameters
        assert set(wanted) <= set(inspect.signature(getattr(HfApi, name)).parameters), name
        assert set(wanted) == set(inspect.signature(getattr(Stub, name)).parameters), name


def test_a_model_is_shared_whole_with_a_card_and_loads_from_what_was_sent(model, tmp_path):
    stub = Stub()
    assert push_to_hub(model, "me/tiny", private=True, hub=stub) == "https://huggingface.co/me/tiny"
    held = stub.held["me/tiny"]
    assert stub.private == {"me/tiny": True}
    own = {f"{part}/{name}" for part in ("vae", "transformer", "text") for name in ("config.json", "model.safetensors")}
    assert held.keys() == own | {"model.json", "README.md"}
    for name, content in held.items():
        file = tmp_path / "got" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    before, after = (VideoPipeline.from_pretrained(p).transformer for p in (model, tmp_path / "got"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters()))
    text = held["README.md"].decode()
    assert front(text)["pipeline_tag"] == "text-to-video" and "# run" in text and "9 frames of 16x16" in text
    assert str(tmp_path) not in text and "No licence is named" in text


def test_a_lora_names_its_base_and_what_is_to_be_said(lora):
    stub = Stub()
    push_to_hub(lora, "me/style", hub=stub)
    assert set(stub.held["me/style"]) == {"lora.safetensors", "README.md"}
    text = stub.held["me/style"]["README.md"].decode()
    assert front(text)["base_model"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    assert front(text)["instance_prompt"] == "sks style" and "load_lora_weights" in text
    assert 'video-gen sample "sks style" --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --lora lora.safetensors:0.8' in text
    push_to_hub(lora / "lora.safetensors", "me/alone", hub=stub)
    assert set(stub.held["me/alone"]) == {"lora.safetensors", "README.md"}


def test_a_loras_card_says_how_it_is_loaded(tmp_path):
    changes = {"blocks.0.ffn.0.weight": Change(torch.ones(4, 2), torch.ones(2, 3))}
    wan = {"video_gen": "0.1", "modelspec.architecture": "WanTransformer/lora"}
    for name, told, there, not_there in (
        ("a", wan | {"expert": "low"}, ["low noise", "WanPipeline.from", "load_into_transformer_2=True"], ["--image"]),
        ("a", wan | {"expert": "high"}, ["high noise", 'load_lora_weights("a.safetensors")'], ["transformer_2"]),
        ("a", wan | {"pictures": "first"}, ["WanImageToVideoPipeline", " --image image.png"], ["--last-image"]),
        ("a", wan | {"pictures": "first and last"}, [" --image image.png --last-image last_image.png"], []),
        ("b_low_noise", {}, ["A LoRA.", "low noise"], ["Video Gen", "video-gen\n"]),
    ):
        write_lora(tmp_path / f"{name}.safetensors", changes, told)
        text = card(tmp_path / f"{name}.safetensors")
        assert all(word in text for word in there) and not any(word in text for word in not_there), text
        assert front(text)["pipeline_tag"] == ("image-to-video" if "pictures" in told else "text-to-video")


@pytest.mark.parametrize(("sizes", "given"), [({}, ()), (dict(in_channels=36), ("image",))])
def test_a_models_card_gives_what_it_begins_with(sizes, given, tmp_path):
    model = pipeline("wan", Fit())
    model.transformer = WanTransformer(WanTransformerConfig.preset("tiny", **sizes))
    model.text = tiny_pipeline().text
    model.config = model.config.replace(family="wan")
    model.save_pretrained(tmp_path / "m")
    text = card(tmp_path / "m")
    assert front(text)["pipeline_tag"] == ("image-to-video" if given else "text-to-video")
    assert ("--image image.png" in text) == ("image=image" in text) == bool(given)
    assert ("video-gen stream" in text) == (not given)


def test_a_card_tells_of_the_run_around_it_and_what_is_there_is_kept(model, capsys):
    run = model.parent
    config = {
        "loop": {"batch_size": 4, "precision": "bf16", "keep": "best"},
        "optim": {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "cosine"},
        "data": {"folder": "/private/place/clips", "num_frames": 9, "height": 16, "width": 16},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "clips.json").write_text(json.dumps({"clips": {"a": "x", "b": "y"}, "made_of": {}}))
    lines = [
        {"kind": "validation", "step": 2, "loss": 0.5, "loss_causal": 0.6},
        {"kind": "validation", "step": 4, "loss": 0.7, "loss_causal": 0.8},
        {"kind": "train", "step": 4, "loss": 0.9},
    ]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["model", "card", str(model)]) == 0
    text = (model / "README.md").read_text()
    assert "| held-out loss | 0.5 at step 2 |" in text and "| steps | 4 of 4 clips, in bf16 |" in text
    assert "clips, 2 clips" in text and "/private" not in text
    assert main(["model", "card", str(model)]) == 2 and "is kept" in capsys.readouterr().err
    (run / "log.jsonl").write_text("no JSON")
    with pytest.raises(DataError, match=r"log\.jsonl cannot be read"):
        (model / "README.md").unlink()
        push_to_hub(model, "me/tiny", hub=Stub())


def test_what_is_refused(model, lora, tmp_path):
    with pytest.raises(ConfigError, match="no name on the Hub"):
        push_to_hub(model, "tiny", hub=Stub())
    with pytest.raises(DataError, match="no such model"):
        push_to_hub(tmp_path / "no", "me/tiny", hub=Stub())
    with pytest.raises(DataError, match=r"holds no model\.json"):
        push_to_hub(tmp_path, "me/tiny", hub=Stub())
    file = model / "text/config.json"
    told = json.loads(file.read_text()) | {"kind": "transformers", "name": str(tmp_path)}
    file.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"text/config\.json: its encoder is .*, which only this machine has"):
        push_to_hub(model, "me/tiny", hub=Stub())
    assert not (model / "README.md").exists()

    class Refusing(Stub):
        def create_repo(self, repo_id, *, private, exist_ok):
            import httpx

            raise HfHubHTTPError(
                "401 Client Error\nmore", response=httpx.Response(401, request=httpx.Request("POST", "x"))
            )

    with pytest.raises(DataError, match="the Hub did not take it: 401 Client Error; `hf auth login`"):
        push_to_hub(lora, "me/style", hub=Refusing())
