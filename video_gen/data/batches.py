"""Which clips make up the batch of a step: a pure function of the step, so that a resumed run needs no state."""

import numpy as np


class BatchSampler:
    """Batches of one shape each, every clip once per epoch, in an order that is new each epoch.

    An epoch cuts each bucket, shuffled, into batches; what is left over (fewer than a batch) is filled up from the
    bucket's own start, so no clip is left out. With several ranks, each takes its share of one common batch.

    Args:
        buckets: (frames, height, width) of each clip.
        batch_size: clips per step, over all ranks.
    """

    def __init__(
        self, buckets: list[tuple[int, int, int]], batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ):
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} must be a multiple of the number of ranks, {world_size}")
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, bucket in enumerate(buckets):
            groups.setdefault(bucket, []).append(index)
        self.groups = [np.array(groups[bucket]) for bucket in sorted(groups)]
        self.steps_per_epoch = sum(-(-len(group) // batch_size) for group in self.groups)

    def indices(self, step: int) -> list[int]:
        """The clips of step `step` for this rank."""
        epoch, place = divmod(step, self.steps_per_epoch)
        group, number = self._order(epoch)[place]
        members = self.groups[group]
        order = np.random.default_rng([self.seed, epoch, group]).permutation(len(members))
        chosen = np.take(order, np.arange(number * self.batch_size, (number + 1) * self.batch_size), mode="wrap")
        share = self.batch_size // self.world_size
        return members[chosen[self.rank * share : (self.rank + 1) * share]].tolist()

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """(bucket, batch within it) of each step of an epoch."""
        batches = [(g, n) for g, group in enumerate(self.groups) for n in range(-(-len(group) // self.batch_size))]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(batches))
        return [batches[i] for i in order]
