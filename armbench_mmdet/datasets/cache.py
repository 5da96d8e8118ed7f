"""The cache of built indexes: by content, written atomically, built once by whoever comes first."""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import struct
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import sha256_of

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


try:
    import fcntl
except ImportError:  # not a POSIX system: builders then repeat each other's work, and the last one wins
    fcntl = None  # type: ignore[assignment]

_RACY_S = 2.0

Builder = Callable[[BinaryIO], None]


def resolve_cache_dir(cache_dir: Path | str | None = None) -> Path:
    """The cache folder: the argument, then ``ARMBENCH_CACHE``, then the user's cache directory."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if named := os.environ.get('ARMBENCH_CACHE'):
        return Path(named).expanduser()
    base = os.environ.get('XDG_CACHE_HOME')
    return (Path(base) if base else Path.home() / '.cache') / 'armbench_mmdet'


def open_cached(
    source: Path, cache_dir: Path | str | None, schema: str, build: Builder
) -> tuple[Path, Columns, dict[str, Any]]:
    """Open the column file built from a source file, building it when there is none for its present content.

    A source whose path, size and times are known is not read at all; otherwise its content decides, so a copied or
    touched file is not built again, and a changed one is. One process builds while others wait; if it dies, the next
    one builds. A truncated column file is built again.

    Args:
        source: The file to build from; its folder may be read-only.
        cache_dir: See :func:`resolve_cache_dir`. If it cannot be written, a folder for temporary files is used
            and the log says so.
        schema: Name of what is built, with its version.
        build: Writes the column file of the source.

    Returns:
        The column file's path, its columns and its meta data.

    Raises:
        InputError: The source is missing or changes while it is read, or the cache cannot be written.
    """
    stamp = _stamp(source)
    folder = _usable_folder(resolve_cache_dir(cache_dir) / schema)
    key = _remembered(folder, source, stamp)
    opened = _open(folder, key) if key else None
    if opened is None:
        key = _content_key(source)
        opened = _open(folder, key)
        if opened is None:
            with _lock(folder, key):
                opened = _open(folder, key) or _build(folder, key, build)
        if _stamp(source) != stamp:
            raise InputError(f'annotation file must not change while it is read, got a change (in {source}); try again')
        _remember(folder, source, stamp, key)
    return opened


def _open(folder: Path, key: str) -> tuple[Path, Columns, dict[str, Any]] | None:
    path = folder / f'{key}.columns'
    try:
        return path, *read_columns(path)
    except (OSError, ColumnFileError):
        return None


def _build(folder: Path, key: str, build: Builder) -> tuple[Path, Columns, dict[str, Any]]:
    """Build into a file of our own and rename it: others see the whole file or none."""
    partial = folder / f'{key}.{uuid.uuid4().hex}.partial'
    try:
        with partial.open('xb') as file:
            build(file)
            file.flush()
            os.fsync(file.fileno())
        target = folder / f'{key}.columns'
        partial.replace(target)
    except OSError as error:
        raise InputError(
            f'cache_dir must be a folder with room for the index, got {error.strerror or error} (in {folder}); '
            'name another one with the ARMBENCH_CACHE environment variable'
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target, *read_columns(target)


@contextmanager
def _lock(folder: Path, key: str) -> Iterator[None]:
    """Hold the lock of one key; the system frees it when its holder dies.

    What dead builders left behind is removed. Where the file system has no locks, go on without: each builder
    writes a file of its own, so only work is lost.
    """
    with (folder / f'{key}.lock').open('ab') as file:
        locked = False
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                locked = True
            except OSError as error:
                print_log(f'{folder} has no file locks ({error.strerror})', 'current', logging.DEBUG)
        if locked:
            for leftover in folder.glob(f'{key}.*.partial'):
                leftover.unlink(missing_ok=True)
        yield


def _usable_folder(preferred: Path) -> Path:
    """The preferred folder if it can be written, else one for temporary files, which belongs to us alone."""
    if _is_writable(preferred):
        return preferred
    fallback = Path(tempfile.gettempdir()) / f'armbench_mmdet-{os.getuid()}' / preferred.name
    print_log(f'cache folder {preferred} cannot be written; using {fallback}', 'current', logging.WARNING)
    if not _is_writable(fallback) or fallback.parent.stat().st_uid != os.getuid():
        raise InputError(
            f'cache_dir must be a folder that can be written, got {str(preferred)!r}, and neither can {fallback} be; '
            'name one with the ARMBENCH_CACHE environment variable'
        )
    return fallback


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _content_key(source: Path) -> str:
    return sha256_of(source)[:40]


def _stamp(source: Path) -> list[int]:
    """What changes whenever a file's content does, as far as the file system can tell."""
    try:
        stat = source.stat()
    except OSError as error:
        raise InputError(f'annotation file must exist, got {error.strerror} (in {source})') from error
    if not source.is_file():
        raise InputError(f'annotation file must be a file, got a folder (in {source})')
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _memo(folder: Path, source: Path) -> Path:
    return folder / f'{hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:40]}.memo.json'


def _remembered(folder: Path, source: Path, stamp: list[int]) -> str | None:
    try:
        memo = json.loads(_memo(folder, source).read_text())
        return str(memo['key']) if memo['stamp'] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(folder: Path, source: Path, stamp: list[int], key: str) -> None:
    """Note a file's key, unless it is so fresh that another change could leave the same times."""
    if time.time() - max(stamp[3:]) / 1e9 < _RACY_S:
        return
    partial = folder / f'{uuid.uuid4().hex}.memo.partial'
    try:
        partial.write_text(json.dumps({'key': key, 'stamp': stamp}))
        partial.replace(_memo(folder, source))
    except OSError as error:
        print_log(f'could not note the index of {source}: {error.strerror}', 'current', logging.DEBUG)
