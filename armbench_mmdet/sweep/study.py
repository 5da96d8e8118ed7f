"""The study: its storage, its lost trials, and how far it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import msgspec
import optuna
import sqlalchemy
from mmengine.logging import print_log
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc as sql

from armbench_mmdet.configs import differences
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import listed
from armbench_mmdet.sweep.space import Space, quiet_optuna

Result = TypeVar('Result')
WORKER, REASON, ERROR = 'worker', 'reason', 'error'  # attributes of a trial
OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_SPACE = 'search space, version 2'
_DRIVERS = {'postgresql': 'psycopg', 'mysql': 'pymysql'}
_STALE_BEATS = 6
_NEVER_BEGUN = timedelta(hours=1)
_SQLITE = b'SQLite format 3\0'
AWAY = (optuna.exceptions.StorageInternalError, sql.DBAPIError, sql.PendingRollbackError, sql.TimeoutError)
_PATIENCE_S = 600.0


class _Retry(RetryHeartbeatStaleTrialCallback):
    """Optuna's, without the lost trial's attributes: they say why that one ended."""

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        trial.user_attrs = {}
        super().__call__(study, trial)


def open_storage(where: str, space: Space) -> RDBStorage:
    """Open the storage of a study: a PostgreSQL or MySQL database by its address, or a SQLite file by its path.

    Raises:
        InputError: It cannot be reached or is not one.
    """
    quiet_optuna()
    url = _database_file(Path(where)) if '://' not in where else _address(where)
    shown = url.render_as_string(hide_password=True)
    limit = {'timeout': 60} if url.get_backend_name() == 'sqlite' else {'connect_timeout': 10}
    for attempt in range(5):
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False).replace('{', '{{').replace('}', '}}'),
                engine_kwargs={'pool_pre_ping': True, 'connect_args': limit},
                heartbeat_interval=round(space.given.heartbeat_s),
                grace_period=_STALE_BEATS * round(space.given.heartbeat_s),
                heartbeat_stale_trial_callback=_Retry(space.given.max_retries),
            )
        except (ImportError, sql.NoSuchModuleError) as error:
            package = {'psycopg': "'psycopg[binary]'"}.get(url.get_driver_name(), url.get_driver_name())
            raise InputError(f'--storage needs a driver, got {shown!r}: {error}; pip install {package}') from error
        except sql.DBAPIError as error:
            if attempt < 4 and (url.get_backend_name() == 'sqlite' or not isinstance(error, sql.OperationalError)):
                time.sleep(0.5)  # another process made the tables at the same moment
                continue
            reason = str(error.orig).strip().splitlines()[0]
            raise InputError(f'--storage must be reachable, got {shown!r}: {reason}') from error
    raise InputError(f'--storage must be reachable, got {shown!r}: its tables cannot be made')


def _address(where: str) -> sqlalchemy.URL:
    try:
        url = sqlalchemy.make_url(where)
    except sql.ArgumentError as error:
        raise InputError(f'--storage must be a path or dialect://user:password@host/database: {error}') from error
    if url.get_backend_name() not in _DRIVERS:
        raise InputError(f'--storage must be PostgreSQL, MySQL or the path of a SQLite file, got {url.drivername!r}')
    return url if '+' in url.drivername else url.set(drivername=f'{url.drivername}+{_DRIVERS[url.drivername]}')


def _database_file(path: Path) -> sqlalchemy.URL:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a+b') as file:
            file.seek(0)
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise InputError(f'--storage must be a file that can be written, got {str(path)!r}: {error}') from error
    if start not in (b'', _SQLITE):
        raise InputError(
            f'--storage must be a SQLite file, got {str(path)!r}; the journal of an earlier version is not read: '
            'choose another --storage and --work-dir'
        )
    return sqlalchemy.URL.create('sqlite', database=str(path.absolute()))


def open_study(storage: RDBStorage, name: str, space: Space) -> optuna.Study:
    """Open a study, or begin it.

    Raises:
        InputError: It has another search space, or is of an earlier version.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction=space.given.direction,
        sampler=space.sampler(0),
        pruner=space.pruner(),
        load_if_exists=True,
    )
    given = {key: value for key, value in msgspec.to_builtins(space.given).items() if key not in ('base', 'n_trials')}
    ours = json.loads(json.dumps({'space': given, 'base': space.base_config}, default=repr))
    if _SPACE not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise InputError(
                f'study {name!r} must be of this version of the sweep, got another; choose another --study'
            )
        study.set_user_attr(_SPACE, ours)
    found = differences(study.user_attrs[_SPACE], ours)
    if found:
        raise InputError(
            f'study {name!r} must have this search space, got another (in {space.file}; there → here):{listed(found)}\n'
            'choose another --study'
        )
    return study


