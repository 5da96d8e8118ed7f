"""A progress line with an ETA for training, validation and testing."""

from __future__ import annotations

import sys
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows one bar per phase on standard error: iterations, rate, ETA, and in training the loss.

    On a terminal the bar moves in place; elsewhere (a log file, CI) a line is written now and then.

    Args:
        line_interval_s: Seconds between two lines where standard error is no terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, line_interval_s: float = 15.0) -> None:
        self.line_interval_s = line_interval_s
        self._bars: dict[str, tqdm] = {}

    def _open(self, phase: str, total: int, initial: int = 0) -> None:
        self._close(phase)
        is_terminal = sys.stderr.isatty()
        self._bars[phase] = tqdm(
            total=total,
            initial=initial,
            desc=phase,
            unit='it' if phase == 'train' else 'batch',
            disable=not is_main_process(),
            leave=phase == 'train',
            dynamic_ncols=is_terminal,
            mininterval=0.2 if is_terminal else self.line_interval_s,
            ascii=None if is_terminal else ' #',
            ncols=None if is_terminal else 100,
        )

    def _step(self, phase: str) -> tqdm:
        bar = self._bars[phase]
        bar.update()
        return bar

    def _close(self, phase: str) -> None:
        bar = self._bars.pop(phase, None)
        if bar is not None:
            bar.close()

    def before_train(self, runner: Runner) -> None:
        """Open the training bar at the iteration training starts from."""
        self._open('train', runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Advance the training bar and show the loss."""
        bar = self._step('train')
        if 'train/loss' in runner.message_hub.log_scalars:
            loss = runner.message_hub.get_scalar('train/loss').current()
            bar.set_postfix(loss=f'{loss:.3f}', refresh=False)
        if bar.n == bar.total:  # now, so that the last validation does not draw into it
            self._close('train')

    def after_train(self, runner: Runner) -> None:
        """Close the training bar of a run that ended early."""
        self._close('train')

    def before_val_epoch(self, runner: Runner) -> None:
        """Open the validation bar."""
        self._open('val', len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the validation bar."""
        self._step('val')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the validation bar."""
        self._close('val')

    def before_test_epoch(self, runner: Runner) -> None:
        """Open the test bar."""
        self._open('test', len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the test bar."""
        self._step('test')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the test bar."""
        self._close('test')
