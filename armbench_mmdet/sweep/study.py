"""The study: its storage, its lost trials, and how far it is."""

import copy
import json
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import msgspec
import optuna
import sqlalchemy
from mmengine.logging import print_log
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc as sql

from armbench_mmdet.configs import differences
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import listed
from armbench_mmdet.sweep.space import Space, quiet_optuna

Result = TypeVar('Result')
WORKER, REASON, ERROR, BEAT, SURPLUS = 'worker', 'reason', 'error', 'alive at', 'surplus'  # attributes of a trial
STALE, INTERRUPTED = 'stale', 'interrupted'
LOST = ('killed', 'lost process', INTERRUPTED, STALE)  # reasons that are not the trial's fault: it is tried again
OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_SPACE = 'search space, version 2'
_DRIVERS = {'postgresql': 'psycopg', 'mysql': 'pymysql', 'sqlite': 'pysqlite'}
_STALE_BEATS = 6
_NEW = ('constraints', 'enqueue')  # keys that search spaces did not have at first
AWAY = (
    *(optuna.exceptions.StorageInternalError, OSError),
    *(sql.DBAPIError, sql.PendingRollbackError, sql.TimeoutError),
)
_PATIENCE_S = 600.0


def default_storage(folder: Path) -> str:
    """Return the journal file in a study's folder.

    Raises:
        InputError: An earlier version left its database there.
    """
    if (old := folder / 'study.db').exists():
        raise InputError(
            f'{old} is the study of an earlier version; go on with --storage sqlite:///{old.absolute()}, or begin anew '
            'with another --study'
        )
    return str(folder / 'journal.log')


def open_storage(where: str) -> BaseStorage:
    """Open the storage of a study: a database by its address, or a journal file by its path.

    Raises:
        InputError: It cannot be reached or is not one.
    """
    quiet_optuna()
    if '://' not in where:
        return JournalStorage(JournalFileBackend(str(_journal_file(Path(where)))))
    url = _address(where)
    shown = url.render_as_string(hide_password=True)
    limit = {'timeout': 60} if url.get_backend_name() == 'sqlite' else {'connect_timeout': 10}
    for attempt in range(5):
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False).replace('{', '{{').replace('}', '}}'),
                engine_kwargs={'pool_pre_ping': True, 'connect_args': limit},
            )
        except (ImportError, sql.NoSuchModuleError) as error:
            package = {'psycopg': "'psycopg[binary]'"}.get(url.get_driver_name(), url.get_driver_name())
            raise InputError(f'--storage needs a driver, got {shown!r}: {error}; pip install {package}') from error
        except sql.DBAPIError as error:
            if attempt < 4 and not isinstance(error, sql.OperationalError):
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
        raise InputError(f'--storage must be PostgreSQL, MySQL or the path of a journal file, got {url.drivername!r}')
    return url if '+' in url.drivername else url.set(drivername=f'{url.drivername}+{_DRIVERS[url.drivername]}')


def _journal_file(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a+b') as file:
            file.seek(0)
            start = file.read(6)
    except OSError as error:
        raise InputError(f'--storage must be a file that can be written, got {str(path)!r}: {error}') from error
    if start == b'SQLite':
        remedy = f'give a database by its address, sqlite:///{path.absolute()}'
        raise InputError(f'--storage must be a journal file, got the database {str(path)!r}; {remedy}')
    if start[:1] not in (b'', b'{'):
        raise InputError(f'--storage must be a journal file of Optuna, got {str(path)!r}; choose another path')
    return path


def open_study(storage: BaseStorage, name: str, space: Space) -> optuna.Study:
    """Open a study, or begin it with the settings that the search space wants tried first.

    Raises:
        InputError: It has another search space, or is of an earlier version.
    """
    arguments: dict[str, Any] = {
        'storage': storage,
        'study_name': name,
        'sampler': space.sampler(0),
        'pruner': space.pruner(),
    }
    ours = json.loads(json.dumps({'space': _compared(space), 'base': space.base_config}, default=repr))
    try:
        study = optuna.create_study(directions=space.given.directions, **arguments)
        study.set_user_attr(_SPACE, ours)
        for params in space.given.enqueue:
            study.enqueue_trial(params)
        return study
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**arguments)
    if _SPACE not in study.user_attrs and study.get_trials(deepcopy=False):
        raise InputError(f'study {name!r} must be of this version of the sweep, got another; choose another --study')
    theirs = study.user_attrs.get(_SPACE, ours)  # none yet: another process begins it at this moment
    new = {key: ours['space'][key] for key in _NEW if key not in theirs['space']}  # a study of before can go on
    found = differences({**theirs, 'space': {**new, **theirs['space']}}, ours)
    if found:
        raise InputError(
            f'study {name!r} must have this search space, got another (in {space.file}; there → here):{listed(found)}\n'
            'choose another --study'
        )
    return study


