"""Captions by any image or video captioner of `transformers`, from a local folder or the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from video_gen.data.packed import Packed
from video_gen.data.video_file import probe, read_frames
from video_gen.errors import ConfigError, DataError

FRAMES = 4
"""Of a clip, that a captioner sees which takes several pictures and does not say how many. One of images sees the middle one."""
WORDS = 60
"""Tokens of a caption, at most."""


class Captioner:
    """Says what a clip shows: `captioner(path)`.

    Args:
        model: a folder or Hub id: one that describes pictures (BLIP, GIT, an encoder-decoder such as ViT-GPT2) or videos (GIT of
            videos, an encoder-decoder such as TimeSformer-GPT2), or one that answers in a chat (LLaVA).
        prompt: what one with a chat template is asked.
    Raises: ConfigError if `transformers` is missing, or this is no captioner that it knows.
    """

    def __init__(self, model: str, prompt: str = "Describe this video in one sentence."):
        try:
            import transformers  # noqa: F401
        except ImportError:
            raise ConfigError("--caption-model needs transformers; pip install 'video-gen[hf]'") from None
        self.name, self.prompt = model, prompt
        self.known_as = f"{model}: {prompt}"
        """What its captions are kept under: another model, or another question, captions anew."""
        try:
            self._load()
        except ImportError as error:  # such as torchvision, which those with a video processor want
            raise ConfigError(
                f"--caption-model {model}: needs what is not installed here ({_line(error)}); install that, or take another "
                "captioner"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ConfigError(
                f"--caption-model {model}: cannot be loaded as a captioner ({_line(error)}); give the folder or Hub id of an "
                "image-text-to-text model of transformers, saved as safetensors"
            ) from None

    def _load(self) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

        self.words: Any = AutoProcessor.from_pretrained(self.name)
        """Turns tokens into words, and knows the chat."""
        self.look: Any = self.words
        """Turns pictures into tensors."""
        if (
            getattr(self.words, "image_processor", None) is None
        ):  # it is a tokenizer: of an encoder-decoder both lie apart
            self.look = AutoImageProcessor.from_pretrained(self.name)
        found: Any = AutoModelForImageTextToText.from_pretrained(self.name, use_safetensors=True).eval()
        self.model: Any = found.to("cuda" if torch.cuda.is_available() else "cpu")
        self.chats = bool(getattr(self.words, "chat_template", None)) and self.look is self.words
        config = self.model.config
        embedded = getattr(config, "num_image_with_embedding", None)  # of GIT
        self.frames = embedded or getattr(getattr(config, "encoder", None), "num_frames", None) or 1
        """Pictures of a clip that it sees."""
        if getattr(self.words, "video_processor", None) is not None:
            self.frames = FRAMES

    def __call__(self, path: Path | Packed) -> str:
        """Raises: DataError if the clip cannot be read, or nothing is said of it; ConfigError if the model does not caption."""
        import torch

        info = probe(path)
        still = info.kind == "image"
        times = [0.0 if still else info.duration * (i + 0.5) / self.frames for i in range(self.frames)]
        pictures = [Image.fromarray(frame) for frame in read_frames(path, times)]
        try:
            with torch.inference_mode():
                said = self._chat(pictures) if self.chats else self._describe(pictures)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise ConfigError(
                f"--caption-model {self.name}: says nothing of {path} but an error ({type(error).__name__}: {_line(error)}); take "
                "another captioner"
            ) from None
        caption = " ".join(said.split())
        if not caption:
            raise DataError(
                f"{path}: captioner {self.name} says nothing of it; give it a caption in a .txt beside its file"
            )
        return caption

    def _describe(self, pictures: Sequence[Image.Image]) -> str:
        pixels = self.look(images=list(pictures), return_tensors="pt")["pixel_values"].to(self.model.device)
        if self.frames > 1 and pixels.ndim == 4:  # (frames, c, h, w), which would be so many clips
            pixels = pixels[None]
        made = self.model.generate(pixel_values=pixels, max_new_tokens=WORDS, do_sample=False)
        return self.words.batch_decode(made, skip_special_tokens=True)[0]

    def _chat(self, pictures: Sequence[Image.Image]) -> str:
        content = [{"type": "image", "image": picture} for picture in pictures]
        asked = [{"role": "user", "content": [*content, {"type": "text", "text": self.prompt}]}]
        inputs = self.words.apply_chat_template(
            asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self.model.device)
        made = self.model.generate(**inputs, max_new_tokens=WORDS, do_sample=False)
        return self.words.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
