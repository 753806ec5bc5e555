"""Captions by any image or video captioner of `transformers`, from a local folder or the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.data.packed import Packed
from video_gen.data.video_file import probe, read_frames
from video_gen.errors import ConfigError, DataError

FRAMES = 4
"""Of a clip, that a captioner of images sees one by one; the caption of the middle one is taken. One of videos sees them all."""
WORDS = 60
"""Tokens of a caption, at most."""


class Captioner:
    """Says what a clip shows: `captioner(path)`.

    Args:
        model: a folder or Hub id; vision-encoder-decoder models (such as GIT, BLIP, ViT-GPT2), and those with a chat template.
        prompt: what one with a chat template is asked.
    Raises: ConfigError if `transformers` is missing, or this is no captioner that it knows.
    """

    def __init__(self, model: str, prompt: str = "Describe this video in one sentence."):
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError:
            raise ConfigError("--caption-model needs transformers; pip install 'video-gen[hf]'") from None
        self.name, self.prompt = model, prompt
        try:
            self.processor: Any = AutoProcessor.from_pretrained(model)
            self.model: Any = AutoModelForImageTextToText.from_pretrained(model).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"--caption-model {model}: cannot be loaded as a captioner ({' '.join(str(error).split())[:160]}); give the folder "
                "or Hub id of an image-text-to-text model of transformers"
            ) from None

    def __call__(self, path: Path | Packed) -> str:
        """Raises: DataError if the clip cannot be read, or nothing is said of it."""
        import torch

        info = probe(path)
        times = [0.0] if info.kind == "image" else [info.duration * (i + 0.5) / FRAMES for i in range(FRAMES)]
        frames = read_frames(path, times)
        with torch.inference_mode():
            said = self._say(list(frames))
        caption = " ".join(said.split())
        if not caption:
            raise DataError(
                f"{path}: captioner {self.name} says nothing of it; give it a caption in a .txt beside its file"
            )
        return caption

    def _say(self, frames: Sequence[np.ndarray]) -> str:
        from PIL import Image

        pictures = [Image.fromarray(frame) for frame in frames]
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image", "image": picture} for picture in pictures]
            asked = [{"role": "user", "content": [*content, {"type": "text", "text": self.prompt}]}]
            inputs = self.processor.apply_chat_template(
                asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
            made = self.model.generate(**inputs, max_new_tokens=WORDS, do_sample=False)[
                :, inputs["input_ids"].shape[1] :
            ]
        else:
            inputs = self.processor(images=pictures[len(pictures) // 2], return_tensors="pt")
            made = self.model.generate(**inputs, max_new_tokens=WORDS, do_sample=False)
        return self.processor.batch_decode(made, skip_special_tokens=True)[0]
