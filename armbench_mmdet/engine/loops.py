"""Random numbers given by the place in training, batches from any place, and mmengine's loops over them."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import LOOPS
from mmengine.dist import get_dist_info
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from armbench_mmdet.errors import InputError

SAMPLE, TRAINING, VALIDATION = range(3)  # the first part of every seed: what the numbers are for


def run_seed(runner: Runner) -> int:
    """The seed all processes of a run share, whether or not ``diff_rank_seed`` gives each its own."""
    return runner.seed - (runner.rank if runner._randomness_cfg.get('diff_rank_seed') else 0)


def seed_generators(*key: int) -> None:
    """Seed Python, NumPy and torch (the CPU, and the current GPU if one is in use) from non-negative integers.

    Different keys give independent streams (``numpy.random.SeedSequence``). It takes some 30 µs.
    """
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))  # noqa: NPY002 - what mmcv's transforms draw from
    torch.default_generator.manual_seed(int(words[2]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(words[2]))


class Draw(NamedTuple):
    """A sample that a sampler drew, by its index; how often the sampler had started anew, and how many it had drawn
    since then, for all processes together.
    """

    sample: int
    epoch: int
    position: int


class SeededSamples(Dataset):
    """A data set whose transforms draw the same random numbers whichever process loads a sample.

    Indexed by a :class:`Draw` it seeds the generators, then gives the sample. In all else it is the data set itself:
    hooks of mmdet look at its attributes, and replace its pipeline.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        vars(self).update(_dataset=dataset, _seed=seed)

    def __getitem__(self, item: Any) -> Any:
        """The sample of a draw, or of an index."""
        if not isinstance(item, Draw):
            return self._dataset[item]
        seed_generators(self._seed, SAMPLE, item.epoch, item.position)
        return self._dataset[item.sample]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the data set."""
        if name.startswith('__') or name == '_dataset':  # the second while it is being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Change the data set, as hooks that replace its pipeline do."""
        setattr(self._dataset, name, value)


class PositionedBatches:
    """Batches of :class:`Draw`, from any position on; what lies before is drawn but not loaded.

    Endless ones begin anew whenever ``batches`` ends, without stopping the processes that load data.
    """

    def __init__(self, batches: Any, is_endless: bool) -> None:
        self.batches = batches
        self.sampler = batches.sampler  # mmengine looks for it here
        self.batch_size = batches.batch_size
        self.is_endless = is_endless
        self._epoch = self._first = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next iteration begin at a batch, counted from 0, of an epoch."""
        self._epoch, self._first = epoch, batch

    def skip(self, samples: int) -> None:
        """Let the next iteration begin after so many samples of this process: mmengine's contract with samplers."""
        self.start_at(0, samples // self.batch_size)

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches, for ever if endless."""
        rank, processes = get_dist_info()  # mmengine's samplers deal their indices to the processes in turn
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
                    places = range(drawn * processes + rank, (drawn + len(indices)) * processes, processes)
                    yield [Draw(index, epoch, place) for index, place in zip(indices, places, strict=True)]
                drawn += len(indices)
            if not self.is_endless:
                return
            if not drawn:
                raise InputError('train_dataloader must give at least one batch, got none: there are too few images')
            epoch += 1


def positioned_loader(runner: Runner, dataloader: DataLoader | dict, is_endless: bool) -> DataLoader:
    """Build a training loader as mmengine does, with :class:`PositionedBatches` of :class:`SeededSamples`.

    Raises:
        InputError: The loader joins data sets that do not go together.
    """
    seed = run_seed(runner)
    loader = runner.build_dataloader(dataloader, seed=seed)
    if isinstance(getattr(loader.dataset, 'metainfo', None), list):  # mmdet's ConcatDataset gives one for each
        several = [one.get('classes') for one in loader.dataset.metainfo]
        raise InputError(
            f'the data sets that train_dataloader joins must have the same metainfo, got classes {several}'
        )
    batches = PositionedBatches(loader.batch_sampler, is_endless)
    # Past the loader's guard: nothing has used the former ones yet.
    vars(loader).update(dataset=SeededSamples(loader.dataset, seed), sampler=batches, batch_sampler=batches)
    return loader


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that can also go on in the middle of an epoch."""

    batches_done = 0
    """Of the current epoch, in training; 0 between epochs."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, positioned_loader(runner, dataloader, is_endless=False), *args, **kwargs)

    def run_epoch(self) -> None:
        """Train what is left of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.dataloader.batch_sampler.start_at(self._epoch, self.batches_done)
        for index, data_batch in enumerate(self.dataloader, self.batches_done):
            self.batches_done = index + 1
            self.run_iter(index, data_batch)
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that goes on at any iteration without loading what came before; the run is one epoch.

    Where the sampler ends (``DefaultSampler``), the next epoch follows at once; mmengine starts new data-loading
    processes then, and waits two seconds.
    """

    batches_done = 0

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, positioned_loader(runner, dataloader, is_endless=True), *args, **kwargs)

    def run(self) -> nn.Module:
        """Train, then end the processes that load data; left to the garbage collector, each would take 5 s to end."""
        try:
            return super().run()
        finally:
            del self.dataloader_iterator


def validation_is_due(loop: Any) -> bool:
    """Whether an uninterrupted run validates at this point; never, for a loop that is none of ours."""
    if not isinstance(loop, ResumableEpochLoop | ResumableIterLoop) or loop.batches_done:
        return False
    loop._decide_current_val_interval()
    is_by_epoch = isinstance(loop, ResumableEpochLoop)
    step, last = (loop.epoch, loop.max_epochs) if is_by_epoch else (loop.iter, loop.max_iters)
    return step >= max(loop.val_begin, 1) and (step % loop.val_interval == 0 or step == last)


def resumable(loop: Any) -> Any:
    """The settings of a training loop (``train_cfg``) with mmengine's two loops replaced by those of this module.

    A loop that is built, or of another type, comes back as it is.
    """
    if not isinstance(loop, dict):
        return loop
    settings = dict(loop)
    kind = settings.pop('type', None) or ('EpochBasedTrainLoop' if settings.pop('by_epoch') else 'IterBasedTrainLoop')
    name = kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__
    ours = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
    return {**settings, 'type': ours.get(name, kind)}
