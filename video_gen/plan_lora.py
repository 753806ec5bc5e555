"""`video-gen plan lora`: what a training step of a LoRA takes on a GPU, by each way to make it fit, for models of any size.

The step runs on tensors without content (training/memory.py), for two models of few layers. All blocks are alike, so each more
takes as much as the one before: the model's own number follows.
"""

import json
from dataclasses import asdict, astuple, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import torch
from rich.table import Table

from video_gen.data.config import ClipConfig
from video_gen.errors import ConfigError
from video_gen.files import write_text
from video_gen.model.lora_config import LoraConfig
from video_gen.model.offload import resident_bytes
from video_gen.model.text import CachedTextEncoder
from video_gen.model.transformer_config import Checkpointing, TextConfig, Weights
from video_gen.plan import RandomLatents
from video_gen.plan_sample import room_of, said
from video_gen.progress import plain_console
from video_gen.sampling.memory import CLIP_TOKENS, weight_bytes
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sizes import Sizes, sizes_of
from video_gen.training.config import LoopConfig
from video_gen.training.lora_task import LoraTask
from video_gen.training.memory import StepMemory, step_memory
from video_gen.training.pictures import Pictures
from video_gen.training.recipes import DiffusionRun, ModeConfig

DEPTHS = (2, 4)
"""Layers of the models whose step is run."""
BASES: tuple[Weights, ...] = ("bf16", "int8")
CHECKPOINTING: tuple[Checkpointing, ...] = ("off", "selective", "full")
OFFLOADING: dict[Checkpointing, tuple[Literal["off", "blocks", "tokens"], ...]] = {
    "off": ("off", "blocks"), "selective": ("off",), "full": ("off", "blocks", "tokens"),
}  # fmt: skip
SLOWER: dict[str, float] = {
    "off": 1.0, "selective": 1.15, "full": 1.33, "blocks": 1.05, "tokens": 1.1, "bf16": 1.0, "int8": 1.25,
}  # fmt: skip
"""How many times as long a step is taken to last, by guess; rounding counts as time, too. It only orders the choices."""


@dataclass(frozen=True)
class LoraChoice:
    """A way to train, and what a step of it takes."""

    base: Weights
    checkpointing: Checkpointing
    offload: Literal["off", "blocks", "tokens"]
    memory: StepMemory
    vae: int
    """Bytes of the VAE, which comes to the device for the samples on the way."""
    host: int
    """Bytes of weights, and of tokens, that stay in the CPU's memory."""

    @property
    def bytes(self) -> int:
        return self.memory.total + self.vae

    @property
    def cost(self) -> float:
        return SLOWER[self.base] * SLOWER[self.checkpointing] * SLOWER[self.offload]

    def options(self) -> str:
        """As words of the command line of `train diffusion`."""
        return f"--lora.base {self.base} --loop.checkpointing {self.checkpointing} --lora.offload {self.offload}"


@dataclass(frozen=True)
class LoraPlan:
    name: str
    size: tuple[int, int, int]
    tokens: int
    batch_size: int
    rank: int
    parameters: int
    """That are trained."""
    choices: list[LoraChoice]
    """From the cheapest to the dearest."""

    def cheapest(self, room: int) -> LoraChoice:
        """Raises: ConfigError if none fits into so many bytes."""
        for choice in self.choices:
            if choice.bytes <= room:
                return choice
        least = min(self.choices, key=lambda choice: choice.bytes)
        raise ConfigError(
            f"fit: {said(room)} are not enough for a LoRA of {self.name} at {'x'.join(map(str, self.size))}: the least is "
            f"{said(least.bytes)}, with {least.options()}; take fewer or smaller frames"
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"choices": [asdict(c) | {"bytes": c.bytes} for c in self.choices]}, indent=1)


def plan_lora(sizes: Sizes, num_frames: int, lora: LoraConfig, loop: LoopConfig, text_tokens: int = 512) -> LoraPlan:
    """All choices there are. Latents and text are encoded before, and so are no part of a step.

    Args: lora: rank and targets; loop: batch_size and accumulation.
    Raises: ShapeError if the sizes do not fit the model; ConfigError for one that is not trained so.
    """
    clip, fresh = sizes.config.clip, sizes.model()
    config: Any = fresh.transformer.config
    if hasattr(fresh.transformer, "high"):
        raise ConfigError(
            f"{sizes.name} has two experts, which are not trained together; one takes what 2.1-t2v-14b does"
        )
    shape = fresh.vae.latent_shape(num_frames, clip.height, clip.width)
    run = DiffusionRun(
        data=ClipConfig(num_frames=num_frames, height=clip.height, width=clip.width),
        init=Path(sizes.name),
        modes=ModeConfig(teacher_forcing=0.0),
        lora=lora,
    )
    choices, trained = [], 0
    for base, kept in product(BASES, CHECKPOINTING):
        this = run.replace(
            lora=lora.replace(base=base).model_dump(), loop=loop.replace(checkpointing=kept, compile="off").model_dump()
        )
        found = [_step(this, fresh, config.replace(depth=depth), shape, text_tokens) for depth in DEPTHS]
        memory, resident, whole, trained = (longer(few, more, config.depth) for few, more in zip(*found, strict=True))
        for offload in OFFLOADING[kept]:
            left, away = memory, 0
            if offload != "off":
                left, away = replace(memory, weights=memory.weights - whole + resident), whole
            if offload == "tokens":
                a_layer, alone = first_of(found[0][0], found[1][0])
                left, away = replace(left, activations=alone), away + config.depth * a_layer
            choices.append(LoraChoice(base, kept, offload, left, weight_bytes(fresh.vae), away))
    choices.sort(key=lambda choice: (choice.cost, choice.bytes))
    tokens = config.tokens(*shape[1:])
    size = (num_frames, clip.height, clip.width)
    return LoraPlan(sizes.name, size, tokens, loop.batch_size, lora.rank, trained, choices)


