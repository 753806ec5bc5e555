"""What the loop does for a LoRA: as for the whole transformer, with adapters beside its frozen weights (model/lora.py)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_gen import __version__
from video_gen.data.latents import LatentSet
from video_gen.errors import ConfigError
from video_gen.model import lora
from video_gen.model.flops import BACKWARD
from video_gen.model.lora_files import FILE, places_of, read_lora, write_lora
from video_gen.model.offload import Offload
from video_gen.model.text import TextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.parts import VAE, parts_of
from video_gen.sampling.stream_state import fingerprint
from video_gen.shipped import looks_like_hub_id
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.parallel import Mesh
from video_gen.training.pictures import Pictures
from video_gen.training.public import of_expert
from video_gen.training.recipes import DiffusionRun

MERGED = "merged"


class LoraTask(DiffusionTask):
    """A `training.task.Task`: adapters of a transformer whose own weights, and whose text encoder, stay as they are.

    Args: transformer, text: of the model that `run.init` names.
    Raises: ConfigError if `lora.targets` name nothing, or `lora.start` is for other layers; DataError if it cannot be read.
    """

    def __init__(
        self,
        run: DiffusionRun,
        transformer: VideoTransformer | WanTransformer,
        text: TextEncoder,
        vae: VAE,
        train: LatentSet,
        validation: LatentSet,
        mesh: Mesh | None = None,
        pictures: Pictures | None = None,
    ):
        planned = next(transformer.parameters()).is_meta  # of a model that has no weights nothing is known
        self.base = {} if planned else {"base": fingerprint(transformer)}
        if not planned and not run.text.name:
            self.base["text encoder"] = fingerprint(text)
        places = places_of(transformer)
        lora.attach(transformer, run.lora, run.loop.seed)
        if run.lora.start is not None:
            lora.fill(transformer, read_lora(run.lora.start, places).changes, run.lora.start)
        super().__init__(run, transformer, text.requires_grad_(False), vae, train, validation, mesh, pictures)
        self.offload = None
        if run.lora.offload != "off" and not planned:
            if self.mesh.world > 1:
                raise ConfigError(
                    f"lora.offload is {run.lora.offload}, and there are {self.mesh.world} processes; set it to off"
                )
            self.offload = Offload(transformer, self.mesh.device)

    def made_of(self) -> dict[str, str]:
        return super().made_of() | self.base

    def loss(
        self, batch: Mapping[str, Any], step: int, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = np.random.SeedSequence([self.run.loop.seed, step, 3]).generate_state(1)
        lora.draw_dropout(self.transformer, torch.Generator().manual_seed(int(drawn[0])))
        with nullcontext() if self.offload is None else self.offload.saving(self.run.lora.offload == "tokens"):
            return super().loss(batch, step, generators)

    def flops(self, batch: Mapping[str, Any], step: int) -> int:
        """Without the products for gradients of weights that have none, which are half of the backward pass."""
        return super().flops(batch, step) * 2 // (1 + BACKWARD)

    def save(self, folder: Path) -> None:
        """The adapter, and with `lora.merged` the whole model, from the base's own weights."""
        write_lora(folder / FILE, lora.learned(self.transformer), self.metadata())
        if self.run.lora.merged:
            assert self.run.init is not None  # the recipe checks that
            whole = of_expert(parts_of(self.run.init).transformer("fp32"), self.run.expert)
            lora.merge(whole, lora.learned(self.transformer), 1.0, folder / FILE)
            self.on({"transformer": whole, "text": self.text}).save_whole(folder / MERGED)

    def save_whole(self, folder: Path) -> None:
        super().save(folder)

    def metadata(self) -> dict[str, str]:
        """What the file says of itself; every tool shows it, and some read the names of modelspec."""
        config, data, init = self.run.lora, self.run.data, Path(self.run.init or "")
        told = {
            "rank": str(config.rank),
            "alpha": f"{config.rank * config.scale:g}",
            "targets": " ".join(config.targets),
            "base_model": str(init if looks_like_hub_id(init) else init.name),
            "base_model_hash": self.base["base"],
            "clip": f"{data.num_frames}x{data.height}x{data.width} at {data.fps:g} fps",
            "video_gen": __version__,
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": Path(self.run.data.folder).name,
            "modelspec.architecture": f"{type(self.transformer).__name__}/lora",
        }
        told |= {"expert": self.run.expert} if self.run.expert else {}
        sizes = self.transformer.config
        if isinstance(sizes, WanTransformerConfig) and sizes.beside_channels:
            told["pictures"] = "first and last" if sizes.image_positions else "first"
        return told | (
            {"trigger_prompt": config.trigger, "modelspec.trigger_phrase": config.trigger} if config.trigger else {}
        )
