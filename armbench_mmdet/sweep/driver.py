"""The driver: starts the workers of this machine, looks after them, and says how the study goes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mmengine.logging import print_log
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.outputs import write_best, write_report, write_table
from armbench_mmdet.sweep.overrides import write_base
from armbench_mmdet.sweep.storage import StoppedError, open_storage, persistently
from armbench_mmdet.sweep.study import (
    DIED,
    FAILURES_IN_A_ROW,
    INTERRUPTED,
    OUTCOME,
    SharedStudy,
    Tally,
    Watch,
    failures,
    failures_in_a_row,
    progress_line,
    tally,
)
from armbench_mmdet.sweep.trial import LOG, Outcome, end_group, trial_folder
from armbench_mmdet.sweep.worker import Task, Worker

_LOOK_S = 1.0
_GRACE_BEATS, _GAP_BEATS = 6, 2
_DEATHS_IN_A_ROW = 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 20.0  # a training has ten seconds to end
_context = multiprocessing.get_context('fork')  # a worker starts at once, with everything imported


@dataclass
class _Process:
    """A worker's process, and what it shares with the driver."""

    devices: str | None
    current: Any = field(default_factory=lambda: _context.Array('q', [-1, 0], lock=False))
    process: Any = None


class Driver:
    """Runs a sweep on this machine.

    Args:
        task: What the workers do.
        devices: The GPUs of each worker, one entry a worker; None leaves the environment as it is.

    Raises:
        InputError: The storage cannot be opened, or has a study of that name with another search space.
    """

    def __init__(self, task: Task, devices: Sequence[str | None]) -> None:
        if not re.fullmatch(r'[\w.+-]+', task.study) or task.study.startswith('.'):
            raise InputError(f'--study must be letters, digits, and any of _ . + -, got {task.study!r}')
        storage = open_storage(task.storage)
        self.study = persistently(lambda: SharedStudy(storage, task.study, task.space), lambda: False)
        task.folder.mkdir(parents=True, exist_ok=True)
        write_base(task.folder, task.space.base, task.space.base_config)
        self.task = replace(task, forgiven=failures(self.study.tally()))
        space = task.space
        self._watch = Watch(_GRACE_BEATS * space.heartbeat_s, max(_GAP_BEATS * space.heartbeat_s, 3 * _LOOK_S))
        self._workers = [_Process(entry) for entry in devices]
        self._is_told = False
        self._settled = -1
        self._deaths = 0

    def run(self) -> bool:
        """Run the sweep to its end.

        Returns:
            Whether it got there; otherwise somebody interrupted it, and the same command resumes it.

        Raises:
            InputError: Ten trials failed in a row, or workers die as soon as they start.
        """
        count = self.study.tally()
        n_trials = self.task.n_trials
        if count.settled >= n_trials:
            print_log(f'{count.settled} trials are done, {n_trials} were asked for: nothing to do', logger='current')
        else:
            for worker in self._workers:
                self._start(worker)
            self._look_after()
        if not self._is_told:
            count = persistently(self.study.tally, self._is_stopped)
            self._say(count)
            self._write(count)
            write_report(self.task.folder, self.study.study, self.task.space)
            print_log(f'files: {self.task.folder}', logger='current')
            self._check_failures(count)
        return not self._is_told

    def _start(self, worker: _Process) -> None:
        worker.current[:] = [-1, 0]
        run = Worker(self.task, worker.devices, worker.current).run
        worker.process = _context.Process(target=run, daemon=False)
        # A signal that comes while the process forks waits until the worker can hear it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            worker.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _look_after(self) -> None:
        """Wait for the workers, replacing those that die; on a signal, have them give their trials back."""
        before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        looked_at_s = float('-inf')
        try:
            while not self._is_told and any(worker.process is not None for worker in self._workers):
                multiprocessing.connection.wait(self._sentinels(), timeout=_LOOK_S)
                for worker in self._workers:
                    if worker.process is not None and not worker.process.is_alive():
                        self._after(worker)
                if time.monotonic() - looked_at_s >= _LOOK_S:
                    looked_at_s = time.monotonic()
                    self._look()
        except StoppedError:
            self._is_told = True
        finally:
            if self._is_told:
                print_log('stopping; the same command resumes the study', logger='current')
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _sentinels(self) -> list[Any]:
        return [worker.process.sentinel for worker in self._workers if worker.process is not None]

    def _stop(self, *_: Any) -> None:
        self._is_told = True

    def _after(self, worker: _Process) -> None:
        """A worker's process has ended: clean up after it, and replace it if it died."""
        status = worker.process.exitcode
        worker.process = None
        if status == 0:
            return
        self._bury(worker, DIED, f'its worker ended with status {status}')
        self._deaths += 1
        if self._deaths > _DEATHS_IN_A_ROW:
            raise RuntimeError(f'{self._deaths} workers died and no trial ended: see their messages above')
        self._start(worker)

    def _bury(self, worker: _Process, lost: str, error: str) -> None:
        """End the training that a dead worker left behind, and give its trial back."""
        number, group = worker.current[:]
        if group:
            end_group(group, signal.SIGKILL)
        if number < 0:
            return
        for trial in persistently(self.study.trials, self._is_stopped):
            if trial.number == number:
                self._lose(trial, lost, error)

    def _lose(self, trial: FrozenTrial, lost: str, error: str) -> None:
        outcome = asdict(Outcome(TrialState.FAIL, reason=lost, error=error, lost=lost))
        kept = {key: value for key, value in outcome.items() if key not in ('state', 'value')}
        if persistently(lambda: self.study.settle(trial, TrialState.FAIL, None, kept), self._is_stopped):
            print_log(f'trial {trial.number} was lost: {error}', logger='current')

    def _look(self) -> None:
        """See how the study goes on all machines."""
        trials = persistently(self.study.trials, self._is_stopped)
        for trial in self._watch.dead(trials, time.monotonic()):
            self._lose(trial, DIED, f'no sign of life for {self._watch.grace_s:.0f} s')
        count = tally(trials, self.task.space.max_retries)
        if count.settled != self._settled:
            self._settled, self._deaths = count.settled, 0
            self._say(count)
            self._write(count)

    def _is_stopped(self) -> bool:
        return self._is_told

    def _say(self, count: Tally) -> None:
        print_log(progress_line(count, self.task.n_trials, self.task.space), logger='current')

    def _write(self, count: Tally) -> None:
        write_best(self.task.folder, count, self.task.space)
        write_table(self.task.folder, self.study.trials(), self.task.space)

    def _end(self) -> None:
        """Have the remaining workers give their trials back, and wait for them."""
        left = [worker for worker in self._workers if worker.process is not None]
        for worker in left:
            worker.process.terminate()
        for worker in left:
            worker.process.join(_PATIENCE_S)
            worker.process.kill()
            worker.process.join()
            if worker.process.exitcode != 0:
                with suppress(StoppedError):
                    self._bury(worker, INTERRUPTED, 'the sweep was stopped')

    def _check_failures(self, count: Tally) -> None:
        row = failures_in_a_row(count, self.task.forgiven)
        if len(row) < FAILURES_IN_A_ROW:
            return
        last, outcome = row[-1], row[-1].user_attrs.get(OUTCOME, {})
        log = trial_folder(self.task.folder, last.number) / LOG
        raise InputError(
            f'trials must not fail {FAILURES_IN_A_ROW} times in a row, got {len(row)} failures; the last is trial '
            f'{last.number}: {outcome.get("reason")}: {outcome.get("error")} (in {log}); '
            'the same command tries again with new trials'
        )
