"""Checkpoints: written atomically with a checksum, read without running code, compared with the model."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import barrier, get_rank
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import sha256_of
from armbench_mmdet.run_folder import LATEST

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
    """Name a run's latest checkpoint in ``last_checkpoint``.

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


def _history_statistic(owner: type, name: str) -> Callable:
    """Stand in for ``getattr``, by which pickle names the methods that a history buffer carries, and for those only."""
    if owner is not HistoryBuffer or name not in ('mean', 'max', 'min', 'current'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not part of a checkpoint')
    return getattr(HistoryBuffer, name)


_multiarray = np._core.multiarray  # type: ignore[attr-defined]

# What checkpoints of mmengine hold besides tensors and plain containers, and all that may be built from one: the
# message hub's buffers, NumPy arrays and numbers (named as NumPy 1 and NumPy 2 name them), and a config's dict.
_SAFE_TYPES: list[Any] = [
    HistoryBuffer,
    (_history_statistic, 'builtins.getattr'),
    ConfigDict,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in '?bBhHiIlLqQefd'},
    *(
        (getattr(_multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ),
]

_TRUST = '--trust-checkpoint'
_is_trusted = False

# What torch and safetensors raise for files that are cut off, of another kind, or made to do harm.
_BAD_FILE = (
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError),
    *(pickle.UnpicklingError, SafetensorError),
)


def trust_checkpoints() -> None:
    """Let this process, from now on, load checkpoints that hold more than plain data; such a file can run any code."""
    global _is_trusted
    _is_trusted = True


def read_checkpoint(path: Path, map_location: Any = 'cpu', is_lazy: bool = False) -> Any:
    """Read a checkpoint without running code, unless :func:`trust_checkpoints` was called.

    Args:
        path: A file written by ``torch.save``, or a safetensors file.
        map_location: Where the tensors go, as for ``torch.load``.
        is_lazy: Leave the tensors in the file until they are used; for looking at a checkpoint, not for loading one.

    Returns:
        What was saved; of a safetensors file, ``{'state_dict': tensors by name}``.

    Raises:
        InputError: The file is missing, differs from its checksum, is damaged, or holds more than plain data.
    """
    if not path.is_file():
        raise InputError(f'checkpoint must be an existing file, got {str(path)!r}; train first, or check the path')
    check_checksum(path)
    try:
        if path.suffix == '.safetensors':
            device = map_location if isinstance(map_location, str) else 'cpu'
            return {'state_dict': load_file(path, device)}
        with torch.serialization.safe_globals(_SAFE_TYPES):
            return torch.load(path, map_location, weights_only=True, mmap=is_lazy)
    except _BAD_FILE as error:
        if not (_is_trusted and isinstance(error, pickle.UnpicklingError)):
            raise InputError(
                f'checkpoint must be a readable file of tensors and plain data, got {str(path)!r}: {_reason(error)}'
            ) from error
    print_log(f'{path} holds more than plain data and is trusted with running code ({_TRUST})', 'current', WARNING)
    try:
        return torch.load(path, map_location, weights_only=False)
    except _BAD_FILE as error:
        raise InputError(f'checkpoint must be a readable file, got {str(path)!r}: {_reason(error)}') from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the model weights of a checkpoint.

    Args:
        path: A file written by mmengine (``{'state_dict': …}``), a bare state dict, or a safetensors file.

    Returns:
        The tensors by parameter name, on the CPU; a leading ``module.`` is taken off.

    Raises:
        InputError: The file is missing, damaged, holds anything but tensors and plain data, or no weights.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"checkpoint must hold a 'state_dict' of tensors, got none (in {path})")
    return {name.removeprefix('module.'): value for name, value in state.items()}


def export_weights(checkpoint: Path, out: Path) -> int:
    """Write the weights of a checkpoint to a safetensors file, which can hold nothing that runs.

    Args:
        checkpoint: See :func:`load_weights`.
        out: The new file; its name ends in ``.safetensors``.

    Returns:
        How many tensors were written.

    Raises:
        InputError: The checkpoint cannot be read, or the name ends otherwise.
    """
    if out.suffix != '.safetensors':
        raise InputError(f'OUT must end in .safetensors, got {str(out)!r}')
    state = {
        name: value.contiguous().clone() for name, value in load_weights(checkpoint).items()
    }  # none may share memory
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, save(state, {'source': checkpoint.name}))
    return len(state)


