"""Storages that cannot be reached, and what counts as being away."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from pathlib import Path

import optuna
import pytest
from sqlalchemy import exc as sql

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.storage import FileLock, StoppedError, is_away, open_storage, persistently


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ('where', 'message'),
    [
        ('postgresql://me:secret@127.0.0.1:{port}/study', r'must be reachable, got .*me:\*\*\*@127.*refused'),
        ('sqlite:///study.db', "must be PostgreSQL, MySQL or the path of a journal file, got 'sqlite'"),
        ('://', 'must be a path or dialect'),
        ('{tmp}/file/journal.log', 'must be a file that can be written'),
        ('{tmp}/file', 'must be a journal of Optuna'),
        ('mysql+nothing://me@127.0.0.1/study', 'must be|needs a driver'),
    ],
)
def test_storage_that_is_not_there_is_a_clear_error(where: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('not\na journal\n')
    with pytest.raises(InputError, match=message) as caught:
        open_storage(where.format(port=free_port(), tmp=tmp_path))
    assert 'secret' not in str(caught.value)


def test_journal_is_never_started_anew(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / 'journal.log'))
    (tmp_path / 'journal.log').rename(tmp_path / 'elsewhere')
    with pytest.raises(InputError):
        open_storage(str(tmp_path / 'journal.log'), is_new=False)
    with pytest.raises(FileNotFoundError):
        storage.optuna.create_new_study([optuna.study.StudyDirection.MAXIMIZE], 'study')
    assert not (tmp_path / 'journal.log').exists()


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path, directions = tmp_path / 'journal.log', [optuna.study.StudyDirection.MAXIMIZE]
    open_storage(str(path)).optuna.create_new_study(directions, 'first')
    complete = path.read_bytes()
    path.write_bytes(complete + b'{"op_code":0,"worker_id":"' + b'x' * 200_000)
    storage = open_storage(str(path)).optuna
    storage.create_new_study(directions, 'second')
    for one in (storage, open_storage(str(path)).optuna):
        assert [study.study_name for study in one.get_all_studies()] == ['first', 'second']
    assert path.read_bytes().startswith(complete + b'{')


def operational() -> sql.OperationalError:
    return sql.OperationalError('select', {}, Exception('server closed the connection'))


def wrapped(cause: Exception) -> Exception:
    error = optuna.exceptions.StorageInternalError('commit')
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (operational(), True),
        (wrapped(operational()), True),
        (wrapped(sql.DataError('insert', {}, Exception('too long'))), False),
        (sql.DBAPIError('select', {}, Exception(), connection_invalidated=True), True),
        (wrapped(sql.PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")), True),
        (sql.ProgrammingError('select', {}, Exception()), False),
        (FileNotFoundError('journal'), True),
        (ValueError('x'), False),
        (InputError('x'), False),
    ],
)
def test_is_away(error: Exception, expected: bool) -> None:
    assert is_away(error) is expected


def test_persistently(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, 'sleep', pauses.append)
    answers = iter([operational(), OSError('gone'), 7])

    def step() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert persistently(step, lambda: False) == 7
    assert pauses == [0.1, 0.2]
    with pytest.raises(StoppedError):
        persistently(lambda: (_ for _ in ()).throw(OSError('gone')), lambda: True)
    with pytest.raises(ZeroDivisionError):
        persistently(lambda: 1 / 0, lambda: False)


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / 'lock')
    context = multiprocessing.get_context('fork')
    held = context.Event()

    def hold() -> None:
        FileLock(tmp_path / 'lock').acquire()
        held.set()
        time.sleep(600)

    process = context.Process(target=hold)
    process.start()
    assert held.wait(60)
    os.kill(process.pid or 0, 9)
    process.join()
    assert lock.acquire()
    lock.release()
