"""Training batches that start at any position, with each sample's random numbers given by its position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.dist import get_dist_info
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from armbench_mmdet.engine.seeding import run_seed, seed_sample
from armbench_mmdet.errors import InputError


class Draw(NamedTuple):
    """A sample that a sampler drew, by its index, and where in its stream; see
    :func:`~armbench_mmdet.engine.seeding.seed_sample`.
    """

    sample: int
    epoch: int
    position: int


class SeededSamples(Dataset):
    """A data set whose transforms draw the same random numbers whichever process loads a sample.

    Indexed by a :class:`Draw` it seeds the generators, then gives the sample. In all else it is the data set itself.

    Args:
        dataset: A data set with a pipeline.
        seed: The run's seed.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        vars(self).update(_dataset=dataset, _seed=seed)

    def __getitem__(self, item: Any) -> Any:
        """The sample of a draw, or of an index."""
        if not isinstance(item, Draw):
            return self._dataset[item]
        seed_sample(self._seed, item.epoch, item.position)
        return self._dataset[item.sample]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the data set."""
        if name.startswith('__') or '_dataset' not in vars(self):  # the second while it is being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Change the data set, as hooks that replace its pipeline do."""
        setattr(self._dataset, name, value)


class PositionedBatches:
    """Batches of :class:`Draw`, from any position on; what lies before is drawn but not loaded.

    Args:
        batches: The batch sampler, mmengine's or mmdet's or any other.
        is_endless: Begin anew whenever ``batches`` ends, without stopping the processes that load data.
    """

    def __init__(self, batches: Any, is_endless: bool) -> None:
        self.batches = batches
        self.sampler = batches.sampler  # mmengine looks for it here
        self.batch_size = batches.batch_size
        self.is_endless = is_endless
        self._rank, self._world_size = get_dist_info()
        self._epoch = self._first = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next iteration begin at a batch, counted from 0, of an epoch."""
        self._epoch, self._first = epoch, batch

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches, for ever if endless."""
        to_skip, self._first = self._first, 0
        epoch = self._epoch
        while True:
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            drawn = 0
            for indices in self.batches:
                if to_skip:
                    to_skip -= 1
                else:
                    yield [Draw(index, epoch, self._place(drawn + i)) for i, index in enumerate(indices)]
                drawn += len(indices)
            if not self.is_endless:
                return
            if not drawn:
                raise InputError('train_dataloader must give at least one batch, got none; are there fewer images?')
            epoch += 1

    def _place(self, drawn: int) -> int:
        """The place in the stream: mmengine's samplers deal their indices to the processes in turn."""
        return drawn * self._world_size + self._rank


_KEPT = (
    *('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context', 'generator'),
    *('prefetch_factor', 'persistent_workers'),
)


def positioned_loader(runner: Runner, dataloader: DataLoader | dict, is_endless: bool) -> DataLoader:
    """Build a training loader as mmengine does, with batches that can start anywhere and samples seeded by position.

    Args:
        runner: Its seed is used; a sampler gets the same one in every process.
        dataloader: The config of a loader, or a loader.
        is_endless: See :class:`PositionedBatches`.

    Returns:
        A loader whose ``batch_sampler`` is a :class:`PositionedBatches`.

    Raises:
        InputError: The loader does not draw batches of indices.
    """
    seed = run_seed(runner)
    loader = runner.build_dataloader(dataloader, seed=seed)
    if loader.batch_sampler is None:
        raise InputError('train_dataloader must draw batches of indices from a data set that has a length')
    return DataLoader(
        SeededSamples(loader.dataset, seed),
        batch_sampler=PositionedBatches(loader.batch_sampler, is_endless),
        **{name: getattr(loader, name) for name in _KEPT},
    )
