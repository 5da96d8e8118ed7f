"""A progress line with an ETA for training, validation and testing."""

import sys
from typing import Any, TextIO

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from tqdm import tqdm

from armbench_mmdet.engine.failure import EndingHook
from armbench_mmdet.run_folder import MAIN_METRIC, Ending

_COUNT = '{n_fmt}/{total_fmt} [{elapsed}, ETA {remaining}, {rate_fmt}{postfix}]'


class _Lines:
    """Turns the redrawing of a bar into lines, for files that keep everything."""

    def __init__(self, stream: TextIO) -> None:
        self.flush = stream.flush
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(line + '\n')


@HOOKS.register_module()
class ProgressHook(EndingHook):
    """Shows one bar at a time on standard error: iterations, ETA, rate, and in training the loss and the last metric.

    On a terminal the bar moves in place; elsewhere (a log file, CI) a line is written now and then. Rate and ETA are
    averages since the start, so that those of training contain its validations so far.

    Args:
        line_interval_s: Seconds between two lines where standard error is no terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, line_interval_s: float = 15.0) -> None:
        self.line_interval_s = line_interval_s
        self._score: str | None = None
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
            position=0,
            smoothing=0,
            file=sys.stderr if is_terminal else _Lines(sys.stderr),
            bar_format=('{l_bar}{bar}| ' if is_terminal else '{desc}: {percentage:3.0f}% ') + _COUNT,
            dynamic_ncols=is_terminal,
            mininterval=0.2 if is_terminal else self.line_interval_s,
            delay=0 if is_terminal else self.line_interval_s,
        )

    def _step(self, phase: str) -> None:
        bar = self._bars[phase]
        bar.update()
        if bar.n == bar.total:  # now, so that what is printed next does not run into it
            self._close(phase)

    def _close(self, *phases: str) -> None:
        for bar in [self._bars.pop(phase) for phase in phases if phase in self._bars]:
            bar.close()

    def before_train(self, runner: Runner) -> None:
        """Open the training bar at the iteration training starts from."""
        self._open('train', runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the training bar and show the loss and the last metric."""
        shown = {}
        if 'train/loss' in runner.message_hub.log_scalars:
            shown['loss'] = f'{runner.message_hub.get_scalar("train/loss").current():.3f}'
        if self._score is not None:
            shown[MAIN_METRIC.rpartition('/')[2]] = self._score
        self._bars['train'].set_postfix(shown, refresh=False)
        self._step('train')

    def after_train(self, runner: Runner) -> None:
        """Close the training bar of a run that ended early."""
        self._close('train')

    def after_abort(self, runner: Runner, ending: Ending) -> None:
        """Close the bars of a run that fails or is stopped."""
        self._close(*self._bars)

    def before_val_epoch(self, runner: Runner) -> None:
        """Open the validation bar in the place of the training bar."""
        if 'train' in self._bars:
            self._bars['train'].clear()
        self._open('val', len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the validation bar."""
        self._step('val')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note the metric for the training bar."""
        score = (metrics or {}).get(MAIN_METRIC)
        self._score = None if score is None else f'{score:.3f}'

    def before_test_epoch(self, runner: Runner) -> None:
        """Open the test bar."""
        self._open('test', len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the test bar."""
        self._step('test')
