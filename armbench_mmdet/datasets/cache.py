"""The cache of built columns: one ``.npy`` file a column, built once by whoever comes first."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray
from platformdirs import user_cache_path

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import draft_of, locked, remove_drafts, sha256_of

Columns = dict[str, NDArray[Any]]
Content = tuple[Columns, dict[str, Any]]
"""Columns, and meta data for JSON."""

_META = 'meta.json'
_RACY_S = 2.0


def resolve_cache_dir(cache_dir: Path | str | None = None) -> Path:
    """The cache folder: the argument, then ``ARMBENCH_CACHE``, then the user's cache directory."""
    named = os.environ.get('ARMBENCH_CACHE') if cache_dir is None else cache_dir
    return Path(named).expanduser() if named else user_cache_path('armbench_mmdet', appauthor=False)


def open_cached(
    source: Path, cache_dir: Path | str | None, schema: str, build: Callable[[], Content]
) -> tuple[Path, Content]:
    """Open the columns built from a source file, building them when there are none for its present state.

    A source is known by its path, size and times, or by its content where it is so fresh that another change could
    leave the same times. One process builds while others wait; if it dies, the next one builds. Columns that are
    damaged or cut short are built again.

    Args:
        source: The file to build from; its folder may be read-only.
        cache_dir: See :func:`resolve_cache_dir`. If it cannot be written, a folder for temporary files is used
            and the log says so.
        schema: Name of what is built, with its version.
        build: Makes the columns from the source.

    Returns:
        The folder of the columns, and what is in it, see :func:`read_columns`.

    Raises:
        InputError: The source is missing or changes while it is read, or the cache cannot be written.
    """
    stamp = _stamp(source)
    folder = _usable_folder(resolve_cache_dir(cache_dir) / schema)
    if time.time() - max(stamp[1:]) / 1e9 < _RACY_S:
        key = sha256_of(source)[:40]
    else:
        key = hashlib.sha256(repr((str(source.resolve()), stamp)).encode()).hexdigest()[:40]
    content = _read(folder / key)
    if content is None:
        with ExitStack() as stack:
            # Where the file system has no locks, builders only repeat each other's work.
            with suppress(OSError, NotImplementedError):
                stack.enter_context(locked(folder / f'{key}.lock'))
                remove_drafts(folder, key)
            content = _read(folder / key) or _build(folder / key, build)
        if _stamp(source) != stamp:
            raise InputError(f'annotation file must not change while it is read, got a change (in {source}); try again')
    return folder / key, content


def read_columns(folder: Path) -> Content:
    """Map columns into memory, read-only; nothing is read until it is touched.

    Raises:
        OSError, ValueError: A file is missing, damaged or cut short.
    """
    meta = json.loads((folder / _META).read_bytes())
    columns = {name: np.asarray(np.load(folder / f'{name}.npy', mmap_mode='r')) for name in meta.pop('columns')}
    return columns, meta


def _read(folder: Path) -> Content | None:
    try:
        return read_columns(folder)
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def _build(folder: Path, build: Callable[[], Content]) -> Content:
    columns, meta = build()
    try:
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        with draft_of(folder) as draft:
            draft.mkdir()
            for name, column in columns.items():
                np.save(draft / f'{name}.npy', column)
            (draft / _META).write_text(json.dumps({'columns': list(columns), **meta}))
    except OSError as error:
        content = _read(folder)  # where there are no locks, another builder may have been first
        if content is None:
            raise InputError(
                f'cache_dir must be a folder with room for the index, got {error.strerror or error} (in {folder}); '
                'name another one with the ARMBENCH_CACHE environment variable'
            ) from error
        return content
    return read_columns(folder)


def _usable_folder(preferred: Path) -> Path:
    """The preferred folder if it can be written, else one for temporary files, which belongs to us alone."""
    user = os.getuid() if hasattr(os, 'getuid') else 0  # not on Windows, where every owner is 0
    fallback = Path(tempfile.gettempdir()) / f'armbench_mmdet-{user}' / preferred.name
    for folder in (preferred, fallback):
        with suppress(OSError):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK) and (folder is preferred or folder.parent.stat().st_uid == user):
                return folder
        print_log(f'cache folder {folder} cannot be written', 'current', logging.WARNING)
    raise InputError(
        f'cache_dir must be a folder that can be written, got {str(preferred)!r}, and neither can {fallback} be; '
        'name one with the ARMBENCH_CACHE environment variable'
    )


def _stamp(source: Path) -> list[int]:
    """What changes whenever a file's content does, as far as the file system can tell."""
    try:
        stat = source.stat()
    except OSError as error:
        raise InputError(f'annotation file must exist, got {error.strerror} (in {source})') from error
    if not source.is_file():
        raise InputError(f'annotation file must be a file, got a folder (in {source})')
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
