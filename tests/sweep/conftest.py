"""What the sweep's tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeps import Postgres, Sweep


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


@pytest.fixture(params=['journal', 'postgres'])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sweep]:
    """A sweep on each kind of storage."""
    if request.param == 'journal':
        where = str(tmp_path / 'storage/journal.log')
    else:
        where = request.getfixturevalue('postgres').database()
    yield from _swept(tmp_path, where)


@pytest.fixture
def journal_sweep(tmp_path: Path) -> Iterator[Sweep]:
    """A sweep on a journal file."""
    yield from _swept(tmp_path, str(tmp_path / 'storage/journal.log'))


def _swept(folder: Path, where: str) -> Iterator[Sweep]:
    one = Sweep(folder, where)
    yield one
    for process in one.drivers:
        if process.is_alive():
            process.kill()
        process.join()
