"""The workers of one command: threads that take trials from the study, train them and tell what became of them."""

import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import optuna
from mmengine.logging import print_log
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.run_folder import INTERRUPTED as CHECKPOINT
from armbench_mmdet.sweep.outputs import write_base, write_full_length, write_overrides, write_progress, write_report
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.study import BEAT, Progress, attempts, failure, finish, open_storage, open_study, take
from armbench_mmdet.sweep.training import CONFIG, LOG, LOST, RUN, Outcome, Training, training_command
from armbench_mmdet.system import usable_cores

FAILURES_IN_A_ROW = 10
_POLL_S, _IDLE_S = 0.05, 0.5


def training_environment(trainings: int, devices: str | None) -> dict[str, str]:
    """The environment of a training beside others: its devices, and its share of the cores unless the user set one."""
    threads = str(max(1, usable_cores() // (trainings * len((devices or '').split(',')))))
    shared = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'), threads)
    seen = {} if devices is None else {'CUDA_VISIBLE_DEVICES': devices}
    return {**shared, **os.environ, **seen}


@dataclass
class Sweep:
    """The sweep on this machine.

    Raises:
        InputError: The storage cannot be opened, or has a study of that name with another search space; the folder
            has trials of another study.
    """

    space: Space
    name: str
    storage: str  # as for open_storage
    folder: Path
    command: Sequence[str]  # the interpreter, then tools/train.py
    n_trials: int  # that the study is to have
    devices: Sequence[str | None] = (None,)  # of each worker, one entry a worker; None leaves the environment as it is

    def __post_init__(self) -> None:
        """Open the study, or begin it."""
        self._is_stopped, self._asking = threading.Event(), threading.Lock()
        others = sorted(self.folder.glob('trial_*'))
        self._storage = open_storage(self.storage, self._is_stopped)
        self.study = open_study(self._storage, self.name, self.space)
        self._begun = len(self.study.get_trials(deepcopy=False))
        if others and not self._begun:
            raise InputError(
                f'study {self.name!r} must begin in a folder without trials of another, got {others[0]}; choose '
                "another --study, or that one's --storage"
            )
        write_base(self.folder, self.space.base, self.space.base_config)

    def run(self) -> bool:
        """Run the sweep to its end; False if somebody interrupted it, and the same command resumes it.

        Raises:
            InputError: Ten trials failed in a row.
        """
        count = len(self.devices)
        threads = training_environment(count, self.devices[0])['OMP_NUM_THREADS']
        print_log(
            f'{Progress(self.study).over} of {self.n_trials} trials are over; {count} at a time on '
            f'{usable_cores()} cores, threads of each training: {threads}',
            logger='current',
        )
        self._work()
        if self._is_stopped.is_set():
            print_log('stopped; the same command resumes the study', logger='current')
            return False
        self._write()
        write_report(self.folder, self.study, self.space)
        print_log(f'files: {self.folder}', logger='current')
        failures = Progress(self.study).failures_in_a_row(self._begun)
        if len(failures) >= FAILURES_IN_A_ROW:
            reason, log = ': '.join(failure(failures[0])), self._trial_folder(failures[0].number) / LOG
            raise InputError(
                f'{len(failures)} trials failed in a row, the last by {reason} (in {log}). Mend the cause; the same '
                'command tries again with new trials.'
            )
        return True

    def retrain(self, number: int | None) -> NoReturn:
        """Become the training of a trial's settings, the best one's for None, at full length, or go on with that."""
        config = write_full_length(self.folder, self.study, self.space, number)
        run = training_command(self.command, config, config.parent / RUN, self.devices[0])
        print_log(f'training {config} at full length', logger='current')
        os.execve(run[0], [*run, '--resume'], training_environment(1, self.devices[0]))

    def _work(self) -> None:
        """Run the workers until there are no more trials or a signal comes."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: self._is_stopped.set()) for number in signals}
        try:
            with ThreadPoolExecutor(len(self.devices)) as pool:
                list(pool.map(self._run_trials, self.devices))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_trials(self, devices: str | None) -> None:
        """Run trials until there are no more: a worker, with a study of its own, for the sampler is one trial's."""
        study = open_study(self._storage, self.name, self.space)
        while trial := self._next_trial(study):
            self._run_trial(study, trial, devices)

    def _next_trial(self, study: optuna.Study) -> optuna.Trial | None:
        """Wait for a trial to run, for one of the last ones may still be lost; None when there are no more."""
        while not self._is_stopped.is_set():
            with self._asking:
                progress = Progress(study)
                if progress.over >= self.n_trials or len(progress.failures_in_a_row(self._begun)) >= FAILURES_IN_A_ROW:
                    return None
                if trial := take(study, self.space, self.n_trials):
                    return trial
            self._is_stopped.wait(_IDLE_S)
        return None

    def _run_trial(self, study: optuna.Study, trial: optuna.Trial, devices: str | None) -> None:
        folders = [self._trial_folder(number) for number in attempts(study.trials[trial.number])]
        try:
            outcome = self._outcome(study, trial, devices, folders)
            finish(study, trial, outcome, self.space)
        except UpdateFinishedTrialError:
            print_log(f'trial {trial.number} was taken for dead; it is left to others', logger='current')
            return
        if outcome.reason not in LOST:
            for folder in folders:
                (folder / RUN / CHECKPOINT).unlink(missing_ok=True)
        self._write()

    def _outcome(self, study: optuna.Study, trial: optuna.Trial, devices: str | None, folders: list[Path]) -> Outcome:
        """Train in the last of the folders, and return what became of it."""
        study.sampler = self.space.sampler(trial.number)
        folder, note = folders[-1], f'trial {trial.number} of study {self.name}'
        metrics = sorted({*self.space.given.objectives, *self.space.given.constraints})
        environment = training_environment(len(self.devices), devices)
        run = training_command(self.command, folder / CONFIG, folder / RUN, devices)
        try:
            folder.mkdir()
            write_overrides(folder / CONFIG, self.folder, self.space, self.space.config(trial), note)
            training = Training(folder, run, environment, metrics, *folders[-2:-1])
        except (InputError, OSError) as error:
            return Outcome('not started', str(error))
        with closing(training):
            return self._watch(trial, training)

    def _watch(self, trial: optuna.Trial, training: Training) -> Outcome:
        """Pass reports on and give signs of life until the training has ended or is to end."""
        beat_at_s, reported, has_ended, given = time.monotonic(), 0, False, self.space.given
        while not has_ended:
            has_ended = training.has_ended(_POLL_S)
            if self._is_stopped.is_set():
                return Outcome('interrupted')
            for values in training.reports()[reported:]:
                reported += 1
                bad = [f'{name} was {value}' for name, value in values.items() if not math.isfinite(value)]
                if bad:
                    return Outcome('nan', bad[0])
                if len(given.objectives) == 1:  # Optuna prunes by one
                    trial.report(values[given.objectives[0]], reported)
                    if not has_ended and trial.should_prune():
                        return Outcome(state=TrialState.PRUNED, values=values)
            if time.monotonic() - beat_at_s >= given.heartbeat_s:
                beat_at_s = time.monotonic()
                trial.set_user_attr(BEAT, time.time())
        return training.outcome()

    def _write(self) -> None:
        print_log(Progress(self.study).line(self.n_trials), logger='current')
        write_progress(self.folder, self.study, self.space)

    def _trial_folder(self, number: int) -> Path:
        return self.folder / f'trial_{number:04d}'
