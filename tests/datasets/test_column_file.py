from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from armbench_mmdet.datasets.cache import ColumnFileError, ColumnWriter, read_columns

COLUMNS = {
    'integers': np.arange(7),
    'boxes': np.linspace(0, 1, 12).reshape(3, 4),
    'flags': np.array([True, False, True]),
    'nothing': np.empty((0, 4), np.float32),
    'big endian': np.arange(3, dtype='>i4'),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'x.columns'
    with path.open('xb') as file:
        writer = ColumnWriter(file)
        for name, column in COLUMNS.items():
            writer.append(name, column[:2])
            writer.append(name, column[2:])
        writer.finish({'answer': 42})
    return path


def test_columns_come_back_as_written_and_cannot_be_changed(path):
    columns, meta = read_columns(path)
    assert meta == {'answer': 42}
    assert list(columns) == list(COLUMNS)
    for name, column in COLUMNS.items():
        np.testing.assert_array_equal(columns[name], column)
        assert columns[name].dtype == column.dtype.newbyteorder('<')
    with pytest.raises(ValueError, match='read-only'):
        columns['integers'][0] = 1


def test_a_file_cut_anywhere_never_opens(path):
    content = path.read_bytes()
    for length in (*range(0, len(content), 97), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ColumnFileError):
            read_columns(path)


@pytest.mark.parametrize('damage', [b'{"columns": 3}', b'[]', b'not json', b'{"columns": {"a": {}}, "meta": {}}'])
def test_a_damaged_table_of_contents_never_opens(path, damage):
    from armbench_mmdet.datasets.cache import _FOOTER, _MAGIC

    path.write_bytes(damage + _FOOTER.pack(0, len(damage), _MAGIC))
    with pytest.raises(ColumnFileError):
        read_columns(path)


def test_writing_refuses_what_could_not_be_read(tmp_path):
    with (tmp_path / 'x').open('xb') as file:
        writer = ColumnWriter(file)
        writer.append('a', np.arange(3))
        with pytest.raises(ValueError, match='must stay'):
            writer.append('a', np.arange(3.0))
        writer.append('b', np.arange(3))
        with pytest.raises(ValueError, match='already closed'):
            writer.append('a', np.arange(3))
