"""Encoders of the `transformers` library, each tiny and random, from a folder: T5 and its kin, CLIP, decoders, BERT's like."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from video_gen.errors import ConfigError, DataError
from video_gen.model.frozen_text import encoder_fingerprint, mended
from video_gen.model.text import build_text_encoder, load_text_encoder
from video_gen.model.transformer_config import TextConfig
from video_gen.model.umt5 import INNER, OUTER

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[EOS]", "[UNK]", "a", "red", "circle", "blue", "square"]
T5 = dict(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
DECODER = dict(
    vocab_size=28,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
)
DECODERS = ("Qwen2", "Qwen3", "Llama", "Gemma2", "Gemma3")
CLIP = dict(
    vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, eos_token_id=1
)


def make(kind: str):
    """A random model of each family, whole: T5's with its decoder, CLIP with its eyes."""
    t = transformers
    if kind in ("T5", "MT5", "UMT5"):
        return getattr(t, f"{kind}ForConditionalGeneration")(getattr(t, f"{kind}Config")(**T5))
    if kind == "Gemma3":  # with eyes
        eyes = dict(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
        )
        text = DECODER | dict(head_dim=8)
        return t.Gemma3ForConditionalGeneration(
            t.Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4)
        )
    if kind in DECODERS:
        return getattr(t, f"{kind}ForCausalLM")(getattr(t, f"{kind}Config")(**DECODER))
    if kind == "CLIPText":
        return t.CLIPTextModel(t.CLIPTextConfig(**CLIP))
    eyes = dict(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    return t.CLIPModel(t.CLIPConfig(text_config=CLIP, vision_config=eyes, projection_dim=8))


def save(kind: str, folder) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    side = "left" if kind in DECODERS else "right"
    if kind == "Qwen2":  # whose tokeniser is always one of bytes
        letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzĠ")} | {"<|endoftext|>": 27}
        transformers.Qwen2Tokenizer(vocab=letters, merges=[], padding_side=side).save_pretrained(folder)
    else:
        tokeniser = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
        tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
        special = dict(eos_token="[EOS]", unk_token="[UNK]") | ({} if kind == "Llama" else dict(pad_token="[PAD]"))
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokeniser, padding_side=side, **special)
        fast.save_pretrained(folder)
    make(kind).save_pretrained(folder)


@pytest.mark.parametrize(
    "kind", ["T5", "MT5", "UMT5", "CLIP", "CLIPText", "Qwen2", "Qwen3", "Llama", "Gemma2", "Gemma3"]
)
def test_families(kind, tmp_path):
    save(kind, tmp_path)
    encoder = build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path)))
    tokens, visible = encoder(encoder.tokenise(["a red circle", "a", ""]))
    most = 12 if kind == "Qwen2" else 3  # letters, or words
    assert tokens.shape == (3, most, 16) and tokens.dtype == torch.float32 and tokens.isfinite().all()
    assert visible.sum(1).tolist() == [most, 1, 1] and visible[:, 0].all()
    for text, count, row in (("a", 1, 1), ("", 1, 2)):
        torch.testing.assert_close(encoder(encoder.tokenise([text]))[0][0], tokens[row, :count])  # whatever the batch
    other, _ = encoder(encoder.tokenise(["a blue square"]))
    assert not torch.allclose(other[0, 1:3], tokens[0, 1:3])
    names = [name for name, _ in encoder.model.named_modules()]
    assert not any("decoder" in name.split(".")[0] or "vision" in name for name in names)


@pytest.mark.parametrize("kind", ["T5", "UMT5", "CLIPText", "Qwen3", "Gemma2"])
def test_tokens_are_those_of_the_library(kind, tmp_path):
    """What the library's own class says of the same ids, whatever part of it we took."""
    save(kind, tmp_path)
    encoder = build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path)))
    entries = encoder.tokenise(["a red circle", "a"])
    ids, mask = entries.unbind(-1)
    whole = make(kind).from_pretrained(tmp_path).eval()
    inner = whole if kind == "CLIPText" else getattr(whole, "encoder", None) or whole.model
    torch.testing.assert_close(
        encoder(entries)[0], inner(input_ids=ids, attention_mask=mask).last_hidden_state, rtol=1e-6, atol=1e-6
    )


