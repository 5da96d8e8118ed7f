"""Where a study is kept: a journal file, or a database; and what to do while it is away."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import optuna
import sqlalchemy
from mmengine.logging import print_log
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from sqlalchemy import exc as sql

from armbench_mmdet.errors import InputError

Result = TypeVar('Result')
DRIVERS = {'postgresql': 'psycopg', 'mysql': 'pymysql'}
STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, sql.SQLAlchemyError, OSError)
CLAIMS = 'claims'  # the study's attribute whose row is the lock
_CONNECT_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 60  # a machine that vanished with the lock loses it


class StoppedError(Exception):
    """The process was asked to stop while the storage was away."""


class FileLock:
    """A lock that the kernel releases when its process dies; Optuna's own file locks stay for 30 s.

    Args:
        path: The file to lock; it is made, and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _JournalFile(JournalFileBackend):
    """Optuna's journal file, which mends itself and is never started anew.

    A machine that lost power leaves half a line, after which Optuna could not read the journal again; that line was
    never acknowledged, and is cut off. A file that is away for a moment is not replaced by an empty one.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = ''.join(json.dumps(log, separators=(',', ':')) + '\n' for log in logs)
        self._lock.acquire()
        try:
            with open(self._file_path, 'r+b') as file:
                file.truncate(_complete_size(file))
                file.seek(0, os.SEEK_END)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def _complete_size(file: BinaryIO) -> int:
    """The size in bytes of the complete lines of a file."""
    size = file.seek(0, os.SEEK_END)
    start = size
    while start > 0:
        start = max(0, start - 65536)
        file.seek(start)
        found = file.read(min(65536, size - start)).rfind(b'\n')
        if found >= 0:
            return start + found + 1
    return 0


class Journal:
    """A study in a journal file.

    Args:
        path: The file; it is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._claims = FileLock(path.with_name(f'{path.name}.claims'))
        lock: Any = FileLock(path.with_name(f'{path.name}.writes'))
        backend: BaseJournalBackend = _JournalFile(str(path), lock_obj=lock)
        self.optuna: optuna.storages.BaseStorage = optuna.storages.JournalStorage(backend)

    @contextmanager
    def claiming(self, study_id: int) -> Iterator[None]:
        """Hold the study alone, against every other process that claims trials."""
        self._claims.acquire()
        try:
            yield
        finally:
            self._claims.release()


class Database:
    """A study in a database.

    Args:
        url: SQLAlchemy's address of it.
    """

    def __init__(self, url: sqlalchemy.URL) -> None:
        arguments = {'connect_timeout': _CONNECT_TIMEOUT_S}
        # The pool's connections are tested before use: after an absence they are dead.
        engine = {'pool_pre_ping': True, 'connect_args': arguments}
        storage = optuna.storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=engine)
        self._engine = storage.engine
        self.optuna: optuna.storages.BaseStorage = optuna.storages.get_storage(storage)

    @contextmanager
    def claiming(self, study_id: int) -> Iterator[None]:
        """Hold the study alone, against every other process that claims trials: one row of it is locked."""
        attributes = sqlalchemy.table('study_user_attributes', *map(sqlalchemy.column, ('study_id', 'key')))
        row = sqlalchemy.select(attributes).where(attributes.c.study_id == study_id, attributes.c.key == CLAIMS)
        connection = self._engine.connect()
        try:
            if self._engine.dialect.name == 'postgresql':
                limit = f"SET LOCAL idle_in_transaction_session_timeout = '{_LOCK_TIMEOUT_S}s'"
                connection.execute(sqlalchemy.text(limit))
            connection.execute(row.with_for_update()).one()
            yield
        finally:
            with suppress(sql.SQLAlchemyError):  # away: then the lock is gone as well
                connection.rollback()
            with suppress(sql.SQLAlchemyError):
                connection.close()


Storage = Journal | Database


def open_storage(where: str, is_new: bool = True) -> Storage:
    """Open the storage of a study.

    Args:
        where: The address of a PostgreSQL or MySQL database, or the path of a journal file.
        is_new: Whether a journal that is not there is started; otherwise it is away.

    Raises:
        InputError: It cannot be reached or is not one.
    """
    if '://' not in where:
        return _open_journal(Path(where), is_new)
    try:
        url = sqlalchemy.make_url(where)
    except sql.ArgumentError as error:
        raise InputError(f'--storage must be a path or dialect://user:password@host/database: {error}') from error
    dialect = url.get_backend_name()
    if dialect not in DRIVERS:
        raise InputError(
            f'--storage must be PostgreSQL, MySQL or the path of a journal file, got {dialect!r}; '
            'no other database serves several processes safely'
        )
    if '+' not in url.drivername:
        url = url.set(drivername=f'{dialect}+{DRIVERS[dialect]}')
    shown = url.render_as_string(hide_password=True)
    for attempt in range(5):
        try:
            return Database(url)
        except (ImportError, sql.NoSuchModuleError) as error:
            package = "'psycopg[binary]'" if dialect == 'postgresql' else DRIVERS[dialect]
            raise InputError(f'--storage needs a driver, got {shown!r}: {error}; pip install {package}') from error
        except sql.OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise InputError(f'--storage must be reachable, got {shown!r}: {reason}') from error
        except (sql.IntegrityError, sql.ProgrammingError):  # another process made the tables at the same moment
            if attempt == 4:
                raise
            time.sleep(0.5)
    raise AssertionError('unreachable')


def _open_journal(path: Path, is_new: bool) -> Journal:
    try:
        if is_new:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise FileNotFoundError(path)
        return Journal(path)
    except OSError as error:
        raise InputError(f'--storage must be a file that can be written, got {str(path)!r}: {error}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'--storage must be a journal of Optuna, got {str(path)!r}: {error}') from error


def is_away(error: BaseException) -> bool:
    """Whether an error says that the storage cannot be reached just now."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, sql.DBAPIError) and error.connection_invalidated:
        return True
    # A pending rollback is what is left where Optuna goes on after the first error of a broken connection.
    absences = (sql.OperationalError, sql.InterfaceError, sql.PendingRollbackError, sql.TimeoutError, OSError)
    return isinstance(error, absences)


def persistently(step: Callable[[], Result], is_stopped: Callable[[], bool]) -> Result:
    """Take a step that can be repeated until the storage lets it through.

    Args:
        step: What to do; errors other than an absence pass through.
        is_stopped: Asked after each failure.

    Returns:
        What the step returned.

    Raises:
        StoppedError: The storage is away and ``is_stopped`` says so.
    """
    pause_s, said_at = 0.1, -60.0
    while True:
        try:
            return step()
        except STORAGE_ERRORS as error:
            if not is_away(error):
                raise
            if is_stopped():
                raise StoppedError from error
            if time.monotonic() - said_at >= 60:
                said_at = time.monotonic()
                print_log(f'the storage is away, trying again: {str(error).splitlines()[0]}', logger='current')
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 5.0)