def _reason(error: Exception) -> str:
    """What was wrong with the file; torch's advice to trust it is replaced by ours."""
    if isinstance(error, pickle.UnpicklingError):
        unsafe = re.search(r'Unsupported \w+: \w+ (\S+)|GLOBAL (\S+)', str(error))
        if unsafe:
            name = unsafe[1] or unsafe[2]
            return f'it holds {name}, which could run code; if you trust its author, load it with {_TRUST}'
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass
class WeightComparison:
    """How the tensors of a checkpoint and of a model relate, by name and shape."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether every tensor of each side has its equal on the other."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self, limit: int = 5) -> str:
        """Return the differences, the first ``limit`` of each kind by name."""
        mismatched = [f'{name} {theirs} ≠ {ours}' for name, (theirs, ours) in self.mismatched.items()]
        lines = []
        for title, names in (
            ('missing from the checkpoint', self.missing),
            ('not in the model', self.unexpected),
            ('of another shape (checkpoint ≠ model)', mismatched),
        ):
            if names:
                more = f', … (+{len(names) - limit} more)' if len(names) > limit else ''
                lines.append(f'{len(names)} tensors {title}: {", ".join(names[:limit])}{more}')
        return '; '.join(lines)


def compare_weights(checkpoint: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> WeightComparison:
    """Compare two state dicts by tensor name and shape.

    Args:
        checkpoint: The state dict that was read.
        model: The state dict of the built model.

    Returns:
        The comparison; nothing is loaded.
    """
    result = WeightComparison(
        missing=[name for name in model if name not in checkpoint],
        unexpected=[name for name in checkpoint if name not in model],
    )
    for name, value in checkpoint.items():
        if name not in model:
            continue
        if value.shape == model[name].shape:
            result.matched.append(name)
        else:
            result.mismatched[name] = (tuple(value.shape), tuple(model[name].shape))
    return result


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


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local file."""
    return read_checkpoint(Path(filename).expanduser(), map_location)


def load_from_http(url: str, map_location: Any = None) -> Any:
    """Read a file of the web, which is downloaded once, to torch's folder.

    Raises:
        InputError: It cannot be downloaded, or is no safe checkpoint.
    """
    file = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    for turn in (get_rank() == 0, get_rank() != 0):  # the others find it there, unless they are another machine
        if turn and not file.is_file():
            _download(url, file)
        barrier()
    return read_checkpoint(file, map_location)


def _download(url: str, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file))
    except OSError as error:
        raise InputError(
            f'checkpoint must be there or be downloaded, got {error} (from {url}); save it as {file}, or give the path '
            'of your copy'
        ) from error


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Read weights by torchvision's name for them; most need no torchvision."""
    name = filename.partition('://')[2]
    urls = mmengine.load(Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json')
    return load_from_http(urls[name] if name in urls else _known(get_torchvision_models(), filename), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Read weights by OpenMMLab's short name for them."""
    return load_from_http(_known(get_external_models(), filename), map_location)


def _known(urls: dict[str, str], filename: str) -> str:
    url = urls.get(filename.partition('://')[2], '')
    if not url.startswith('http'):
        raise InputError(f'checkpoint must be a path, a URL or a known name, got {filename!r}')
    return url


def load_from_nowhere(filename: str, map_location: Any = None) -> Any:
    """Refuse a scheme that has no safe loader here."""
    raise InputError(f'checkpoint must be a path or a URL, got {filename!r}; fetch the file and give its path')


_LOADERS = {
    '': load_from_local,
    'http://': load_from_http,
    'https://': load_from_http,
    'modelzoo://': load_from_torchvision,
    'torchvision://': load_from_torchvision,
    'open-mmlab://': load_from_openmmlab,
    'openmmlab://': load_from_openmmlab,
}


def register_safe_loaders() -> None:
    """Put the loaders of this module in the place of mmengine's, for every scheme it knows."""
    for prefix in [*CheckpointLoader._schemes]:
        CheckpointLoader.register_scheme(prefix, _LOADERS.get(prefix, load_from_nowhere), force=True)