def test_parts_in_folders_of_their_own(tmp_path):
    """As diffusers' folders have them: text_encoder/ and tokenizer/."""
    save("UMT5", tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    for path in (tmp_path / "text_encoder").glob("token*"):
        path.rename(tmp_path / "tokenizer" / path.name)
    told = TextConfig(kind="transformers", name=str(tmp_path), subfolder="text_encoder", tokeniser="tokenizer")
    encoder = build_text_encoder(told)
    entries = encoder.tokenise(["a red circle"])
    encoder.save_pretrained(tmp_path / "text")
    torch.testing.assert_close(load_text_encoder(tmp_path / "text")(entries)[0], encoder(entries)[0])
    elsewhere = told.replace(tokeniser=str(tmp_path / "tokenizer"))
    assert build_text_encoder(elsewhere).tokenise(["a red circle"]).equal(entries)
    assert encoder_fingerprint(told) == encoder_fingerprint(elsewhere) != encoder_fingerprint(told.replace(clean=True))


def test_a_long_caption_is_cut_with_one_warning_where_the_family_does_so(tmp_path):
    save("UMT5", tmp_path)
    config = TextConfig(kind="transformers", name=str(tmp_path), max_tokens=2, too_long="cut")
    encoder = build_text_encoder(config)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        cut = encoder.tokenise(["a red circle", "a"])
        encoder.tokenise(["a red circle"])  # later on: said already
        encoder.tokenise(["a red"])
    assert [str(one.message) for one in told] == ["caption 'a red circle...' makes 3 tokens; the first 2 are used"]
    assert cut.equal(encoder.tokenise(["a red", "a"]))
    with pytest.raises(ConfigError, match="too_long is for kind 'transformers'"):
        TextConfig.model_validate({}).replace(too_long="cut")


@pytest.mark.parametrize("text", ["  a\tred  circle\n", "a red &amp;amp; blue", "âœ” fine", "a &lt;b&gt;", ""])
def test_captions_are_mended_as_wans(text):
    pytest.importorskip("ftfy")
    wan = pytest.importorskip("diffusers.pipelines.wan.pipeline_wan")
    assert mended(text) == wan.prompt_clean(text)


@pytest.mark.parametrize("layout", ["original", "comfy"])
def test_umt5_from_one_file(layout, tmp_path):

    save("UMT5", tmp_path / "whole")
    model = make("UMT5").from_pretrained(tmp_path / "whole")
    state = {
        name: x for name, x in model.state_dict().items() if name.startswith(("shared", "encoder.block", "encoder.fin"))
    }
    if layout == "original":
        ours = {known: name for name, known in OUTER.items()}
        inner = {known: name for name, known in INNER.items()}
        state = {
            ours.get(name) or "blocks.{}.{}".format(*_split(name, inner)): x.contiguous() for name, x in state.items()
        }
    else:
        state = state | {"spiece_model": torch.zeros(3, dtype=torch.uint8)}
    file = tmp_path / "umt5.safetensors"
    save_file(state, file)
    told = TextConfig(kind="transformers", name=str(file), tokeniser=str(tmp_path / "whole"))
    whole = build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path / "whole")))
    encoder = build_text_encoder(told)
    entries = encoder.tokenise(["a red circle", "a"])
    assert whole(entries)[0].equal(encoder(entries)[0])
    for name, change in (("norm1", None), ("other", torch.zeros(1)), ("a.scale_weight", torch.ones(()))):
        broken = dict(state)
        if change is None:
            broken.pop(next(key for key in broken if "norm1" in key or "layer_norm" in key))
        else:
            broken[name] = change
        save_file(broken, file)
        with pytest.raises(ConfigError, match=f"{file}: ") as error:
            build_text_encoder(told)
        assert "\n" not in str(error.value)


