"""The workers of one command: threads that take trials from the study, train them and tell what became of them."""

import math
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from mmengine.logging import print_log
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.outputs import write_best, write_full_length, write_report, write_table
from armbench_mmdet.sweep.overrides import BASE, write_base, write_overrides
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.study import (
    BEAT,
    ERROR,
    INTERRUPTED,
    LOST,
    OVER,
    REASON,
    SURPLUS,
    WORKER,
    Progress,
    attempts_before,
    attribute,
    best_trials,
    open_storage,
    open_study,
    patiently,
    reap,
    retry,
)
from armbench_mmdet.sweep.training import (
    CONFIG,
    LOG,
    RUN,
    Outcome,
    Training,
    drop_interruption,
    fresh_folder,
    training_command,
    trial_folder,
)
from armbench_mmdet.system import usable_cores

FAILURES_IN_A_ROW = 10
_SIGNALS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]
_POLL_S, _IDLE_S = 0.05, 0.5
_PRUNED, _INTERRUPTED = Outcome(None, 'pruned'), Outcome(None, INTERRUPTED)


def thread_budget(trainings: int, processes: int = 1) -> dict[str, str]:
    """The variables that share the cores among trainings, without those that the user has set.

    Threads of a training that spin while they wait take the cores from another's: they are told to sleep.
    """
    threads = str(max(1, usable_cores() // (trainings * processes)))
    budget = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'), threads)
    budget['OMP_WAIT_POLICY'] = 'PASSIVE'
    return {name: value for name, value in budget.items() if name not in os.environ}


class Sweep:
    """The sweep on this machine.

    Args:
        space: The search space.
        study: The study's name.
        storage: Where it is kept.
        folder: Where the trials' folders go.
        command: The training command.
        n_trials: How many trials the study is to have.
        devices: The GPUs of each worker, one entry a worker; None leaves the environment as it is.

    Raises:
        InputError: The storage cannot be opened, or has a study of that name with another search space; there are
            fewer trials than settings to be tried first.
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
        if not re.fullmatch(r'\w[\w.+-]*', study):
            raise InputError(f'--study must be letters, digits, and any of _ . + -, got {study!r}')
        self.space, self.folder, self.command, self.n_trials, self.devices = space, folder, command, n_trials, devices
        if n_trials < len(space.given.enqueue):
            raise InputError(f'n_trials must be at least the {len(space.given.enqueue)} of enqueue, got {n_trials}')
        self._storage = open_storage(storage)
        self.study = open_study(self._storage, study, space)
        self._forgiven = {trial.number for trial in self._trials()}
        self._name = f'{socket.gethostname()}-{os.getpid()}'
        self._asking, self._writing = threading.Lock(), threading.Lock()
        self._is_stopped = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        write_base(folder, space.base, space.base_config)

    def run(self) -> bool:
        """Run the sweep to its end.

        Returns:
            Whether it got there; otherwise somebody interrupted it, and the same command resumes it.

        Raises:
            InputError: Ten trials failed in a row.
        """
        over = Progress(self._trials()).count(*OVER)
        if over >= self.n_trials:
            print_log(f'{over} trials are done, {self.n_trials} were asked for: nothing to do', logger='current')
        else:
            processes = max(len((entry or '').split(',')) for entry in self.devices)
            self._threads = thread_budget(len(self.devices), processes)
            shown = self._threads.get('OMP_NUM_THREADS') or os.environ['OMP_NUM_THREADS']
            workers = f'{len(self.devices)} at a time on {usable_cores()} cores, threads of each training: {shown}'
            print_log(f'{self.n_trials - over} trials to go, {workers}', logger='current')
            if len(self.space.given.objectives) > 1:
                print_log('there are several objectives: no trial is ended early', logger='current')
            self._work()
        if self._is_stopped.is_set():
            print_log('stopped; the same command resumes the study', logger='current')
            return False
        self._write()
        write_report(self.folder, self.study, self.space)
        print_log(f'files: {self.folder}', logger='current')
        self._check_failures()
        return True

    def retrain(self, number: int | None) -> int:
        """Train a trial's settings at full length, the best one's for None, or go on with that.

        Returns:
            The training's exit status.

        Raises:
            InputError: There is no such trial, or no single best one.
        """
        config = write_full_length(self.folder, self.study, self.space, number)
        run = training_command(self.command, config, config.parent / RUN, self.devices[0])
        environment = {} if self.devices[0] is None else {'CUDA_VISIBLE_DEVICES': self.devices[0]}
        print_log(f'training {config} at full length', logger='current')
        with subprocess.Popen([*run, '--resume'], env={**os.environ, **environment}) as training:
            for heard in _SIGNALS:  # the training ends itself, with a checkpoint
                signal.signal(heard, lambda number, _: training.send_signal(number))
            return training.wait()

    def _work(self) -> None:
        """Run the workers until there are no more trials, one of them fails or a signal comes."""
        before = {number: signal.signal(number, lambda *_: self._is_stopped.set()) for number in _SIGNALS}
        try:
            with ThreadPoolExecutor(len(self.devices)) as pool:
                workers = {pool.submit(self._run_trials, entry) for entry in self.devices}
                running = workers
                while running:  # the wait is short, for only between waits are signals heard
                    ended, running = wait(running, _IDLE_S, FIRST_EXCEPTION)
                    if any(worker.exception() for worker in ended):
                        self._is_stopped.set()
            for worker in workers:
                worker.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_trials(self, devices: str | None) -> None:
        """Run trials until there are no more: a worker."""
        # Its own, for the sampler is one trial's.
        study = open_study(self._storage, self.study.study_name, self.space)
        while not self._is_stopped.is_set():
            with self._asking:
                outlook = self._patiently(lambda: self._outlook(study))
                trial = self._patiently(study.ask) if outlook == 'go' else None
            if trial is not None and not self._is_surplus(study, trial):
                self._run_trial(study, trial, devices)
            elif outlook == 'over':
                break
            else:
                self._is_stopped.wait(_IDLE_S)
        self._storage.remove_session()

    def _outlook(self, study: optuna.Study) -> Literal['go', 'wait', 'over']:
        """Whether there is a trial to run; while others run the last ones, one of those may still be lost."""
        reap(study, self.space)
        progress = Progress(study.get_trials(deepcopy=False))
        over, running = progress.count(*OVER), progress.count(TrialState.RUNNING)
        if over >= self.n_trials or len(progress.failures_in_a_row(self._forgiven)) >= FAILURES_IN_A_ROW:
            return 'over'
        if over + running < self.n_trials or progress.count(TrialState.WAITING):
            return 'go'
        return 'wait'

    def _is_surplus(self, study: optuna.Study, trial: optuna.Trial) -> bool:
        """Whether other commands asked for the last trials at the same moment; it is then as if there were none."""
        trials = self._patiently(lambda: study.get_trials(deepcopy=False))
        if Progress(trials).rank(trials[trial.number]) < self.n_trials:
            return False
        self._patiently(partial(trial.set_user_attr, SURPLUS, True))
        self._patiently(lambda: study.tell(trial, state=TrialState.FAIL, skip_if_finished=True))
        return True

    def _run_trial(self, study: optuna.Study, trial: optuna.Trial, devices: str | None) -> None:
        try:
            self._beat(trial)
            outcome = self._outcome(study, trial, devices)
            state = TrialState.COMPLETE if outcome.values is not None else TrialState.FAIL
            if outcome is _PRUNED:
                state = TrialState.PRUNED
            elif state == TrialState.FAIL:
                for name, value in ((REASON, outcome.reason), (ERROR, outcome.error)):
                    self._patiently(partial(trial.set_user_attr, name, value))
        except UpdateFinishedTrialError:
            print_log(f'trial {trial.number} was taken for dead; it is left to others', logger='current')
            return
        values = [outcome.values[name] for name in self.space.given.objectives] if outcome.values else None
        told = self._patiently(lambda: study.tell(trial, values, state=state, skip_if_finished=True))
        if outcome.reason in LOST:
            limit = None if outcome is _INTERRUPTED else self.space.given.max_retries
            self._patiently(lambda: retry(study, told, limit))
        else:
            for number in (*attempts_before(told), told.number):
                drop_interruption(trial_folder(self.folder, number))
        if outcome is not _INTERRUPTED:
            self._patiently(self._write)

    def _outcome(self, study: optuna.Study, trial: optuna.Trial, devices: str | None) -> Outcome:
        """Train, and return what became of it."""
        study.sampler = self.space.sampler(trial.number)
        self._patiently(lambda: trial.set_user_attr(WORKER, self._name))
        attempts = self._patiently(lambda: attempts_before(study.get_trials(deepcopy=False)[trial.number]))
        config = self._patiently(lambda: self.space.config(trial))
        try:
            folder = fresh_folder(self.folder, trial.number)
            note = f'trial {trial.number} of study {study.study_name}'
            write_overrides(folder / CONFIG, f'../{BASE}', self.space.base_config, config, note)
            metrics = dict.fromkeys((*self.space.given.objectives, *self.space.given.constraints))
            before = [trial_folder(self.folder, number) for number in attempts[-1:]]
            training = Training(folder, self.command, [*metrics], devices, self._threads, *before)
        except (InputError, OSError) as error:
            return Outcome(None, 'not started', str(error))
        try:
            return self._watch(trial, training)
        finally:
            training.end()

    def _watch(self, trial: optuna.Trial, training: Training) -> Outcome:
        """Pass reports on and give signs of life until the training has ended or is to end."""
        beat_at_s, reported, has_ended, given = time.monotonic(), 0, False, self.space.given
        while not has_ended:
            has_ended = training.has_ended(_POLL_S)
            if self._is_stopped.is_set():
                return _INTERRUPTED
            for values in training.reports()[reported:]:
                if not all(map(math.isfinite, values.values())):
                    training.end()
                    break
                reported += 1
                if len(given.objectives) > 1:
                    continue
                self._patiently(partial(trial.report, values[given.objectives[0]], reported))
                if not has_ended and self._patiently(trial.should_prune):
                    self._constrain(trial, values)
                    return _PRUNED
            if time.monotonic() - beat_at_s >= given.heartbeat_s:
                beat_at_s = time.monotonic()
                self._beat(trial)
        outcome = training.outcome()
        self._constrain(trial, outcome.values or {})
        return outcome

    def _constrain(self, trial: optuna.Trial, values: Mapping[str, float]) -> None:
        """Tell by how much each limit is exceeded."""
        for name in self.space.given.constraints if values else ():
            excess = values[name] - self.space.given.constraints[name]
            self._patiently(partial(trial.set_constraint, name, excess))

    def _beat(self, trial: optuna.Trial) -> None:
        """Give a sign of life; an error where the trial was taken for dead."""
        self._patiently(partial(trial.set_user_attr, BEAT, time.time()))

    def _patiently(self, step: Any) -> Any:
        return patiently(step, self._storage, self._is_stopped)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _write(self) -> None:
        with self._writing:
            best = best_trials(self.study)
            print_log(Progress(self._trials()).line(self.n_trials, best), logger='current')
            write_best(self.folder, best, self.space)
            write_table(self.folder, self.study, self.space)

    def _check_failures(self) -> None:
        row = Progress(self._trials()).failures_in_a_row(self._forgiven)
        if len(row) >= FAILURES_IN_A_ROW:
            last = row[-1]
            log = trial_folder(self.folder, last.number) / LOG
            raise InputError(
                f'{len(row)} trials failed in a row, the last, trial {last.number}, by {attribute(last, REASON)}: '
                f'{attribute(last, ERROR)} (in {log}). Mend the cause; the same '
                'command tries again with new trials.'
            )
