"""An inverse-dynamics network: what was done, read off the pictures before and after it.

It is trained on true frames. How often it is right on made ones, over how often on true ones, tells whether a world does what
it is told, in whatever way it looks.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.vocabulary import Vocabulary

BATCH = 128
RATE = 2e-3
AXIS_NEAR = 0.1
"""Share of an axis's range within which a value read off counts as right."""


class InverseDynamics(nn.Module):
    """Three pictures in a row, (b, 9, h, w) in [-1, 1], to what was done between the second and the third: (b, a), logits for keys
    and values in [-1, 1] for axes."""

    def __init__(self, vocabulary: Vocabulary, width: int = 32):
        super().__init__()
        self.vocabulary = vocabulary
        channels = [18, width, 2 * width, 3 * width, 4 * width]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 5 if i == 0 else 3, stride=2, padding=2 if i == 0 else 1)
            for i, (a, b) in enumerate(zip(channels, channels[1:]))
        )
        self.hidden = nn.LazyLinear(4 * width)
        self.out = nn.Linear(4 * width, vocabulary.size)

    def forward(self, pictures: Tensor) -> Tensor:
        before, now, after = pictures.chunk(3, dim=1)
        x = torch.cat([before, now, after, now - before, after - now, after - before], dim=1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.out(F.relu(self.hidden(x.flatten(1))))


def triples(videos: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Videos (n, f, h, w, 3) uint8 and what was done (n, f, a), scaled, to (m, h, w, 9) and (m, a)."""
    pictures = np.concatenate([videos[:, :-2], videos[:, 1:-1], videos[:, 2:]], axis=-1)
    return pictures.reshape(-1, *pictures.shape[2:]), rows[:, 1:-1].reshape(-1, rows.shape[-1])


def train_inverse(
    videos: np.ndarray,
    rows: np.ndarray,
    vocabulary: Vocabulary,
    steps: int = 1500,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> InverseDynamics:
    """Train on true frames; see `triples` for the arguments."""
    pictures, done = triples(videos, rows)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = InverseDynamics(vocabulary)
        model(_tensor(pictures[:1]))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    keys = len(vocabulary.keys)
    for step in range(steps):
        chosen = rng.integers(0, len(pictures), BATCH)
        found, target = model(_tensor(pictures[chosen])), torch.from_numpy(done[chosen])
        loss = F.mse_loss(found[:, keys:], target[:, keys:]) if vocabulary.axes else found.new_zeros(())
        if keys:
            loss = loss + F.binary_cross_entropy_with_logits(found[:, :keys], target[:, :keys])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress:
            progress(step + 1, steps)
    return model.eval()


@torch.no_grad()
def accuracy(model: InverseDynamics, videos: Sequence[np.ndarray] | np.ndarray, rows: np.ndarray) -> float:
    """Share of the frames of which all keys, and all axes to a tenth of their range, are read off right."""
    pictures, done = triples(np.asarray(videos), rows)
    keys, right = len(model.vocabulary.keys), []
    for start in range(0, len(pictures), BATCH):
        found, target = model(_tensor(pictures[start : start + BATCH])), torch.from_numpy(done[start : start + BATCH])
        same = ((found[:, :keys] > 0) == (target[:, :keys] > 0.5)).all(1)
        near = ((found[:, keys:] - target[:, keys:]).abs() <= 2 * AXIS_NEAR).all(1)
        right.append(same & near)
    return float(torch.cat(right).float().mean())


def _tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).movedim(-1, 1).float() / 127.5 - 1
