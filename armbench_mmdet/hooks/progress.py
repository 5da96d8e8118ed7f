"""A progress line with an ETA for training, validation and testing."""

import sys
from typing import Any, TextIO

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

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
class ProgressHook(Hook):
    """Shows one bar at a time on standard error: iterations, ETA, rate, and in training the loss and the last metric.

    On a terminal the bar moves in place; elsewhere (a log file, CI) a line is written now and then. Rate and ETA are
    averages since the start, so that those of training contain its validations so far.

    Args:
        line_interval_s: Seconds between two lines where standard error is no terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, line_interval_s: float = 15.0) -> None:
        self.line_interval_s = line_interval_s
        self._score: dict[str, str] = {}
        self._bars: dict[str, tqdm] = {}

    def _open(self, phase: str, total: int, initial: int = 0) -> None:
        every_s = self.line_interval_s
        looks: dict[str, Any] = {'mininterval': every_s, 'delay': every_s, 'file': _Lines(sys.stderr)}
        start = '{desc}: {percentage:3.0f}% '
        if sys.stderr.isatty():
            looks, start = {'mininterval': 0.2, 'dynamic_ncols': True}, '{l_bar}{bar}| '
        looks |= {'bar_format': start + _COUNT, 'position': 0, 'smoothing': 0, 'disable': not is_main_process()}
        unit = 'it' if phase == 'train' else 'batch'
        self._bars[phase] = tqdm(desc=phase, total=total, initial=initial, unit=unit, leave=phase == 'train', **looks)

    def before_train(self, runner: Runner) -> None:
        """Open the training bar at the iteration training starts from."""
        self._open('train', runner.max_iters, runner.iter)

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Open the bar of a validation or a test in the place of the training bar."""
        if mode == 'train':
            return
        if 'train' in self._bars:
            self._bars['train'].clear()
        self._open(mode, len(getattr(runner, f'{mode}_dataloader')))

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Advance the bar; that of training shows the loss and the last metric."""
        bar = self._bars[mode]
        if mode == 'train':
            scalars = runner.message_hub.log_scalars
            loss = {'loss': f'{scalars["train/loss"].current():.3f}'} if 'train/loss' in scalars else {}
            bar.set_postfix(loss | self._score, refresh=False)
        bar.update()
        if bar.n == bar.total:  # now, so that what is printed next does not run into it
            self._bars.pop(mode).close()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note the metric for the training bar."""
        score = (metrics or {}).get(MAIN_METRIC)
        self._score = {} if score is None else {MAIN_METRIC.rpartition('/')[2]: f'{score:.3f}'}

    def after_train(self, runner: Runner, ending: Ending | None = None) -> None:
        """Close the bars of a run that ends early."""
        while self._bars:
            self._bars.popitem()[1].close()

    after_abort = after_train
