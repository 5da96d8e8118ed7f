"""Checkpoint files that are never half there: written aside, synced, renamed, and kept with a checksum.

Beside ``iter_100.pth`` lies ``iter_100.pth.sha256``, in the format of ``sha256sum``. At any moment, also after a power
cut, a checkpoint's name stands for a complete file: the old one or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

from armbench_mmdet.digest import sha256_of
from armbench_mmdet.errors import InputError

LATEST = 'last_checkpoint'
"""File of a run's folder that names its latest checkpoint, as in mmengine."""

_DRAFT = '.draft'
_CHECKSUM = '.sha256'


def write_atomically(path: Path, content: bytes, check: Callable[[Path], object] | None = None) -> None:
    """Write a file so that its name never stands for half of it.

    Args:
        path: The file.
        content: Its new content.
        check: Called with the complete draft before it gets its name; what it raises stops the writing.

    Raises:
        OSError: Writing, syncing or renaming failed; the file is as it was.
    """
    draft = path.with_name(path.name + _DRAFT)
    try:
        with open(draft, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(draft)
        os.replace(draft, path)
        _sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum_path(path: Path) -> Path:
    """Where the checksum of a checkpoint lies."""
    return path.with_name(path.name + _CHECKSUM)


def check_checksum(path: Path) -> None:
    """Compare a checkpoint with the checksum beside it, if there is one.

    Raises:
        InputError: They differ: the file was damaged or changed.
    """
    expected = checksum_path(path)
    if not expected.is_file():
        return
    digest = expected.read_text(errors='replace').split(' ')[0]
    if digest != sha256_of(path):
        raise InputError(
            f'checkpoint must be as it was written, got one that differs from its checksum {expected.name} '
            f'(in {path}); take another one, or delete the checksum if you changed the file yourself'
        )


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its checksum, if they are there."""
    path.unlink(missing_ok=True)
    checksum_path(path).unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what a killed run left half written in a folder."""
    for draft in folder.glob(f'*{_DRAFT}'):
        draft.unlink(missing_ok=True)


def mark_latest(work_dir: Path, checkpoint: Path) -> None:
    """Name a run's latest checkpoint in :data:`LATEST`.

    Raises:
        InputError: The disk is full or fails; the earlier name stays.
    """
    try:
        write_atomically(work_dir / LATEST, str(checkpoint).encode())
    except OSError as error:
        raise InputError(
            f'{LATEST} must be written, got {error.strerror or error} (in {work_dir}); the checkpoint is complete: '
            f'make room, and continue with --resume {checkpoint}'
        ) from error


def latest_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint to resume a run from, or None: the latest one, or the newest before it that is not damaged.

    Those that are passed over are reported. Checkpoints kept for their metric (``best_…``) are none to resume from.

    Args:
        work_dir: The run's folder.
    """
    candidates = []
    if (work_dir / LATEST).is_file():
        named = Path((work_dir / LATEST).read_text().strip())
        candidates.append(named if named.is_file() else work_dir / named.name)  # the folder may have moved
    candidates += sorted(
        (path for path in work_dir.glob('*.pth') if not path.name.startswith('best_')),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for path in candidates:
        if not path.is_file():
            continue
        try:
            check_checksum(path)
        except InputError as error:
            print_log(f'passed over: {error}', 'current', WARNING)
            continue
        return path
    return None
