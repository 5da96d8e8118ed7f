"""A file of named NumPy arrays that is written once, block by block, and memory-mapped afterwards.

Layout: the arrays one after another, each at a multiple of 64 bytes, little-endian and C-contiguous; a JSON
table of contents; a footer of three 8-byte fields (offset and length of the table, a magic number). The footer
comes last, so a file that was cut short never opens.
"""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64
_FOOTER = struct.Struct('<QQ8s')
_MAGIC = b'ARMBCOL1'

Columns = dict[str, NDArray[Any]]


class ColumnFileError(ValueError):
    """The file is truncated, damaged or no column file."""


class ColumnWriter:
    """Writes columns into an open binary file.

    A column may be appended in several blocks, as long as no other column comes between them: that keeps the
    largest one out of memory.

    Args:
        file: A new, empty file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._table: dict[str, dict[str, Any]] = {}
        self._current = ''

    def append(self, name: str, block: NDArray[Any]) -> None:
        """Add rows to a column.

        Args:
            name: Column; a new name starts a new one.
            block: ``(N, ...)`` rows of the column's dtype and row shape.

        Raises:
            ValueError: The column was closed by another one, or dtype or row shape differ.
        """
        block = np.ascontiguousarray(block).astype(block.dtype.newbyteorder('<'), copy=False)
        if name != self._current:
            if name in self._table:
                raise ValueError(f'column {name!r} was already closed')
            self._pad()
            self._table[name] = {'offset': self._file.tell(), 'dtype': block.dtype.str, 'shape': [0, *block.shape[1:]]}
            self._current = name
        entry = self._table[name]
        if (block.dtype.str, [*block.shape[1:]]) != (entry['dtype'], entry['shape'][1:]):
            raise ValueError(f'column {name!r} must stay {entry}, got {block.dtype} {block.shape}')
        entry['shape'][0] += len(block)
        self._file.write(block.data)

    def finish(self, meta: dict[str, Any]) -> None:
        """Write the table of contents and the footer; the file may be closed afterwards."""
        self._pad()
        offset = self._file.tell()
        table = json.dumps({'columns': self._table, 'meta': meta}).encode()
        self._file.write(table)
        self._file.write(_FOOTER.pack(offset, len(table), _MAGIC))
        self._file.flush()

    def _pad(self) -> None:
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))


def read_columns(path: Path) -> tuple[Columns, dict[str, Any]]:
    """Map a column file into memory.

    Args:
        path: A file written by :class:`ColumnWriter`.

    Returns:
        The columns, read-only views of the mapped file (nothing is read until it is touched), and the meta data.

    Raises:
        ColumnFileError: The file is truncated, damaged or no column file.
        OSError: The file cannot be opened.
    """
    with path.open('rb') as file:
        size = path.stat().st_size
        if size < _FOOTER.size:
            raise ColumnFileError(f'{path} is too short')
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table_offset, table_length, magic = _FOOTER.unpack_from(memory, len(memory) - _FOOTER.size)
    if magic != _MAGIC or table_offset + table_length + _FOOTER.size != len(memory):
        raise ColumnFileError(f'{path} was cut short')
    try:
        table = json.loads(memory[table_offset : table_offset + table_length])
        columns = {name: _view(memory, **entry) for name, entry in table['columns'].items()}
        return columns, table['meta']
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ColumnFileError(f'{path} is damaged: {error}') from error


def _view(memory: mmap.mmap, offset: int, dtype: str, shape: list[int]) -> NDArray[Any]:
    count = int(np.prod(shape))
    if count == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(memory, dtype, count, offset).reshape(shape)
