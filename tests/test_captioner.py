"""Captions by a captioner of `transformers`, made small and at random here, of clips that have none."""

import json

import numpy as np
import pytest

from video_gen.cli import main
from video_gen.data.manifest import MANIFEST, read_manifest
from video_gen.data.prepare.preparing import prepare
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.prepare.workers import Workers
from video_gen.data.video_writer import write_video

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "dog", "runs", "over", "grass")


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = small | ends | {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 80}
    vision = small | {"image_size": 32, "patch_size": 16}
    config = transformers.BlipConfig(
        text_config=text, vision_config=vision, projection_dim=8, image_text_hidden_size=16
    )
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    words = transformers.BertTokenizer(str(folder / "vocab.txt"))
    transformers.BlipProcessor(images, words).save_pretrained(folder)
    return folder


@pytest.fixture
def pile(tmp_path):
    folder = tmp_path / "pile"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        wide = np.kron(rng.integers(0, 255, (16, 40, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        write_video(folder / f"{name}.mp4", np.stack([wide[:, i : i + 96] for i in range(36)]), 24)
    (folder / "b.txt").write_text("written by hand", encoding="utf-8")
    return folder


def test_clips_without_caption_get_one_and_the_others_keep_theirs(pile, tmp_path, captioner):
    said = ["data", "prepare", str(pile), str(tmp_path / "set"), "--workers", "1", "--caption-model", str(captioner)]
    assert main(said) == 0
    captions = {row.source: row.caption for row in read_manifest(tmp_path / "set" / MANIFEST)}
    assert captions["b.mp4"] == "written by hand"
    assert captions["a.mp4"] and set(captions["a.mp4"].split()) <= set(WORDS)
    rows = (tmp_path / "set" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(row)["source"]: json.loads(row)["text"] for row in rows} == captions


def test_what_was_said_once_is_not_asked_again(pile, tmp_path):
    asked = []

    def caption(path):
        asked.append(path.name)
        return "something"

    for _ in range(2):
        made = prepare(pile, tmp_path / "set", PrepareConfig(), Workers(1), caption=caption)
        assert sorted(row.caption for row in made.kept) == ["something", "written by hand"]
    assert len(asked) == 1
