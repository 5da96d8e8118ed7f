"""Fixtures of the sweep's tests."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeps import Postgres, SweepUnderTest


@pytest.fixture(scope='session')
def postgres() -> Iterator[Postgres]:
    """The server; its absence is an error where ``ARMBENCH_REQUIRE_POSTGRES`` is set, as in CI."""
    found = [Path(path).parent for path in [shutil.which('initdb')] if path]
    found += sorted(Path('/usr/lib/postgresql').glob('*/bin'))
    if not found:
        message = 'no PostgreSQL: install the package postgresql'
        pytest.fail(message) if os.environ.get('ARMBENCH_REQUIRE_POSTGRES') else pytest.skip(message)
    server = Postgres(found[-1])
    yield server
    server.stop()
    shutil.rmtree(server.folder)


def _swept(folder: Path, where: str) -> Iterator[SweepUnderTest]:
    one = SweepUnderTest(folder, where)
    yield one
    for process in one.commands:
        if process.is_alive():
            process.kill()
        process.join()
    for pid in one.trainings():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SweepUnderTest]:
    """A sweep on a journal file."""
    yield from _swept(tmp_path, str(tmp_path / 'storage/journal.log'))


@pytest.fixture(params=['journal', 'postgres'])
def any_sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SweepUnderTest]:
    """A sweep on each kind of storage."""
    is_file = request.param == 'journal'
    where = str(tmp_path / 'storage/journal.log') if is_file else request.getfixturevalue('postgres').database()
    yield from _swept(tmp_path, where)
