"""Captions by a captioner of `transformers`, made small and at random here, of clips that have none."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from video_gen.cli import main
from video_gen.data.manifest import MANIFEST, read_manifest
from video_gen.data.prepare.captioner import Captioner
from video_gen.data.prepare.preparing import prepare
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.prepare.workers import Workers
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError

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


# -------------------- other kinds

SAID = ["a", "dog", "runs", "over", "grass"]
TOKENS = ["<pad>", "<unk>", "<s>", "</s>", "<image>", *SAID]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LOOKS = SMALL | {"image_size": 32, "patch_size": 16}
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
CUT = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
CHAT = (
    "{% for turn in messages %}{% for part in turn.content %}{{ '<image> ' if part.type == 'image' else part.text }}{% endfor %}"
    "{% endfor %} over"
)


def tokenizer():
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(TOKENS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, extra_special_tokens={"image_token": "<image>"}, **special
    )


def saved(model, folder, *parts):
    """With weights under which words are likelier than what is between them."""
    torch.manual_seed(0)
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[:] = torch.randn(weight.shape) * torch.tensor([0.0] * 5 + [1.0] * len(SAID))[:, None]
    for part in (model, *parts):
        part.save_pretrained(folder)


def git(folder, frames=None):
    import transformers as t

    config = t.GitConfig(
        vision_config=LOOKS,
        vocab_size=len(TOKENS),
        max_position_embeddings=128,
        num_image_with_embedding=frames,
        **SMALL,
        **ENDS,
    )
    saved(t.GitForCausalLM(config), folder, t.GitProcessor(t.CLIPImageProcessor(**CUT), tokenizer()))


def git_of_videos(folder):
    git(folder, 3)


def encoder_decoder(folder, encoder, look):
    import transformers as t

    decoder = t.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=len(TOKENS), n_positions=128, add_cross_attention=True, **ENDS
    )
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    saved(t.VisionEncoderDecoderModel(config), folder, look, tokenizer())


def vit_gpt2(folder):
    import transformers as t

    encoder_decoder(folder, t.ViTConfig(**LOOKS), t.ViTImageProcessor(size={"height": 32, "width": 32}))


def timesformer_gpt2(folder):
    import transformers as t

    encoder_decoder(folder, t.TimesformerConfig(**LOOKS, num_frames=3), t.VideoMAEImageProcessor(**CUT))


def llava(folder):
    import transformers as t

    text = t.LlamaConfig(vocab_size=len(TOKENS), num_key_value_heads=2, **SMALL, **ENDS)
    vision = t.CLIPVisionConfig(**LOOKS, projection_dim=16)
    config = t.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    look = t.LlavaProcessor(
        t.CLIPImageProcessor(**CUT),
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    saved(t.LlavaForConditionalGeneration(config), folder, look)


@pytest.mark.parametrize(
    "make, frames", [(git, 1), (git_of_videos, 3), (vit_gpt2, 1), (timesformer_gpt2, 3), (llava, 1)]
)
def test_captioners_of_pictures_of_videos_and_in_a_chat(pile, tmp_path, make, frames):
    pytest.importorskip("transformers")
    make(tmp_path / "model")
    captioner = Captioner(str(tmp_path / "model"), "dog runs")
    assert captioner.frames == frames
    caption = captioner(pile / "a.mp4")
    assert caption and set(caption.split()) <= set(SAID)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    assert captioner(tmp_path / "a.png")


def test_what_captions_nothing_is_named(pile, tmp_path):
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="--caption-model nowhere: cannot be loaded as a captioner"):
        Captioner("nowhere")
    transformers.ViTModel(transformers.ViTConfig(**LOOKS)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ConfigError, match="vit: cannot be loaded as a captioner"):
        Captioner(str(tmp_path / "vit"))
    vit_gpt2(tmp_path / "other")  # with the pictures of another model
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other: says nothing of .*a\.mp4 but an error \(ValueError: .*48"):
        Captioner(str(tmp_path / "other"))(pile / "a.mp4")


def test_a_captioner_that_needs_what_is_missing_says_so(tmp_path):
    transformers = pytest.importorskip("transformers")
    if transformers.utils.is_torchvision_available():
        pytest.skip("with torchvision it can be loaded")
    tokenizer().save_pretrained(tmp_path)
    look = transformers.Qwen2VLImageProcessor()
    look.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    said = json.loads(file.read_text()) | {"processor_class": "Qwen2VLProcessor"}
    file.write_text(json.dumps(said))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(ConfigError, match=r"needs what is not installed here \(.*Torchvision"):
        Captioner(str(tmp_path))


def test_what_was_said_once_is_not_asked_again(pile, tmp_path):
    asked = []

    def caption(path):
        asked.append(path.name)
        return "something"

    for _ in range(2):
        made = prepare(pile, tmp_path / "set", PrepareConfig(), Workers(1), caption=caption)
        assert sorted(row.caption for row in made.kept) == ["something", "written by hand"]
    assert len(asked) == 1
