"""Sizes of the transformer and its text encoder. No torch here."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from video_gen.config import HIDDEN, Config, validate
from video_gen.errors import ConfigError
from video_gen.vocabulary import Vocabulary

Checkpointing = Literal["off", "selective", "full"]
Weights = Literal["fp32", "bf16", "fp8", "int8"]
"""How the matrices of a model's layers are kept (model/weights.py)."""
Offloading = Literal["off", "blocks"]
"""What of a model stays in the CPU's memory (model/offload.py)."""

NEIGHBOURS = 3
"""A token sees its word and the two before it: in "a red circle" the last one is of a red circle, so that attention need not
find out first which words belong together."""


class TextConfig(Config):
    """How captions become tokens."""

    kind: Literal["bytes", "transformers"] = "bytes"
    """`bytes` is small and trained with the model; `transformers` takes a frozen encoder of that library."""
    name: str | None = None
    """With `transformers`: a folder or Hub id, such as google/t5-v1_1-base; or the .safetensors file of a UMT5 encoder."""
    subfolder: str | None = None
    """With `transformers`: the folder within `name` that holds the encoder, such as text_encoder."""
    tokeniser: str | None = None
    """With `transformers`: its tokeniser: a folder within `name`, such as tokenizer, or, with a slash in it, a folder or Hub id of
    its own; None = it lies with the encoder."""
    clean: bool = False
    """With `transformers`: captions are mended before they are read (encodings gone wrong, HTML, many spaces), as those were
    that Wan was trained on."""
    width: int = Field(default=128, ge=8, le=65_536)
    """With `bytes`: features per token. An encoder by name brings its own."""
    hash_buckets: int = Field(default=4096, ge=16, le=2**24)
    """With `bytes`: rows of the table of hashed words and byte groups."""
    max_tokens: int = Field(default=128, ge=2, le=65_536)
    """A longer caption is an error, since nothing is cut off in silence; or it is cut, see `too_long`."""
    too_long: Literal["error", "cut"] = "error"
    """With `transformers`: `cut` takes the first `max_tokens` of a longer caption and warns of it once."""

    @model_validator(mode="after")
    def _name(self):
        if (self.kind == "transformers") != (self.name is not None):
            raise ValueError("kind 'transformers' needs a name (a folder or Hub id), and kind 'bytes' takes none")
        told = {"subfolder": self.subfolder, "tokeniser": self.tokeniser, "clean": self.clean}
        told["too_long"] = self.too_long == "cut"
        if self.kind == "bytes" and (wrong := [name for name, value in told.items() if value]):
            raise ValueError(f"{wrong[0]} is for kind 'transformers'; leave it out")
        return self


