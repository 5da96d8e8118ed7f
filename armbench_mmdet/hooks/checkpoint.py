"""Checkpoints at intervals, of the best validation, and when a run is asked to stop."""

import ctypes
import inspect
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from armbench_mmdet.engine.distributed import largest
from armbench_mmdet.errors import InputError, nearest
from armbench_mmdet.files import remove_drafts, write_atomically
from armbench_mmdet.run_folder import INTERRUPTED, LATEST, VALIDATION_LOSS_PREFIX, Ending
from armbench_mmdet.system import resume_command


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are never half there
    (:class:`~armbench_mmdet.engine.checkpoints.AtomicBackend`).

    An older checkpoint, or the best until now, is removed only once the new one is complete. A checkpoint holds the run
    as it was before the validation of that moment: a run that is resumed from it validates first.
    """

    last_ckpt: str | None

    def __init__(self, **kwargs: Any) -> None:
        options = inspect.signature(CheckpointHook).parameters
        for name in kwargs.keys() - options.keys():  # mmengine would take it for an option of the writing
            raise InputError(f'AtomicCheckpointHook has no option {name!r}{nearest(name, options)}')
        super().__init__(**kwargs, backend_args={'backend': 'atomic', 'unwanted': []})

    def before_train(self, runner: Runner) -> None:
        """Find out where checkpoints go and which are kept; remove what a killed run left half written.

        Raises:
            InputError: A metric to choose by is none that the validation gives.
        """
        _check_monitored(runner, getattr(self, 'key_indicators', []))
        super().before_train(runner)
        if is_main_process():
            remove_drafts(Path(self.out_dir))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Write the best checkpoint, then remove the one it beats."""
        if not hasattr(self, 'file_backend'):  # a validation without training: nothing to save
            return
        latest, self.last_ckpt = self.last_ckpt, None  # else mmengine writes that again, as it is now
        super().after_val_epoch(runner, metrics)
        self.last_ckpt = latest

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            Path(runner.work_dir, INTERRUPTED).unlink(missing_ok=True)


def _check_monitored(runner: Runner, indicators: list[str]) -> None:
    """Refuse names of metrics that no validation gives, of the best checkpoint and of all else that follows one."""
    metrics = runner.val_loop.evaluator.metrics if runner.val_loop else []
    if not metrics or not all(hasattr(metric, 'logged_names') for metric in metrics):
        return
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    wanted = [*indicators, *(getattr(one, 'monitor', None) for one in (*runner.hooks, *schedulers))]
    known = [name for metric in metrics for name in metric.logged_names()]
    for name in wanted:
        if name and name not in ('auto', *known) and not name.startswith(VALIDATION_LOSS_PREFIX):
            hint = nearest(name, [*known, f'{VALIDATION_LOSS_PREFIX}loss'], cutoff=0.5)
            raise InputError(f'save_best and monitor must name what a validation gives, got {name!r}{hint}')


SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name))
_SAME_KEY_S = 1.0
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@HOOKS.register_module()
class InterruptionHook(Hook):
    """Ends a training cleanly on SIGTERM, Ctrl-C and SIGUSR1 (SLURM's ``--signal=USR1@120``).

    The iteration in work is finished, a checkpoint is written into the run's folder, the command that resumes is
    printed, and the process exits with 128 + the signal's number. A second Ctrl-C, a second or more after the first,
    quits at once. When one of several processes gets the signal, all stop after the same iteration. A signal that
    arrives during a validation ends the run after the batch in work; the validation is lost.
    """

    priority = 'LOWEST'  # after the checkpoint hook

    def __init__(self) -> None:
        self._signal = 0
        self._since_s = 0.0
        self._previous: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Listen from now on."""
        self._previous = {number: signal.signal(number, self._hear) for number in SIGNALS}
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None and loop.dataloader.num_workers:
                loop.dataloader.worker_init_fn = partial(_start_worker, inner=loop.dataloader.worker_init_fn)
        barrier()  # the record that follows says that a signal is heard, by every process

    def after_train(self, runner: Runner, ending: Ending | None = None) -> None:
        """Stop listening, however the run ends."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    after_abort = after_train

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self._signal:
            self._signal, self._since_s = number, now_s
            # A data-loading process may die of the same signal, and torch's handler would break off the iteration. Not
            # SIG_DFL: Python raises where a signal that it has already taken has no handler any more.
            self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
            if is_main_process():  # not print: the signal may come in the middle of one
                again = '; again to quit at once' if number == signal.SIGINT else ''
                said = f'\n{signal.Signals(number).name}: finishing this iteration, then writing a checkpoint{again}\n'
                os.write(sys.__stderr__.fileno(), said.encode())  # type: ignore[union-attr]
        elif number == signal.SIGINT and now_s - self._since_s > _SAME_KEY_S:
            raise KeyboardInterrupt

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Stop here if a signal came; the runner counts an iteration of training only after its hooks."""
        number = 0 if mode == 'test' else largest(self._signal)
        if not number:
            return
        iterations = runner.iter + (mode == 'train')
        meta, backend = dict(epoch=runner.epoch, iter=iterations), {'backend': 'atomic', 'unwanted': []}
        runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=meta, backend_args=backend)
        if is_main_process():
            write_atomically(Path(runner.work_dir, LATEST), str(Path(runner.work_dir, INTERRUPTED)))
        message = f'stopped by {signal.Signals(number).name} after iteration {iterations}'
        runner.call_hook('after_abort', ending=Ending('stopped', message, iterations=iterations))
        print_log(f'{message}; to go on:\n  {resume_command(runner)}', 'current', logging.INFO)
        runner.visualizer.close()
        raise SystemExit(128 + number)


def _start_worker(worker_id: int, inner: Callable[[int], None] | None) -> None:
    """Start a data-loading process that a signal to the whole process group does not reach, so no batch is lost.

    Ctrl-C and torchrun signal the group; the main process still ends its workers one by one. When it is killed itself,
    Linux ends them: one that was writing a batch would wait for its reader for ever.
    """
    os.setpgid(0, 0)
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if inner is not None:
        inner(worker_id)