def _split(name, inner):
    _, _, index, rest = name.split(".", 3)
    return index, inner[rest]


def test_a_folder_is_found_from_any_place(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    save("UMT5", "encoder")
    encoder = build_text_encoder(TextConfig(kind="transformers", name="encoder"))
    encoder.save_pretrained("text")
    assert json.loads((tmp_path / "a/text/config.json").read_text(encoding="utf-8"))["name"] == str(
        tmp_path / "a/encoder"
    )
    monkeypatch.chdir(tmp_path / "b")
    entries = encoder.tokenise(["a red circle"])
    torch.testing.assert_close(load_text_encoder(tmp_path / "a/text")(entries)[0], encoder(entries)[0])
    shutil.rmtree(tmp_path / "a/encoder")
    with pytest.raises(ConfigError, match=r"text: text\.name '.*a/encoder': no such folder; put the text encoder back"):
        load_text_encoder(tmp_path / "a/text")


def test_what_is_wrong_with_an_encoder_is_one_line(tmp_path):
    save("T5", tmp_path / "e")
    encoder = build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path / "e"), max_tokens=2))
    with pytest.raises(DataError, match=r"makes 3 tokens, at most 2 are taken"):
        encoder.tokenise(["a red circle"])
    weights = tmp_path / "e" / "model.safetensors"
    before = weights.read_bytes()
    broken = make("T5")
    broken.shared.weight.data[0, 0] = float("nan")
    broken.save_pretrained(tmp_path / "e")
    for damage, message in (
        (None, "the weights of this text encoder are broken"),
        (before[:-20], r"model\.safetensors: is cut short, .* download it again"),
        (b"", r"model\.safetensors: is no whole safetensors file \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1", r"model\.safetensors: is a git-lfs pointer"),
    ):
        if damage is not None:
            weights.write_bytes(damage)
        with pytest.raises((ConfigError, DataError), match=message) as error:
            build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path / "e")))
        assert "\n" not in str(error.value) and str(tmp_path / "e") in str(error.value)
    weights.unlink()
    with pytest.raises(DataError, match=r"e: holds no \.safetensors"):
        build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path / "e")))
    (tmp_path / "e" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"pytorch_model\.bin: is a pickle"):
        build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path / "e")))
    weights.write_bytes(before)
    (tmp_path / "e" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path / "e")))


@pytest.mark.parametrize("fault", ["is missing", "has another shape", "is there, which such a model has not"])
def test_an_encoder_is_loaded_whole_or_not_at_all(tmp_path, capfd, fault):
    """The library fills in what is missing with chance, and says so in a table."""
    save("UMT5", tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    for file in list((tmp_path / "text_encoder").glob("*token*")):
        file.rename(tmp_path / "tokenizer" / file.name)
    file = tmp_path / "text_encoder/model.safetensors"
    state = load_file(file)
    name = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    if fault == "is missing":
        state.pop(name)
    elif fault == "has another shape":
        state[name] = torch.zeros(3, 3)
    else:
        state[name.replace("block.0", "block.7")] = state[name].clone()
    save_file(state, file, {"format": "pt"})
    told = TextConfig(kind="transformers", name=str(tmp_path), subfolder="text_encoder", tokeniser="tokenizer")
    with pytest.raises(
        DataError, match=rf"text_encoder: of its text encoder encoder\.block\.\d\..*wi_0\.weight {fault}"
    ):
        build_text_encoder(told)
    assert "REPORT" not in capfd.readouterr().err


def test_text_that_cannot_be_written_is_one_line(tmp_path):
    save("T5", tmp_path)
    for config in (TextConfig(), TextConfig(kind="transformers", name=str(tmp_path))):
        with pytest.raises(DataError, match=r"the caption 'a red \\ud83d' holds half of a surrogate pair"):
            build_text_encoder(config).tokenise(["a", "a red \ud83d"])
