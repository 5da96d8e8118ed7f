"""Atomic writing and locks."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import draft_of, locked, remove_drafts, write_atomically, write_json


def test_the_name_stands_for_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    write_atomically(path, 'old')
    with contextlib.suppress(ZeroDivisionError), draft_of(path) as draft:
        draft.write_text('half')
        assert path.read_text() == 'old'
        1 / 0  # noqa: B018
    assert [file.name for file in tmp_path.iterdir()] == ['a.json']
    assert path.read_text() == 'old'
    with draft_of(tmp_path / 'columns') as draft:
        draft.mkdir()
        (draft / 'ids.npy').write_bytes(b'1')
        assert not (tmp_path / 'columns').exists()
    assert (tmp_path / 'columns/ids.npy').read_bytes() == b'1'


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    path = tmp_path / 'file/below.json'
    for error in (InputError, OSError):  # one for users, one for those who can do without the file
        with pytest.raises(error, match=r'below\.json must be where files can be written, got File exists'):
            write_json(path, {})
    with pytest.raises(InputError, match='File exists'), locked(path):
        pass


def test_drafts_of_the_dead_are_removed(tmp_path: Path) -> None:
    (tmp_path / 'a.123.draft').write_text('half')
    (tmp_path / 'b.123.draft').mkdir()
    (tmp_path / 'c').write_text('whole')
    remove_drafts(tmp_path, 'a')
    assert sorted(file.name for file in tmp_path.iterdir()) == ['b.123.draft', 'c']
    remove_drafts(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ['c']


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def hold(_: int) -> None:
        with locked(tmp_path / 'lock', 'waiting'):
            order.append('in')
            time.sleep(0.05)
            order.append('out')

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(hold, range(3)))
    assert order == ['in', 'out'] * 3
