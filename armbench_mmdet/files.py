"""Files: atomic writing, locks between processes, digests."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from mmengine.logging import print_log

from armbench_mmdet.errors import InputError

_BLOCK_BYTES = 2**22
_DRAFT = '.draft'


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class UnwritableError(InputError, OSError):
    """A file or folder cannot be written; an ``OSError`` for those who can do without it."""


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raised = UnwritableError(f'{path} must be where files can be written, got {error.strerror or error}')
        raised.strerror = error.strerror
        raise raised from error


@contextlib.contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file or folder to write beside ``path``, which gets that name at the end: nobody ever sees half of it.

    A file of that name is replaced, a folder must not exist; the folder around it is made. Whoever dies in between
    leaves a draft, which :func:`remove_drafts` removes.

    Raises:
        UnwritableError: Making the folder, syncing or renaming failed; what ``path`` names is as it was.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'{path.name}.{uuid.uuid4().hex[:12]}{_DRAFT}')
    try:
        yield draft
        with _writing(path):
            for file in sorted(draft.iterdir()) if draft.is_dir() else [draft]:
                _sync(file)
            os.replace(draft, path)
            _sync(path.parent)
    finally:
        _remove(draft)


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file so that its name never stands for half of it, also after a power cut.

    Raises:
        UnwritableError: Writing, syncing or renaming failed; the file is as it was.
    """
    with draft_of(path) as draft, _writing(path):
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people can read, see :func:`write_atomically`; NaN becomes null."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content)) + b'\n')


def read_json(path: Path, kind: Any, requirement: str, remedy: str = '', strict: bool = True) -> Any:
    """What a JSON file holds, as a type of msgspec's; not ``strict``, numbers may be text.

    Raises:
        InputError: It cannot be read or holds something else; the message begins with ``requirement``.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, strict=strict)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f'{requirement}, got {error} (in {path}){remedy}') from error


def remove_drafts(folder: Path, name: str = '*') -> None:
    """Remove what killed processes left half written in a folder, of the files that match a pattern."""
    for draft in folder.glob(f'{name}.*{_DRAFT}'):
        _remove(draft)


@contextlib.contextmanager
def locked(path: Path, notice: str = '') -> Iterator[None]:
    """Hold the lock file ``path`` against other processes of this machine; it is freed when its holder dies.

    ``notice`` is logged when another process holds the lock.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        if notice:
            print_log(notice, 'current')
        held = lock.acquire()
    with held:
        yield


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == 'nt':  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
