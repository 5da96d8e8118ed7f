"""How mmengine writes checkpoints here: complete, read back, with a checksum, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from armbench_mmdet.digest import sha256_of
from armbench_mmdet.engine.checkpoint_files import checksum_path, remove_checkpoint, write_atomically
from armbench_mmdet.engine.weights import read_checkpoint
from armbench_mmdet.errors import InputError

BACKEND_ARGS = {'backend': 'checkpoint'}
"""What mmengine's file functions take as ``backend_args`` to write through :class:`CheckpointBackend`."""


def write_checkpoint(path: Path, content: bytes) -> None:
    """Write a checkpoint and its checksum, after reading it back as a resumed run would.

    Raises:
        InputError: The disk is full or fails, or the checkpoint would not load again; an earlier file of that name,
            and every other checkpoint, is as it was.
    """
    digest = hashlib.sha256(content).hexdigest()

    def check(draft: Path) -> None:
        if sha256_of(draft) != digest:
            raise OSError(f'{draft.name} reads back otherwise than it was written')
        try:
            read_checkpoint(draft, is_lazy=True)
        except InputError as error:
            raise InputError(
                f'what hooks and metrics store must be plain data, or no run could resume from it: {error}'
            ) from error
        checksum_path(path).unlink(missing_ok=True)  # of the earlier file: better none than one that does not fit

    try:
        write_atomically(path, content, check)
        write_atomically(checksum_path(path), f'{digest}  {path.name}\n'.encode())
    except OSError as error:
        raise InputError(
            f'checkpoint must be written completely, got {error.strerror or error} (in {path}); earlier checkpoints '
            'are intact: make room, and continue with --resume'
        ) from error


@register_backend('checkpoint')
class CheckpointBackend(LocalBackend):
    """mmengine's access to local files, for checkpoints: complete or not there, and with their checksums."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Path] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint; see :func:`write_checkpoint`."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path, obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a checkpoint and its checksum, now or when :meth:`release` is called."""
        if self._held is None:
            remove_checkpoint(Path(filepath))
        else:
            self._held.append(Path(filepath))

    def hold(self) -> None:
        """Keep what is to be removed until :meth:`release`: the next checkpoint must be there first."""
        self._held = []

    def release(self) -> None:
        """Remove what was held."""
        held, self._held = self._held or [], None
        for path in held:
            remove_checkpoint(path)
