"""Which clips make up the batch of a step: a pure function of the step, so that a resumed run needs no state."""

from collections.abc import Callable, Sequence
from math import gcd

import numpy as np

from video_gen.data.config import Bucket, bucket_name
from video_gen.errors import ConfigError

WORK_SLACK = 0.15
"""A bucket's batch may do this share less work than the largest bucket's, to be a number that many ranks divide."""


def volume(bucket: Bucket) -> float:
    """The work of a convolutional network on a clip, up to a factor."""
    frames, height, width = bucket
    return float(frames * height * width)


class BatchSampler:
    """Batches of one shape each, every clip once per epoch, in an order that is new each epoch.

    An epoch cuts each bucket, shuffled, into batches; what is left over (fewer than a batch) is filled up from the
    bucket's own start, so no clip is left out. The first epoch begins with a batch of each bucket, the one of most work
    first: what runs out of memory or has to be compiled does so at once. With several ranks, each takes its share of one
    common batch, so all do the same work, and a run may go on with another number of them.

    Args:
        buckets: (frames, height, width) of each clip, in any unit.
        batch_size: clips per step of the bucket of most work, over all ranks; see `balanced_batch_sizes` for the others.
        work: what a clip of a bucket costs, in any unit; by default the product of its sides.
        accumulation: micro-batches per step, which each rank's share is cut into.
    Raises: ConfigError if ranks and micro-batches don't divide a batch.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        work: Callable[[Bucket], float] = volume,
        accumulation: int = 1,
    ):
        self.seed, self.rank, self.world_size, self.work = seed, rank, world_size, work
        self.batch_sizes = balanced_batch_sizes(set(buckets), batch_size, work, accumulation)
        """Clips per step of each bucket, the one of most work first."""
        for bucket, size in self.batch_sizes.items():
            if size % (world_size * accumulation):
                raise ConfigError(
                    f"loop.batch_size {batch_size} gives the bucket {bucket_name(bucket)} {size} clips a step, which must be "
                    f"a multiple of ranks times accumulation, {world_size} x {accumulation}; use a rounder batch_size"
                )
        places = {bucket: np.flatnonzero([b == bucket for b in buckets]) for bucket in self.batch_sizes}
        self.groups = [(places[bucket], size) for bucket, size in self.batch_sizes.items()]
        self.batches = [
            (g, n) for g, (members, size) in enumerate(self.groups) for n in range(-(-len(members) // size))
        ]
        """(bucket, batch within it) of each step of an epoch, before they are shuffled."""
        self.steps_per_epoch = len(self.batches)

    def indices(self, step: int) -> list[int]:
        """The clips of step `step` for this rank."""
        epoch, place = divmod(step, self.steps_per_epoch)
        group, number = self._order(epoch)[place]
        members, size = self.groups[group]
        order = np.random.default_rng([self.seed, epoch, group]).permutation(len(members))
        chosen = np.take(order, np.arange(number * size, (number + 1) * size), mode="wrap")
        share = size // self.world_size
        return members[chosen[self.rank * share : (self.rank + 1) * share]].tolist()

    def step_work(self, bucket: Bucket) -> float:
        """What a step of a bucket costs, in the unit of `work`."""
        return self.batch_sizes[bucket] * self.work(bucket)

    def mean_per_step(self, amount: Callable[[Bucket], float]) -> float:
        """The mean over an epoch's steps of what all clips of a step amount to: tokens, say."""
        sizes = list(self.batch_sizes.items())
        return sum(size * amount(bucket) for bucket, size in (sizes[g] for g, _ in self.batches)) / len(self.batches)

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """(bucket, batch within it) of each step of an epoch."""
        order = [self.batches[i] for i in np.random.default_rng([self.seed, epoch]).permutation(len(self.batches))]
        if epoch:
            return order
        return [batch for batch in self.batches if batch[1] == 0] + [batch for batch in order if batch[1] > 0]


def balanced_batch_sizes(
    buckets: set[Bucket], batch_size: int, work: Callable[[Bucket], float], accumulation: int = 1
) -> dict[Bucket, int]:
    """Clips per step of each bucket, so that every step costs about the same; the bucket of most work first.

    That one gets `batch_size`. Any other gets at most as many as cost the same, and down to WORK_SLACK fewer if the number
    then shares a larger divisor with `batch_size`: what divides both is what the number of ranks may be. All are
    multiples of `accumulation`, and depend on nothing but the arguments, so not on the number of ranks.
    """
    order = sorted(buckets, key=lambda bucket: (-work(bucket), bucket))
    sizes: dict[Bucket, int] = {}
    for bucket in order:
        equal = batch_size * work(order[0]) / work(bucket)
        most = int(equal + 1e-6) // accumulation * accumulation
        least = max(batch_size, equal * (1 - WORK_SLACK))
        fits = [n for n in range(most, 0, -accumulation) if n >= least] or [most]
        sizes[bucket] = max(fits, key=lambda n: (gcd(n, batch_size), n))
    return sizes
