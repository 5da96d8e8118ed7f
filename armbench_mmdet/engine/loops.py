"""mmengine's training loops, able to go on from any iteration as if they had never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from armbench_mmdet.engine.batches import positioned_loader


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that can also go on in the middle of an epoch.

    Attributes:
        batches_done: Batches of the current epoch that are trained; 0 between epochs.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, positioned_loader(runner, dataloader, is_endless=False), *args, **kwargs)
        self.batches_done = 0

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

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self._epoch >= self._max_epochs

    def validation_is_due(self) -> bool:
        """Whether an uninterrupted run validates at this point."""
        self._decide_current_val_interval()
        is_step = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self.batches_done == 0 and self._epoch >= max(self.val_begin, 1) and is_step


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that goes on at any iteration without loading what came before.

    Where the sampler ends (``DefaultSampler``), the next epoch follows at once; mmengine starts new data-loading
    processes then, and waits two seconds.

    Attributes:
        batches_done: As for :class:`ResumableEpochLoop`, always 0: the run is one epoch.
    """

    batches_done = 0

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, positioned_loader(runner, dataloader, is_endless=True), *args, **kwargs)
        self.dataloader_iterator = _EndlessBatches(self.dataloader)

    def run(self) -> nn.Module:
        """Train, then end the processes that load data; left to the garbage collector, each would take 5 s to end."""
        try:
            return super().run()
        finally:
            self.dataloader_iterator.close()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self._iter >= self._max_iters

    def validation_is_due(self) -> bool:
        """Whether an uninterrupted run validates at this point."""
        self._decide_current_val_interval()
        is_step = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self._iter >= max(self.val_begin, 1) and is_step


class _EndlessBatches:
    """What the iteration loop takes batches from."""

    def __init__(self, dataloader: DataLoader) -> None:
        self._dataloader = dataloader
        self._batches: Iterator[Any] | None = None

    def skip_iter(self, batches: int) -> None:
        """Begin after so many batches."""
        positions: Any = self._dataloader.batch_sampler
        positions.start_at(0, batches)

    def __next__(self) -> Any:
        """The next batch; loading begins with the first."""
        if self._batches is None:
            self._batches = iter(self._dataloader)
        return next(self._batches)

    def close(self) -> None:
        """Let go of the processes that load data."""
        self._batches = None


_RESUMABLE = {
    'EpochBasedTrainLoop': ResumableEpochLoop.__name__,
    'IterBasedTrainLoop': ResumableIterLoop.__name__,
}


def resumable(loop: Any) -> Any:
    """The settings of a training loop (``train_cfg``) with mmengine's two loops replaced by those of this module.

    Args:
        loop: A ``train_cfg``; a loop that is built, or of another type, comes back as it is.
    """
    if not isinstance(loop, dict):
        return loop
    settings = dict(loop)
    if 'type' not in settings:
        by_epoch = settings.pop('by_epoch')
        settings['type'] = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    name = settings['type'] if isinstance(settings['type'], str) else settings['type'].__name__
    return {**settings, 'type': _RESUMABLE.get(name.removeprefix('mmengine.'), settings['type'])}
