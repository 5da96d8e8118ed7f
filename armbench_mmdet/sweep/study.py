"""The study: its storage, how trials are taken, lost, tried again and ended, and how far it is."""

import functools
import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, cast

import msgspec
import optuna
from mmengine.logging import print_log
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RetryHeartbeatStaleTrialCallback, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc as sql

from armbench_mmdet.configs import differences
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.training import LOST, Outcome

WORKER, REASON, ERROR, BEAT, SURPLUS = 'worker', 'reason', 'error', 'alive at', 'surplus'  # attributes of a trial
_SPACE = 'search space, version 2'
_DRIVERS = {'postgresql': 'postgresql+psycopg', 'mysql': 'mysql+pymysql'}
_STALE_BEATS = 6
_PATIENCE = 600  # tries, a second apart


class _PatientStorage:
    """A storage that repeats each step until it gets through, or ``is_stopped`` is set."""

    def __init__(self, storage: BaseStorage, is_stopped: Event) -> None:
        self._storage, self._is_stopped = storage, is_stopped

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._repeat, getattr(self._storage, name))

    def _repeat(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        tries = 0
        while True:
            try:
                return step(*args, **kwargs)
            except (StorageInternalError, sql.SQLAlchemyError, OSError) as error:
                reason = str(error).splitlines()[0]
                if self._is_stopped.wait(1.0) or tries == _PATIENCE:
                    raise InputError(f'The storage is away: {reason}. The same command resumes the study.') from error
                if not tries:
                    print_log(f'the storage is away, trying again: {reason}', logger='current')
                self._storage.remove_session()  # one that broke stays broken
                tries += 1


def open_storage(where: str, is_stopped: Event) -> BaseStorage:
    """Open a database by its address or a journal file by its path; where it is away, ``is_stopped`` ends the wait.

    Raises:
        InputError: It cannot be reached or is not one.
    """
    try:
        if '://' not in where:
            Path(where).parent.mkdir(parents=True, exist_ok=True)
        storage = _database(where) if '://' in where else JournalStorage(JournalFileBackend(where))
    except (OSError, ValueError, ImportError, sql.SQLAlchemyError) as error:
        reason = str(getattr(error, 'orig', error)).strip().splitlines()[0]
        raise InputError(
            '--storage must be the path of a journal file of Optuna, or dialect://user:password@host/database of a '
            f'database that can be reached, got {where.rpartition("@")[2]!r}: {reason}'
        ) from error
    return cast(BaseStorage, _PatientStorage(storage, is_stopped))


def _database(where: str) -> BaseStorage:
    dialect, _, rest = where.partition('://')
    address = f'{_DRIVERS.get(dialect, dialect)}://{rest}'
    try:
        return get_storage(address)
    except (sql.IntegrityError, sql.ProgrammingError):
        time.sleep(1.0)  # another process made the tables at the same moment
        return get_storage(address)


def open_study(storage: BaseStorage, name: str, space: Space) -> optuna.Study:
    """Open a study, or begin it with the settings that the search space wants tried first.

    Raises:
        InputError: It has another search space, or is of an earlier version.
    """
    arguments: dict[str, Any] = dict(storage=storage, study_name=name, sampler=space.sampler(0), pruner=space.pruner())
    given = msgspec.to_builtins(space.given)
    del given['base'], given['n_trials']  # these a study can change
    ours = json.loads(json.dumps({'space': given, 'base': space.base_config}, default=repr))
    try:
        study = optuna.create_study(directions=space.given.directions, **arguments)
        study.set_user_attr(_SPACE, ours)
        for params in space.given.enqueue:
            study.enqueue_trial(params)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**arguments)
    # None yet, and no trials: another process begins it at this moment.
    theirs = study.user_attrs.get(_SPACE, {} if study.get_trials(deepcopy=False) else ours)
    if found := differences(theirs, ours):
        listed = ''.join(f'\n  {one.key}: {one.base} → {one.run}' for one in found[:20])
        raise InputError(
            f'study {name!r} must have this search space, got another (in {space.file}; there → here):{listed}\n'
            'choose another --study'
        )
    return study


