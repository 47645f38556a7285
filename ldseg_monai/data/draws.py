"""What training draws from its cases: their order and the seed of each one's augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from monai.data import CacheDataset
from monai.transforms import Compose
from torch.utils.data import RandomSampler, Sampler

from ldseg_monai.runtime.processes import rank_and_world_size


class SeededSampler(Sampler[tuple[int, int]]):
    """Draw cases in random order, each with a seed for its random transforms.

    In an epoch, all cases come once before any comes again. What is drawn follows from the seed and
    the epoch alone: several processes, each taking its share in turn, draw together what one would.

    Args:
        data_source: the cases.
        num_samples: cases drawn in one epoch by all processes together; a few more, if they cannot
            share them evenly.
        seed: seed of the run.
    """

    def __init__(self, data_source: Sized, num_samples: int, seed: int = 0) -> None:
        self.rank, self.world_size = rank_and_world_size()
        self.num_own = -(-num_samples // self.world_size)
        self.generator = torch.Generator()
        self.order = RandomSampler(
            data_source, num_samples=self.num_own * self.world_size, generator=self.generator
        )
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's cases are drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """How many cases this process draws in one epoch."""
        return self.num_own

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Draw an epoch's cases: the index and the seed of each."""
        self.generator.manual_seed(self.seed + 1009 * self.epoch)
        indices = list(self.order)
        seeds = torch.randint(2**31, [len(indices)], generator=self.generator).tolist()
        yield from list(zip(indices, seeds, strict=True))[self.rank :: self.world_size]


class SeededCacheDataset(CacheDataset):
    """MONAI's data set in memory, whose random transforms may be seeded for one item.

    So an item's augmentation does not depend on which items the same process, or worker of a
    loader, made before.

    Args:
        kwargs: as of `monai.data.CacheDataset`; the transform is a `Compose`.
    """

    def __getitem__(self, index: Any) -> Any:
        """Make an item by its index, or by its index and a seed, as `SeededSampler` draws them."""
        if isinstance(index, tuple):
            index, seed = index
            transform: Compose = self.transform
            transform.set_random_state(seed)
        return super().__getitem__(index)