def _compared(space: Space) -> dict[str, Any]:
    """What of a search space a study cannot change."""
    given = msgspec.to_builtins(space.given)
    return {key: value for key, value in given.items() if key not in ('base', 'n_trials')}


def retry(study: optuna.Study, trial: FrozenTrial, limit: int | None) -> None:
    """Queue the parameters of a lost trial again, unless that was done ``limit`` times."""
    again = copy.deepcopy(trial)
    again.user_attrs = {}  # they say why that one ended
    RetryHeartbeatStaleTrialCallback(limit)(study, again)


def reap(study: optuna.Study, space: Space) -> None:
    """Fail the trials whose worker is dead, and queue them again.

    A trial that was lost and not queued again, since who did the one died before the other, is queued here.
    """
    trials = study.get_trials(deepcopy=False)
    queued = {number for trial in trials for number in attempts_before(trial)}
    for trial in trials:
        if _last_sign_s(trial) > time.time() - _STALE_BEATS * space.given.heartbeat_s or trial.number in queued:
            continue
        if trial.state == TrialState.RUNNING:
            with suppress(ValueError, UpdateFinishedTrialError):  # another process was first
                retry(study, study.tell(trial.number, state=TrialState.FAIL), space.given.max_retries)
        elif trial.state == TrialState.FAIL and attribute(trial, REASON) in LOST:
            retry(study, trial, space.given.max_retries)


def _last_sign_s(trial: FrozenTrial) -> float:
    began = trial.datetime_start or datetime.now()
    return max(trial.user_attrs.get(BEAT, 0.0), (trial.datetime_complete or began).timestamp())


class Progress:
    """How far a study is; a trial that was lost and tried again is one trial, in the state of its latest attempt.

    Args:
        trials: All trials of the study.

    Attributes:
        latest: The latest attempt of each trial.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._by_origin = {_origin(trial): trial for trial in trials if SURPLUS not in trial.user_attrs}
        self.latest = list(self._by_origin.values())

    def rank(self, trial: FrozenTrial) -> int:
        """Return how many trials were begun before this one."""
        return sum(other < _origin(trial) for other in self._by_origin)

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of ``states``."""
        return sum(trial.state in states for trial in self.latest)

    def failures_in_a_row(self, forgiven: Collection[int] = ()) -> list[FrozenTrial]:
        """Return the failures since the last trial that ended well, leaving out those with ``forgiven`` numbers."""
        over = [trial for trial in self.latest if trial.state in OVER and trial.number not in forgiven]
        over.sort(key=lambda trial: trial.datetime_complete or datetime.min)
        good = [index for index, trial in enumerate(over) if trial.state != TrialState.FAIL]
        return over[good[-1] + 1 if good else 0 :]

    def line(self, n_trials: int, best: Sequence[FrozenTrial]) -> str:
        """Say how many trials are done, pruned, failed and running, the best, and about how long it will take."""
        running = self.count(TrialState.RUNNING)
        parts = [
            f'{self.count(*OVER)}/{n_trials} trials over',
            f'{self.count(TrialState.COMPLETE)} done',
            f'{self.count(TrialState.PRUNED)} pruned',
            f'{self.count(TrialState.FAIL)} failed',
            f'{running} running',
        ]
        if best:
            values = ', '.join(f'{value:.4f}' for value in best[0].values)
            parts.append(f'best {values} (trial {best[0].number})' if len(best[0].values) == 1 else f'{len(best)} best')
        lasted = [trial.duration.total_seconds() for trial in self.latest if trial.duration]
        if lasted and self.count(*OVER) < n_trials:
            left_s = (n_trials - self.count(*OVER)) * sum(lasted) / len(lasted) / max(1, running)
            parts.append(f'about {timedelta(seconds=round(left_s))} left')
        return ' · '.join(parts)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best complete trials that keep the constraints, equals and a Pareto front by number."""
    return sorted(study.best_trials, key=lambda trial: trial.number)


def attempts_before(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the lost trials that this one repeats, the first one first."""
    return list(trial.system_attrs.get('retry_history', ()))


def _origin(trial: FrozenTrial) -> int:
    return (*attempts_before(trial), trial.number)[0]


def patiently(step: Callable[[], Result], storage: BaseStorage, is_stopped: Event) -> Result:
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
    return trial.user_attrs.get(name, STALE if name == REASON else '')
