"""A worker: one process that takes trials from the study, one after the other, until there are none."""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from mmengine.logging import print_log
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import BASE, write_overrides
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.storage import STORAGE_ERRORS, StoppedError, Storage, is_away, open_storage, persistently
from armbench_mmdet.sweep.study import INTERRUPTED, SharedStudy
from armbench_mmdet.sweep.trial import Outcome, Training, fresh_folder

_IDLE_S = 0.5
_POLL_S = 0.05


@dataclass(frozen=True)
class Task:
    """What a worker is told when it starts.

    Attributes:
        space: The search space.
        study: The study's name.
        storage: Where it is kept.
        folder: Where the trials' folders go.
        command: The training command.
        n_trials: How many trials the study is to have.
        forgiven: Numbers of failures from before the command was started.
    """

    space: Space
    study: str
    storage: str
    folder: Path
    command: Sequence[str]
    n_trials: int
    forgiven: Collection[int]


class Worker:
    """Runs trials until the study is over, the driver is gone or a SIGTERM arrives.

    Args:
        task: What to do.
        devices: The GPUs its trainings see.
        current: Shared with the driver, which cleans up after a worker that was killed: the number of the trial
            (−1 for none) and the process group of its training (0 for none).
    """

    def __init__(self, task: Task, devices: str | None, current: Any) -> None:
        self.task = task
        self.devices = devices
        self.current = current
        self.name = ''
        self._driver_pid = os.getpid()  # of the process that makes the worker, before it forks
        self._is_told = False

    def is_stopped(self) -> bool:
        """Whether to give up: somebody said so, or the driver is gone and nobody will look after this process."""
        return self._is_told or self._driver_pid not in (os.getppid(), os.getpid())

    def run(self) -> None:
        """Run trials, in a process of its own."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it, and tells its workers
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        self.name = f'{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}'
        try:
            storage = self._open_storage()
            self.work(persistently(lambda: SharedStudy(storage, self.task.study, self.task.space), self.is_stopped))
        except StoppedError:
            return

    def work(self, study: SharedStudy) -> None:
        """Run trials of ``study`` until there are none.

        Raises:
            StoppedError: The storage is away and the worker is to stop.
        """
        while not self.is_stopped():
            claim = persistently(lambda: study.claim(self.task.n_trials, self.task.forgiven), self.is_stopped)
            if claim.trial is not None:
                self._run_trial(study, claim.trial)
            elif claim.is_over:
                return
            else:
                time.sleep(_IDLE_S)

    def _stop(self, *_: Any) -> None:
        self._is_told = True

    def _open_storage(self) -> Storage:
        """The driver has opened it before, so that it is only away if it cannot be opened now."""
        while True:
            try:
                return open_storage(self.task.storage, is_new=False)
            except InputError as error:
                if self.is_stopped():
                    raise StoppedError from error
                time.sleep(_IDLE_S)

    def _run_trial(self, study: SharedStudy, trial: optuna.Trial) -> None:
        self.current[:] = [trial.number, 0]
        try:
            outcome = self._outcome(study, trial)
            kept = {key: value for key, value in asdict(outcome).items() if key not in ('state', 'value')}
            is_ours = persistently(lambda: study.settle(trial, outcome.state, outcome.value, kept), self.is_stopped)
        except UpdateFinishedTrialError:
            is_ours = False
        if not is_ours:
            print_log(f'trial {trial.number} was taken for dead; it is left to others', logger='current')
        self.current[:] = [-1, 0]

    def _outcome(self, study: SharedStudy, trial: optuna.Trial) -> Outcome:
        """Train, and return what became of it."""
        persistently(lambda: study.beat(trial, self.name, 0), self.is_stopped)
        space = self.task.space
        config = persistently(lambda: space.config(trial), self.is_stopped)
        note = f'trial {trial.number} of study {self.task.study}'
        try:
            folder = fresh_folder(self.task.folder, trial.number)
            write_overrides(folder / 'config.py', f'../{BASE}', space.base_config, config, note)
            training = Training(folder, self.task.command, space.objective, self.devices)
        except (InputError, OSError) as error:
            return Outcome(TrialState.FAIL, reason='not started', error=str(error))
        self.current[1] = training.process.pid
        try:
            return self._watch(study, trial, training)
        finally:
            training.end()

    def _watch(self, study: SharedStudy, trial: optuna.Trial, training: Training) -> Outcome:
        """Pass reports on and give signs of life until the training has ended."""
        relay = _Relay(trial, training)
        beats, beat_at_s = 0, time.monotonic()
        while not training.wait(_POLL_S):
            if self.is_stopped():
                return Outcome(TrialState.FAIL, reason='interrupted', lost=INTERRUPTED)
            try:
                if time.monotonic() - beat_at_s >= self.task.space.heartbeat_s:
                    beats, beat_at_s = beats + 1, time.monotonic()
                    study.beat(trial, self.name, beats)
                relay.pass_on()
            except STORAGE_ERRORS as error:
                if not is_away(error):
                    raise
        persistently(relay.pass_on, self.is_stopped)
        return training.outcome(relay.is_pruned)


class _Relay:
    """Passes the reports of a training on to its trial, and the pruner's answers back."""

    def __init__(self, trial: optuna.Trial, training: Training) -> None:
        self.trial = trial
        self.training = training
        self.is_pruned = False
        self._stored = 0

    def pass_on(self) -> None:
        """Pass on what is new; after an error, what is left is passed on the next time."""
        reports = self.training.reports
        for value in reports.values()[reports.answered :]:
            step = reports.answered + 1
            if self._stored < step:
                self.trial.report(value, step)
                self._stored = step
            is_running = self.training.process.returncode is None
            if math.isfinite(value):
                self.is_pruned = is_running and self.trial.should_prune()
            reports.answer(stop=self.is_pruned or not math.isfinite(value))