def _step(
    run: DiffusionRun, model: VideoPipeline, config: Any, shape: tuple[int, int, int, int], text_tokens: int
) -> tuple[StepMemory, int, int, int]:
    """Memory of a step; bytes of weights on the device with offload, and without; parameters that are trained."""
    with torch.device("meta"):
        transformer = cast(Any, type(model.transformer))(config)
        count = min(text_tokens, getattr(config, "text_len", text_tokens))
        text = CachedTextEncoder(TextConfig(), lambda text: torch.zeros(count, config.text_width))
        latents: Any = RandomLatents(shape, "a caption")
        pictures = pictures_like(config, model.vae.config.temporal_stride)
        task = LoraTask(run, cast(Any, transformer), text, model.vae, latents, latents, pictures=pictures)
    trained = sum(p.numel() for p in transformer.parameters() if p.requires_grad)
    weights = (resident_bytes(transformer), weight_bytes(transformer))
    batch = {
        name: x.to("cpu") if x.device.type != "meta" else torch.empty_like(x, device="cpu")
        for name, x in task.batch(0).items()
    }
    return step_memory(task, batch, run.loop, run.optim, cpu=False), *weights, trained


def pictures_like(config: Any, stride: int) -> Pictures | None:
    """What a model that begins with a picture is told of one, of the right size and without content."""
    if not config.beside_channels:
        return None
    tokens = torch.zeros(config.image_positions or CLIP_TOKENS, config.image_width or 0, device="cpu")
    return Pictures(config, stride, 0.0, None if config.image_width is None else lambda clip: tokens)


def first_of(few: StepMemory, more: StepMemory) -> tuple[int, int]:
    """What each layer adds, which is the tokens it begins with, and what one layer alone holds at its peak. (Where many wait, that
    is before there are gradients; where none do, gradients come on top.)"""
    held = [memory.activations + memory.gradients for memory in (few, more)]
    a_layer = (held[1] - held[0]) // (DEPTHS[1] - DEPTHS[0])
    return a_layer, held[0] - (DEPTHS[0] - 1) * a_layer


def longer(few: Any, more: Any, depth: int) -> Any:
    """What the two models of `DEPTHS` have, of one of so many layers."""
    if isinstance(few, StepMemory):
        return StepMemory(*(longer(a, b, depth) for a, b in zip(astuple(few), astuple(more))))
    return more + (more - few) * (depth - DEPTHS[1]) // (DEPTHS[1] - DEPTHS[0])


# -------------------- saying it


def plan_of(
    model: str | Path,
    rooms: tuple[str, ...] = (),
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    rank: int = 16,
    targets: tuple[str, ...] = ("blocks.*",),
    batch_size: int = 1,
    accumulation: int = 1,
) -> tuple[LoraPlan, dict[str, int]]:
    """What `video-gen plan lora` was told. Returns: the plan, and the rooms in bytes."""
    sizes = sizes_of(model).at(height, width)
    loop = LoopConfig(batch_size=batch_size, accumulation=accumulation)
    plan = plan_lora(sizes, num_frames or sizes.config.clip.num_frames, LoraConfig(rank=rank, targets=targets), loop)
    return plan, {room: room_of(room, torch.device("cuda")) for room in rooms}


def show(plan: LoraPlan, rooms: dict[str, int], output: Path | None) -> None:
    """A table for the person, the cheapest choice for each room, and a JSON file if asked for."""
    console = plain_console()
    if not console.is_terminal:
        console = plain_console(width=132)
    console.print(
        f"{plan.name}: a LoRA of rank {plan.rank}, {plan.parameters / 1e6:.1f} M parameters; {plan.batch_size} clips of "
        f"{'x'.join(map(str, plan.size))}, {plan.tokens:,} tokens each",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(title="memory of a step on a GPU")
    for name in ("base", "checkpointing", "offload", "weights", "LoRA's own", "activations", "VAE", "together", "host"):
        table.add_column(name, justify="left" if name in ("base", "checkpointing", "offload") else "right")
    for choice in plan.choices:
        m = choice.memory
        own = m.gradients + m.optimiser + m.ema
        sizes = (m.weights, own, m.activations + m.workspace, choice.vae, choice.bytes)
        host = said(choice.host) if choice.host else "-"
        table.add_row(choice.base, choice.checkpointing, choice.offload, *map(said, sizes), host)
    console.print(table)
    for name, room in rooms.items():
        try:
            choice = plan.cheapest(room)
            console.print(f"into {name} fits: {choice.options()}, with {said(choice.bytes)}", highlight=False)
        except ConfigError as error:
            console.print(str(error), highlight=False, soft_wrap=True)
    if output:
        write_text(output, plan.to_json())
