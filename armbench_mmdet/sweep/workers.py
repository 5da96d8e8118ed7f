"""The workers of one command: threads that take trials from the study, train them and tell what became of them."""

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import optuna
from mmengine.logging import print_log
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.run_folder import INTERRUPTED as CHECKPOINT
from armbench_mmdet.sweep.outputs import write_best, write_full_length, write_report, write_table
from armbench_mmdet.sweep.overrides import BASE, write_base, write_overrides
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.study import (
    BEAT,
    ERROR,
    OVER,
    REASON,
    SURPLUS,
    WORKER,
    Progress,
    attempts,
    best_trials,
    open_storage,
    open_study,
    reap,
    reason_of,
    retry,
)
from armbench_mmdet.sweep.training import CONFIG, LOG, RUN, Outcome, Training, training_command, trial_folder
from armbench_mmdet.system import usable_cores

FAILURES_IN_A_ROW = 10
_POLL_S, _IDLE_S = 0.05, 0.5
_LOST = ('killed', 'lost process', 'interrupted')  # reasons that are not the trial's fault: it is tried again


def training_environment(trainings: int, devices: str | None) -> dict[str, str]:
    """The environment of a training beside others: it sees its devices, and has its share of the cores.

    Threads that spin while they wait take the cores from another training's: they are told to sleep. What the user
    has set stays.
    """
    threads = str(max(1, usable_cores() // (trainings * len((devices or '').split(',')))))
    shared = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'), threads)
    seen = {} if devices is None else {'CUDA_VISIBLE_DEVICES': devices}
    return {**shared, 'OMP_WAIT_POLICY': 'PASSIVE', **os.environ, **seen}


class Sweep:
    """The sweep on this machine.

    Args:
        space: The search space.
        study: The study's name.
        storage: As for :func:`~armbench_mmdet.sweep.study.open_storage`.
        folder: Of the study.
        command: The interpreter, then ``tools/train.py``.
        n_trials: How many trials the study is to have.
        devices: The GPUs of each worker, one entry a worker; None leaves the environment as it is.

    Raises:
        InputError: The storage cannot be opened, or has a study of that name with another search space; the folder
            has trials of another study.
    """

    def __init__(
        self,
        space: Space,
        study: str,
        storage: str,
        folder: Path,
        command: Sequence[str],
        n_trials: int,
        devices: Sequence[str | None] = (None,),
    ) -> None:
        self.space, self.folder, self.command, self.n_trials, self.devices = space, folder, command, n_trials, devices
        self._is_stopped, self._asking = threading.Event(), threading.Lock()
        others = sorted(folder.glob('trial_*'))
        self._storage = open_storage(storage, self._is_stopped)
        self.study = open_study(self._storage, study, space)
        self._begun = len(self.study.get_trials(deepcopy=False))
        if others and not self._begun:
            raise InputError(
                f'study {study!r} must begin in a folder without trials of another, got {others[0]}; choose another '
                "--study, or that one's --storage"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_base(folder, space.base, space.base_config)

    def run(self) -> bool:
        """Run the sweep to its end.

        Returns:
            Whether it got there; otherwise somebody interrupted it, and the same command resumes it.

        Raises:
            InputError: Ten trials failed in a row.
        """
        count = len(self.devices)
        threads = training_environment(count, self.devices[0])['OMP_NUM_THREADS']
        print_log(
            f'{Progress(self.study).count(*OVER)} of {self.n_trials} trials are over; {count} at a time on '
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
            log, error = trial_folder(self.folder, failures[0].number) / LOG, failures[0].user_attrs.get(ERROR, '')
            raise InputError(
                f'{len(failures)} trials failed in a row, the last by {reason_of(failures[0])}: {error} (in {log}). '
                'Mend the cause; the same command tries again with new trials.'
            )
        return True

    def retrain(self, number: int | None) -> NoReturn:
        """Become the training of a trial's settings, the best one's for None, at full length, or go on with that."""
        config = write_full_length(self.folder, self.study, self.space, number)
        run = training_command(self.command, config, config.parent / RUN, self.devices[0])
        print_log(f'training {config} at full length', logger='current')
        os.execve(run[0], [*run, '--resume'], training_environment(1, self.devices[0]))

    def _work(self) -> None:
        """Run the workers until there are no more trials, one of them fails or a signal comes."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: self._is_stopped.set()) for number in signals}
        try:
            with ThreadPoolExecutor(len(self.devices)) as pool:
                for worker in as_completed([pool.submit(self._run_trials, entry) for entry in self.devices]):
                    if worker.exception():
                        self._is_stopped.set()
                    worker.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_trials(self, devices: str | None) -> None:
        """Run trials until there are no more: a worker, with a study of its own, for the sampler is one trial's."""
        study = open_study(self._storage, self.study.study_name, self.space)
        while trial := self._next_trial(study):
            self._run_trial(study, trial, devices)

    def _next_trial(self, study: optuna.Study) -> optuna.Trial | None:
        """Wait for a trial to run, for one of the last ones may still be lost; None when there are no more."""
        while not self._is_stopped.is_set():
            with self._asking:
                reap(study, self.space)
                progress = Progress(study)
                over, running = progress.count(*OVER), progress.count(TrialState.RUNNING)
                if over >= self.n_trials or len(progress.failures_in_a_row(self._begun)) >= FAILURES_IN_A_ROW:
                    return None
                if over + running < self.n_trials or progress.count(TrialState.WAITING):
                    trial = study.ask()
                    first = attempts(study.trials[trial.number])[0]
                    if sum(other < first for other in Progress(study).latest) < self.n_trials:
                        return trial
                    # Other commands asked for the last ones at the same moment: it is as if there were none.
                    trial.set_user_attr(SURPLUS, True)
                    study.tell(trial, state=TrialState.FAIL)
            self._is_stopped.wait(_IDLE_S)
        return None

    def _run_trial(self, study: optuna.Study, trial: optuna.Trial, devices: str | None) -> None:
        given = self.space.given
        folders = [trial_folder(self.folder, number) for number in attempts(study.trials[trial.number])]
        try:
            outcome = self._outcome(study, trial, devices, folders)
            for name, limit in given.constraints.items() if outcome.values else ():
                trial.set_constraint(name, outcome.values[name] - limit)
            if outcome.state == TrialState.FAIL:
                trial.set_user_attr(REASON, outcome.reason)
                trial.set_user_attr(ERROR, outcome.error)
            if outcome.reason in _LOST:  # first, so that whoever dies between the two has lost nothing
                retry(study, trial.number, None if outcome.reason == 'interrupted' else given.max_retries)
            is_complete = outcome.state == TrialState.COMPLETE
            values = [outcome.values[name] for name in given.objectives] if is_complete else None
            study.tell(trial, values, state=outcome.state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            print_log(f'trial {trial.number} was taken for dead; it is left to others', logger='current')
            return
        if outcome.reason not in _LOST:
            for folder in folders:
                (folder / RUN / CHECKPOINT).unlink(missing_ok=True)
        self._write()

    def _outcome(self, study: optuna.Study, trial: optuna.Trial, devices: str | None, folders: list[Path]) -> Outcome:
        """Train in the last of the folders, and return what became of it."""
        trial.set_user_attr(BEAT, time.time())
        trial.set_user_attr(WORKER, f'{socket.gethostname()}-{os.getpid()}')
        study.sampler = self.space.sampler(trial.number)
        config, folder = self.space.config(trial), folders[-1]
        metrics = sorted({*self.space.given.objectives, *self.space.given.constraints})
        environment = training_environment(len(self.devices), devices)
        try:
            folder.mkdir()
            note = f'trial {trial.number} of study {study.study_name}'
            write_overrides(folder / CONFIG, f'../{BASE}', self.space.base_config, config, note)
            training = Training(folder, self.command, metrics, devices, environment, *folders[-2:-1])
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
        print_log(Progress(self.study).line(self.n_trials, best_trials(self.study)), logger='current')
        write_best(self.folder, self.study, self.space)
        write_table(self.folder, self.study, self.space)