class TransformerConfig(Config):
    """Sizes of the VideoTransformer."""

    latent_channels: Annotated[int, HIDDEN] = Field(default=16, ge=1, le=4096)
    """Channels of the latents; the VAE's."""
    patch_size: int = Field(default=2, ge=1, le=64)
    """Latent pixels per token, along height and width."""
    width: int = Field(default=256, ge=16, le=65_536)
    """Features per token."""
    depth: int = Field(default=6, ge=1, le=1024)
    """Layers."""
    head_dim: int = Field(default=64, ge=8, le=1024)
    """Features per head of attention: 64 suits a CPU, 128 a GPU."""
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Features inside of the feed-forward, per feature of a token."""
    attention: Literal["joint", "factorised"] = "joint"
    """`factorised` alternates space and time, with one joint layer in `joint_every`."""
    joint_every: int = Field(default=6, ge=1, le=1024)
    """With `factorised`: one layer in so many is joint."""
    text_width: Annotated[int, HIDDEN] = Field(default=128, ge=1, le=65_536)
    """Features per text token that come in; the text encoder's width."""
    sink: int = Field(default=1, ge=0, le=1_000_000)
    """First latent frames of the history, which are kept for ever."""
    window: int | None = Field(default=None, ge=1, le=1_000_000)
    """Last latent frames of the history that are seen, besides the sink; None = all of it in
    training, and in longer videos as many as a training clip has room for (docs/streaming.md)."""
    rope_theta: float = Field(default=1000.0, gt=1, le=1e9)
    """Base of the rotary positions: the slowest turn is about 6 times this, in frames or places."""

    previous: bool = False
    """Tokens of a frame that is made hold the last frame of its history, too, place by place, and say how much of each place is
    copied: what does not move stays as it was. For blocks of one frame and `diffusion.prediction` `denoised`."""
    warp: bool = False
    """With `previous`: places also say how the frame before moves (model/warp.py), so that what moves stays as sharp as it is."""
    change: bool = False
    """With `previous`: tokens also hold how the frame before differs from the one before it: what moves, where no action tells."""
    inertia: bool = False
    """With `warp` and `change`: what moved goes on moving, as much of it as places say (model/motion.py sees how)."""
    frame_noise: Annotated[bool, HIDDEN] = False
    """What is made depends on the noise of a frame as a whole, and not on that of its places; that of `diffusion.draws`."""
    strides: Annotated[tuple[int, int] | None, HIDDEN] = None
    """With `warp`: pixel frames of a latent frame, and pixels of a latent pixel's side; the VAE's strides."""
    actions: Annotated[Vocabulary | None, HIDDEN] = None
    """What can be done in the world that it shows, at each frame; that of the data. None = it knows of no actions."""
    action_frames: Annotated[int | None, HIDDEN] = Field(default=None, ge=1)
    """With actions: pixel frames, and so actions, of a latent frame; the VAE's temporal stride."""

    beside_channels: ClassVar[int] = 0
    first_frame: ClassVar[bool] = False
    """A picture is history; in others it comes in otherwise, see `sampling.pictures`."""

    @model_validator(mode="after")
    def _actions(self):
        if (self.actions is None) != (self.action_frames is None):
            raise ValueError("actions and action_frames belong together; give both or neither")
        return self

    @model_validator(mode="after")
    def _moves(self):
        if self.warp and not self.previous:
            raise ValueError(
                "warp moves the frame before, and the model has none without previous; set previous to true"
            )
        if self.change and not self.previous:
            raise ValueError(
                "change is that of the frame before, which the model has not without previous; set previous to true"
            )
        if self.inertia and not (self.warp and self.change):
            raise ValueError("inertia goes on with what moved, which warp and change are for; set both to true")
        if self.inertia and self.window == 1:
            raise ValueError(
                "inertia tells a video's first two frames by their being alone, and window is 1; set it to 2"
            )
        if self.warp and not self.sink:
            raise ValueError("warp tells a video's first frame by its being the only one, and sink is 0; set sink to 1")
        return self

    @model_validator(mode="after")
    def _heads(self):
        if self.width % self.head_dim or self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even and divide width {self.width}")
        return self

    @property
    def action_size(self) -> int:
        """Numbers by which a latent frame's actions are told; 0 = none."""
        return self.actions.size * (self.action_frames or 0) if self.actions else 0

    def tokens(self, latent_frames: int, latent_height: int, latent_width: int) -> int:
        """Video tokens of one clip."""
        return latent_frames * (latent_height // self.patch_size) * (latent_width // self.patch_size)

    def forward_flops(self, latent_frames: int, latent_height: int, latent_width: int) -> float:
        """Floating-point operations of the blocks on one clip denoised as a whole; text and embeddings don't count.

        Per token and layer, 2 for each weight of the projections (4 width^2) and of the feed-forward (2 mlp_ratio width^2),
        and 4 width for each token that it attends to.
        """
        n = self.tokens(latent_frames, latent_height, latent_width)
        joint = self.depth if self.attention == "joint" else self.depth // self.joint_every
        space = sum(i % 2 == 0 and i % self.joint_every != self.joint_every - 1 for i in range(self.depth))
        space, time = (0, 0) if self.attention == "joint" else (space, self.depth - joint - space)
        seen = joint * n + space * n / latent_frames + time * latent_frames
        return n * (self.depth * 2 * (4 + 2 * self.mlp_ratio) * self.width**2 + 4 * self.width * seen)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "TransformerConfig":
        """`tiny` (about 5 M parameters), `small` (30 M), `base` (130 M) or `large` (600 M). Raises: ConfigError."""
        if name not in PRESETS:
            raise ConfigError(f"no transformer preset '{name}'; there are {', '.join(PRESETS)}")
        return validate(cls, PRESETS[name] | overrides, source=f"transformer preset '{name}'")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(width=256, depth=6, head_dim=64),
    "small": dict(width=512, depth=9, head_dim=64),
    "base": dict(width=768, depth=18, head_dim=128),
    "large": dict(width=1536, depth=21, head_dim=128),
}