def take(study: optuna.Study, space: Space, n_trials: int) -> optuna.Trial | None:
    """Take a trial to run, one that is queued if there is; None while all of ``n_trials`` are over or running."""
    _reap(study, space)
    progress = Progress(study)
    if progress.over + progress.count(TrialState.RUNNING) >= n_trials and not progress.count(TrialState.WAITING):
        return None
    trial = study.ask()
    first = attempts(study.trials[trial.number])[0]
    if sum(other < first for other in Progress(study).latest) >= n_trials:
        # Other commands asked for the last ones at the same moment: it is as if there were none.
        trial.set_user_attr(SURPLUS, True)
        study.tell(trial, state=TrialState.FAIL)
        return None
    trial.set_user_attr(WORKER, f'{socket.gethostname()}-{os.getpid()}')
    trial.set_user_attr(BEAT, time.time())
    return trial


def finish(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, space: Space) -> None:
    """Tell the study what became of a trial, and queue a lost one again.

    Raises:
        UpdateFinishedTrialError: Somebody took it for dead.
    """
    given, values = space.given, outcome.values
    for name, limit in given.constraints.items() if values else ():
        trial.set_constraint(name, values[name] - limit)
    if outcome.state == TrialState.FAIL:
        trial.set_user_attr(REASON, outcome.reason)
        trial.set_user_attr(ERROR, outcome.error)
    if outcome.reason in LOST:  # first, so that whoever dies between the two has lost nothing
        _retry(study, trial.number, None if outcome.reason == 'interrupted' else given.max_retries)
    is_complete = outcome.state == TrialState.COMPLETE
    results = [values[name] for name in given.objectives] if is_complete else None
    study.tell(trial, results, state=outcome.state, skip_if_finished=True)


def _reap(study: optuna.Study, space: Space) -> None:
    """Fail the trials that give no more sign of life, and queue them again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        began = trial.datetime_start or datetime.now()
        if time.time() - trial.user_attrs.get(BEAT, began.timestamp()) > _STALE_BEATS * space.given.heartbeat_s:
            with suppress(ValueError, UpdateFinishedTrialError):  # another process was first
                study.tell(trial.number, state=TrialState.FAIL)
                _retry(study, trial.number, space.given.max_retries)


def _retry(study: optuna.Study, number: int, limit: int | None) -> None:
    """Queue the parameters of a lost trial again, unless that was done ``limit`` times."""
    again = study.trials[number]
    again.user_attrs = {}  # they say why that one ended
    RetryHeartbeatStaleTrialCallback(limit)(study, again)


def attempts(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the lost trials that a trial repeats, the first one first, and its own."""
    return [*RetryHeartbeatStaleTrialCallback.retry_history(trial), trial.number]


def failure(trial: FrozenTrial) -> tuple[str, str]:
    """Return why a trial failed, in a word and a line; nothing for another."""
    if trial.state != TrialState.FAIL:
        return '', ''
    return trial.user_attrs.get(REASON, 'stale'), trial.user_attrs.get(ERROR, '')


class Progress:
    """How far a study is; a trial that was tried again is one: its latest attempt, by the number of the first."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        kept = [trial for trial in study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs]
        self.latest = {attempts(trial)[0]: trial for trial in kept}
        self.over = sum(trial.state.is_finished() for trial in self.latest.values())

    def count(self, state: TrialState) -> int:
        """Return how many trials are in a state."""
        return sum(trial.state == state for trial in self.latest.values())

    def failures_in_a_row(self, since: int) -> list[FrozenTrial]:
        """Return the latest failures, the last first, back to a trial that ended well or to number ``since``."""
        over = [trial for trial in self.latest.values() if trial.state.is_finished() and trial.number >= since]
        over.sort(key=lambda trial: trial.datetime_complete or datetime.min, reverse=True)
        return list(itertools.takewhile(lambda trial: trial.state == TrialState.FAIL, over))

    def line(self, n_trials: int) -> str:
        """Say how many trials are in each state, the best, and about how long it will take."""
        best = self._study.best_trials
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
        parts = [f'{self.over}/{n_trials} trials over', *(f'{self.count(one)} {one.name.lower()}' for one in states)]
        if best:
            values = best[0].values
            parts.append(f'best {values[0]:.4f} (trial {best[0].number})' if len(values) == 1 else f'{len(best)} best')
        lasted = [trial.duration.total_seconds() for trial in self.latest.values() if trial.duration]
        if lasted and self.over < n_trials:
            left_s = (n_trials - self.over) * sum(lasted) / len(lasted) / max(1, self.count(TrialState.RUNNING))
            parts.append(f'about {timedelta(seconds=round(left_s))} left')
        return ' · '.join(parts)
