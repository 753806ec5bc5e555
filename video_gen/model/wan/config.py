"""Sizes of the Wan transformers. No torch here.

Source: Wan: Open and Advanced Large-Scale Video Generative Models, arXiv:2503.20314, and the releases' config files.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from video_gen.config import HIDDEN, Config, validate
from video_gen.errors import ConfigError


class WanTransformerConfig(Config):
    """Sizes of a WanTransformer. All releases norm queries and keys over all heads together, and the tokens before the text."""

    latent_channels: Annotated[int, HIDDEN] = Field(default=16, ge=1, le=4096)
    """Channels of the latents; the VAE's."""
    in_channels: int = Field(default=16, ge=1, le=8192)
    """Channels that come in: the latents', and where a picture is told by channels, those of mask and picture (20)."""
    patch_size: int = Field(default=2, ge=1, le=64)
    """Latent pixels per token, along height and width."""
    dim: int = Field(default=1536, ge=16, le=65_536)
    """Features per token."""
    ffn_dim: int = Field(default=8960, ge=16, le=524_288)
    """Features inside of the feed-forward."""
    num_heads: int = Field(default=12, ge=1, le=1024)
    """Heads of attention."""
    depth: int = Field(default=30, ge=1, le=1024)
    """Layers."""
    freq_dim: int = Field(default=256, ge=2, le=65_536)
    """Sines and cosines of the diffusion time."""
    text_width: Annotated[int, HIDDEN] = Field(default=4096, ge=1, le=65_536)
    """Features per text token that come in; the text encoder's width."""
    text_len: int = Field(default=512, ge=1, le=65_536)
    """Tokens to which every text is filled up with zeros, which the model sees."""
    image_width: int | None = Field(default=None, ge=1, le=65_536)
    """Features per token of a picture's CLIP encoder (1280), where pictures are told by that, too; None = they are not."""
    image_positions: int | None = Field(default=None, ge=1, le=65_536)
    """CLIP tokens of a first and a last frame together (514), where both are told; None = one picture, without positions."""
    first_frame: bool = False
    """A picture is told as the first latent frame, clean and at diffusion time 0 (2.2's 5B)."""
    rope_theta: float = Field(default=10_000.0, gt=1, le=1e9)
    """Base of the rotary positions."""
    eps: float = Field(default=1e-6, gt=0, le=1)
    """Added to what norms divide by."""
    sink: int = Field(default=1, ge=0, le=1_000_000)
    """First latent frames of the history, which are kept for ever."""
    window: int | None = Field(default=None, ge=1, le=1_000_000)
    """Last latent frames of the history that are seen, besides the sink; None = all of it."""

    previous: ClassVar[bool] = False
    actions: ClassVar[None] = None
    action_frames: ClassVar[None] = None
    action_size: ClassVar[int] = 0

    @model_validator(mode="after")
    def _heads(self):
        if self.dim % self.num_heads or self.head_dim % 2 or self.head_dim < 6:
            raise ValueError(f"dim {self.dim} must be num_heads {self.num_heads} times an even number from 6 on")
        return self

    @model_validator(mode="after")
    def _pictures(self):
        if self.in_channels < self.latent_channels:
            raise ValueError(f"in_channels {self.in_channels} is less than latent_channels {self.latent_channels}")
        if self.image_positions is not None and (self.image_width is None or self.image_positions % 2):
            raise ValueError(
                f"image_positions {self.image_positions} are of two pictures, so even, and want an image_width"
            )
        return self

    @property
    def width(self) -> int:
        return self.dim

    @property
    def head_dim(self) -> int:
        """Features per head."""
        return self.dim // self.num_heads

    @property
    def beside_channels(self) -> int:
        """Channels besides the latents, which tell of a picture; 0 = none."""
        return self.in_channels - self.latent_channels

    def tokens(self, latent_frames: int, latent_height: int, latent_width: int) -> int:
        """Video tokens of one clip."""
        return latent_frames * (latent_height // self.patch_size) * (latent_width // self.patch_size)

    def forward_flops(self, latent_frames: int, latent_height: int, latent_width: int) -> float:
        """Floating-point operations of the blocks on one clip denoised as a whole; text and embeddings don't count.

        Per token and layer, 2 for each weight of the projections (4 dim^2 of self-attention, 2 dim^2 of cross-attention, whose
        keys and values are the text's) and of the feed-forward (2 dim ffn_dim), and 4 dim for each token that it attends to.
        """
        n = self.tokens(latent_frames, latent_height, latent_width)
        return n * self.depth * (2 * (6 * self.dim**2 + 2 * self.dim * self.ffn_dim) + 4 * self.dim * n)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "WanTransformerConfig":
        """A public size by release and name, or `tiny`. Raises: ConfigError."""
        if name not in PRESETS:
            raise ConfigError(f"no Wan transformer preset '{name}'; there are {', '.join(PRESETS)}")
        return validate(cls, PRESETS[name] | overrides, source=f"Wan transformer preset '{name}'")


_1B: dict[str, Any] = dict(dim=1536, ffn_dim=8960, num_heads=12, depth=30)
_5B: dict[str, Any] = dict(dim=3072, ffn_dim=14336, num_heads=24, depth=30)
_14B: dict[str, Any] = dict(dim=5120, ffn_dim=13824, num_heads=40, depth=40)
_CHANNELS: dict[str, Any] = dict(in_channels=36)
_CLIP: dict[str, Any] = dict(in_channels=36, image_width=1280)

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(dim=64, ffn_dim=160, num_heads=2, depth=2, freq_dim=32, text_width=32, text_len=24),
    "2.1-t2v-1.3b": _1B,
    "2.1-t2v-14b": _14B,
    "2.1-i2v-14b": _14B | _CLIP,
    "2.1-flf2v-14b": _14B | _CLIP | dict(image_positions=514),
    "2.2-ti2v-5b": _5B | dict(latent_channels=48, in_channels=48, first_frame=True),
    "2.2-a14b-t2v": _14B,
    "2.2-a14b-i2v": _14B | _CHANNELS,
}
