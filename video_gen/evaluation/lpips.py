"""LPIPS (Zhang et al. 2018, arXiv:1801.03924): how unlike two pictures look, by the responses of AlexNet to both.

The weights are the user's, as .safetensors. Without any the same network with drawn ones stands in, under another name: it hears
blur, noise and shifts as such networks do, but it is not LPIPS, and its figures compare with none of a paper.
"""

import re
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.data.folder import content_hash
from video_gen.errors import ConfigError, DataError
from video_gen.model.pretrained import check_finite, read_weights

TRAINED_ON = 64
"""Pixels of a side to which smaller pictures are enlarged: LPIPS was trained on such."""
LAYERS = {
    0: (3, 64, 11, 4, 2),
    3: (64, 192, 5, 1, 2),
    6: (192, 384, 3, 1, 1),
    8: (384, 256, 3, 1, 1),
    10: (256, 256, 3, 1, 1),
}
"""AlexNet's convolutions by their place among its layers: channels in and out, kernel, stride, padding."""
POOLED = (3, 6)
"""Before these the picture is halved."""
TRUNK = re.compile(r"(?:net\.slice\d+|features)\.(\d+)\.(weight|bias)")
HEAD = re.compile(r"lin(\d)\.model\.1\.weight")
LEFT_OUT = re.compile(r"lins\.|scaling_layer\.|classifier\.")
"""What such files hold besides: copies, constants, and the layers that name classes."""
HOW = (
    "where the `lpips` package is installed: safetensors.torch.save_file({k: v.clone() for k, v in "
    'lpips.LPIPS(net="alex").state_dict().items() if not k.startswith("lins.")}, "lpips-alex.safetensors")'
)


class LPIPS(nn.Module):
    """The distance of pictures (n, 3, h, w) in [-1, 1]: (n,), 0 for the same.

    Use: `LPIPS.from_file(path)` or `LPIPS.drawn()`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self):
        super().__init__()
        self.trunk = nn.ModuleDict({str(at): nn.Conv2d(a, b, k, s, p) for at, (a, b, k, s, p) in LAYERS.items()})
        self.heads = nn.ParameterList([torch.ones(size[1]) for size in LAYERS.values()])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.name = "lpips"
        self.about = ""
        """What made the figures, for the protocol."""

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The user's weights: keys of `lpips.LPIPS(net="alex")`, or `features.N.weight` of AlexNet with its `lin0.model.1.weight`.

        Raises: ConfigError for a pickle; DataError if it is damaged, or keys or shapes are not AlexNet's.
        """
        if path.suffix != ".safetensors":
            raise ConfigError(
                f"lpips {path}: only .safetensors is read, since pickles run code; convert it once, {HOW}"
            )
        model, state, unknown = cls(), {}, []
        for key, x in read_weights(path).items():
            if trunk := TRUNK.fullmatch(key):
                state[f"trunk.{trunk[1]}.{trunk[2]}"] = x
            elif head := HEAD.fullmatch(key):
                state[f"heads.{head[1]}"] = x.flatten()
            elif not LEFT_OUT.match(key):
                unknown.append(key)
        want = model.state_dict()
        wrong = [key for key, x in want.items() if key not in state or state[key].shape != x.shape]
        if wrong or unknown:
            what = (
                f"{_theirs(wrong[0])} is missing or of another shape" if wrong else f"{unknown[0]} is none of its keys"
            )
            raise DataError(f"{path}: not the weights of LPIPS with AlexNet ({what}); make them anew, {HOW}")
        state = {key: state[key].float() for key in want}
        check_finite(state, "LPIPS", path)
        model.load_state_dict(state)
        model.about = f"LPIPS, AlexNet, weights {content_hash(path)}"
        return model.eval().requires_grad_(False)

    @classmethod
    def drawn(cls, seed: int = 0) -> Self:
        """Of weights that are drawn: no LPIPS."""
        model = cls()
        generator = torch.Generator().manual_seed(seed)
        for layer in model.trunk.values():
            assert isinstance(layer, nn.Conv2d)
            fan_in = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            layer.bias.data.zero_()  # type: ignore[union-attr]
        model.name = "drawn_lpips"
        model.about = f"LPIPS's network with drawn weights (seed {seed}): not LPIPS"
        return model.eval().requires_grad_(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        total = torch.zeros(len(made), device=made.device)
        for head, a, b in zip(self.heads, self._responses(made), self._responses(true)):
            total = total + ((a - b).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total

    def _responses(self, pictures: Tensor) -> list[Tensor]:
        """Of each layer, of unit length at each place."""
        short = min(pictures.shape[-2:])
        if short < TRAINED_ON:
            pictures = F.interpolate(pictures, scale_factor=TRAINED_ON / short, mode="bilinear", align_corners=False)
        x, found = (pictures - self.shift) / self.scale, []
        for at, layer in self.trunk.items():
            x = F.relu(layer(F.max_pool2d(x, 3, 2) if int(at) in POOLED else x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def _theirs(key: str) -> str:
    """A key of ours as AlexNet's or LPIPS's file has it."""
    kind, _, rest = key.partition(".")
    return f"features.{rest}" if kind == "trunk" else f"lin{rest}.model.1.weight"
