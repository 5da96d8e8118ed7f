"""Stopping a run from outside without losing what it has done."""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from armbench_mmdet.engine.distributed import largest
from armbench_mmdet.engine.failure import EndingHook, tell
from armbench_mmdet.hooks.checkpoint import AtomicCheckpointHook
from armbench_mmdet.run_folder import Ending
from armbench_mmdet.system import resume_command

SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name))
_SAME_KEY_S = 1.0
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@HOOKS.register_module()
class InterruptionHook(EndingHook):
    """Ends a training cleanly on SIGTERM, Ctrl-C and SIGUSR1 (SLURM's ``--signal=USR1@120``).

    The iteration in work is finished, a checkpoint is written through the run's checkpoint hook, the logs are closed,
    the command that resumes is printed, and the process exits with 128 + the signal's number: 130 after Ctrl-C, 143
    after SIGTERM. A second Ctrl-C, a second or more after the first, quits at once. When one of several processes gets
    the signal, all stop after the same iteration. Signals to the process group do not reach data-loading processes.

    A signal that arrives during a validation ends the run after the batch in work; the validation is lost.
    """

    priority = 'LOWEST'  # after the checkpoint hook

    def __init__(self) -> None:
        self._signal = 0
        self._since_s = 0.0
        self._previous: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Listen from now on."""
        self._signal = 0
        self._previous = {number: signal.signal(number, self._hear) for number in SIGNALS}
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None and loop.dataloader.num_workers:
                loop.dataloader.worker_init_fn = partial(_start_worker, inner=loop.dataloader.worker_init_fn)
        barrier()  # the record that follows says that a signal is heard, by every process

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def after_abort(self, runner: Runner, ending: Ending) -> None:
        """Stop listening when the run fails."""
        self.after_train(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Stop here if a signal came; the runner counts this iteration only after its hooks."""
        self._stop_if_asked(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop here if a signal came during a validation within training."""
        if self._previous:
            self._stop_if_asked(runner, runner.iter)

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

    def _stop_if_asked(self, runner: Runner, iterations: int) -> None:
        number = largest(self._signal)
        if not number:
            return
        name = signal.Signals(number).name
        hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
        remedy = 'nothing is saved: there is no AtomicCheckpointHook'
        if hook is not None:
            hook.save_now(runner, iterations)
            remedy = f'to go on:\n  {resume_command(runner)}'
        message = f'stopped by {name} after iteration {iterations}'
        tell(runner, Ending('stopped', message, iterations=iterations))
        print_log(f'{message}; {remedy}', 'current', logging.INFO)
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
