"""Where built indexes are kept: by content, written atomically, built once by whoever comes first."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.logging import print_log

from armbench_mmdet.datasets.column_file import ColumnFileError, Columns, read_columns
from armbench_mmdet.digest import sha256_of
from armbench_mmdet.errors import InputError

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
