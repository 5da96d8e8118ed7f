"""The cache of built columns: one ``.npy`` file a column, built once by whoever comes first."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray
from platformdirs import user_cache_path

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import draft_of, locked, remove_drafts

Columns = dict[str, NDArray[Any]]
Content = tuple[Columns, dict[str, Any]]  # columns, and meta data for JSON

_META = 'meta.json'


def resolve_cache_dir(cache_dir: Path | str | None = None) -> Path:
    """The cache folder: the argument, then ``ARMBENCH_CACHE``, then the user's cache directory."""
    named = os.environ.get('ARMBENCH_CACHE') if cache_dir is None else cache_dir
    return Path(named).expanduser() if named else user_cache_path('armbench_mmdet', appauthor=False)


def open_cached(
    source: Path, cache_dir: Path | str | None, schema: str, build: Callable[[], Content]
) -> tuple[Path | None, Content]:
    """Open the columns built from a source file, building them when there are none for its path, size and times.

    One process builds while others wait; if it dies, the next one builds. Columns that are damaged are built again.
    ``schema`` names what is built, with its version. The folder of the columns is None where they could not be written
    and lie in memory.

    Raises:
        InputError: The source is missing or changes while it is read.
    """
    stamp = _stamp(source)
    key = hashlib.sha256(repr((str(source.resolve()), stamp)).encode()).hexdigest()[:40]
    folder = resolve_cache_dir(cache_dir) / schema / key
    if content := _read(folder):
        return folder, content
    with ExitStack() as stack:
        # Where there are no locks, builders only repeat each other's work.
        with suppress(OSError, NotImplementedError):
            stack.enter_context(locked(folder.with_suffix('.lock')))
            remove_drafts(folder.parent, key)
        content = _read(folder)
        if content is None:
            built = build()
            _store(folder, *built)
            content = _read(folder)  # without locks, another builder may have been first
    if _stamp(source) != stamp:
        raise InputError(f'annotation file must not change while it is read, got a change (in {source}); try again')
    return (folder, content) if content else (None, built)


def _read(folder: Path) -> Content | None:
    """Map columns into memory, read-only; nothing is read until it is touched. None if a file is missing or damaged."""
    try:
        meta = json.loads((folder / _META).read_bytes())
        return {name: np.asarray(np.load(folder / f'{name}.npy', mmap_mode='r')) for name in meta.pop('columns')}, meta
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def _store(folder: Path, columns: Columns, meta: dict[str, Any]) -> None:
    """Write columns to a folder; log why if they cannot be."""
    try:
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        with draft_of(folder) as draft:
            draft.mkdir()
            for name, column in columns.items():
                np.save(draft / f'{name}.npy', column)
            (draft / _META).write_text(json.dumps({'columns': list(columns), **meta}))
    except OSError as error:
        print_log(
            f'cache folder {folder.parent} cannot be written ({error.strerror or error}), so the annotation file is '
            'parsed each time it is opened; name another one with the ARMBENCH_CACHE environment variable',
            'current',
            logging.WARNING,
        )


def _stamp(source: Path) -> list[int]:
    """What changes whenever a file's content does, as far as the file system can tell."""
    if not source.is_file():
        raise InputError(f'annotation file must be an existing file, got {str(source)!r}')
    stat = source.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