def retry(study: optuna.Study, trial: FrozenTrial, limit: int | None) -> None:
    """Queue the parameters of a lost trial again, unless that was done ``limit`` times."""
    _Retry(limit)(study, trial)


def reap(study: optuna.Study) -> None:
    """Fail the trials whose worker is dead, and queue them again."""
    fail_stale_trials(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # Optuna does not see one that never gave a sign
        began = trial.datetime_start or datetime.now()
        if WORKER not in trial.user_attrs and began < datetime.now() - _NEVER_BEGUN:
            retry(study, study.tell(trial.number, state=TrialState.FAIL), None)


class Progress:
    """How far a study is; a trial that was lost and tried again is one trial, in the state of its latest attempt.

    Args:
        trials: All trials of the study.

    Attributes:
        latest: The latest attempt of each trial.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        again = {number for trial in trials for number in attempts_before(trial)}
        self.latest = [trial for trial in trials if trial.number not in again]

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of ``states``."""
        return sum(trial.state in states for trial in self.latest)

    def best(self, direction: str) -> FrozenTrial | None:
        """Return the best complete trial, the first of equals; None before there is one."""
        done = [trial for trial in self.latest if trial.state == TrialState.COMPLETE]
        sign = 1 if direction == 'maximize' else -1
        return max(done, key=lambda trial: (sign * float(trial.value or 0.0), -trial.number), default=None)

    def failures_in_a_row(self, forgiven: Collection[int] = ()) -> list[FrozenTrial]:
        """Return the failures since the last trial that ended well, leaving out those with ``forgiven`` numbers."""
        over = [trial for trial in self.latest if trial.state in OVER and trial.number not in forgiven]
        over.sort(key=lambda trial: trial.datetime_complete or datetime.min)
        good = [index for index, trial in enumerate(over) if trial.state != TrialState.FAIL]
        return over[good[-1] + 1 if good else 0 :]

    def line(self, n_trials: int, space: Space) -> str:
        """Say how many trials are done, pruned, failed and running, the best, and about how long it will take."""
        best, running = self.best(space.given.direction), self.count(TrialState.RUNNING)
        parts = [
            f'{self.count(*OVER)}/{n_trials} trials over',
            f'{self.count(TrialState.COMPLETE)} done',
            f'{self.count(TrialState.PRUNED)} pruned',
            f'{self.count(TrialState.FAIL)} failed',
            f'{running} running',
        ]
        if best is not None:
            parts.append(f'best {space.given.objective} {best.value:.4f} (trial {best.number})')
        lasted = [trial.duration.total_seconds() for trial in self.latest if trial.duration]
        if lasted and self.count(*OVER) < n_trials:
            left_s = (n_trials - self.count(*OVER)) * sum(lasted) / len(lasted) / max(1, running)
            parts.append(f'about {timedelta(seconds=round(left_s))} left')
        return ' · '.join(parts)


def attempts_before(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the lost trials that this one repeats, the first one first."""
    return list(trial.system_attrs.get('retry_history', ()))


def patiently(step: Callable[[], Result], storage: RDBStorage, is_stopped: Event) -> Result:
    """Repeat a step until the storage lets it through.

    Raises:
        InputError: It is away and the patience is at its end.
    """
    began_s, told = time.monotonic(), False
    while True:
        try:
            return step()
        except AWAY as error:
            reason = str(error).splitlines()[0]
            if is_stopped.is_set() or time.monotonic() - began_s > _PATIENCE_S:
                raise InputError(f'The storage is away: {reason}. The same command resumes the study.') from error
            if not told:
                told = True
                print_log(f'the storage is away, trying again: {reason}', logger='current')
            storage.remove_session()  # one that broke stays broken
        is_stopped.wait(1.0)


def attribute(trial: FrozenTrial, name: str) -> Any:
    """Return an attribute that the sweep gave a trial, empty where it has none."""
    if name in (REASON, ERROR) and trial.state != TrialState.FAIL:
        return ''
    return trial.user_attrs.get(name, 'stale' if name == REASON else '')
