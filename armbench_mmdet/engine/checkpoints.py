"""Checkpoints: written atomically with a checksum, read without running code, compared with the model."""

import contextlib
import functools
import pickle
import re
from collections.abc import Iterator, Mapping
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
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from safetensors.torch import load_file, save
from torch import Tensor, nn

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import draft_of, sha256_of, write_atomically
from armbench_mmdet.run_folder import LATEST

_TRUST = '--trust-checkpoint'


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint and its checksum, after reading it back as a resumed run would.

    Raises:
        InputError: The disk is full or fails, or the checkpoint would not load again; an earlier file of that name,
            and every other checkpoint, is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            _save(checkpoint, draft)
            digest = sha256_of(draft)
            try:
                read_checkpoint(draft, is_lazy=True)
            except InputError as error:
                raise InputError(
                    f'what hooks and metrics store must be plain data, or no run could resume from it: {error}'
                ) from error
            _beside(path, 'sha256').unlink(missing_ok=True)  # of the earlier file: better none than one that is wrong
        write_atomically(_beside(path, 'sha256'), f'{digest}  {path.name}\n')
    except OSError as error:
        raise InputError(
            f'The checkpoint could not be written: {error.strerror or error} (in {path}). Earlier checkpoints are '
            'intact: make room, and continue with --resume.'
        ) from error


def _save(content: Mapping[str, Any], file: Path) -> None:
    with file.open('wb') as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch's own trouble with a file that could not be written hides the cause
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f'{path.name}.{kind}')


def check_checksum(path: Path) -> None:
    """Compare a checkpoint with the checksum beside it, if there is one.

    Raises:
        InputError: They differ: the file was damaged or changed.
    """
    expected = _beside(path, 'sha256')
    if expected.is_file() and expected.read_text(errors='replace').split(' ')[0] != sha256_of(path):
        raise InputError(
            f'The checkpoint is damaged: it differs from its checksum {expected.name} (in {path}). Take another one, '
            'or delete the checksum if you changed the file yourself.'
        )


def checkpoint_digests(work_dir: Path) -> set[str]:
    """The SHA-256 of each checkpoint in a run's folder: as written beside it, else computed."""
    checkpoints = [path for path in work_dir.glob('*.pth') if path.is_file()]
    written = {path: _beside(path, 'sha256') for path in checkpoints}
    return {file.read_text().split(' ')[0] if file.is_file() else sha256_of(path) for path, file in written.items()}


def mark_validated(path: Path, state: Mapping[str, Any]) -> None:
    """Keep, in a small file beside a checkpoint, what the validation of its moment has changed.

    A run resumed from the checkpoint takes it from there and does not validate twice; where it is lost, it does.

    Args:
        path: The checkpoint.
        state: Replaces what the checkpoint has under these keys; dictionaries one level deeper.
    """
    try:
        with draft_of(_beside(path, 'validated')) as draft:
            _save({**state, 'checksum': _beside(path, 'sha256').read_text()}, draft)
    except OSError as error:
        print_log(f'a run resumed from {path} will validate once more: {error}', 'current', WARNING)


def add_validation(path: Path, checkpoint: dict[str, Any]) -> bool:
    """Add what :func:`mark_validated` has kept to a checkpoint that was read; whether there was any for it."""
    beside = _beside(path, 'validated')
    if not beside.is_file():
        return False
    try:
        state = read_checkpoint(beside)
        if state.pop('checksum') != _beside(path, 'sha256').read_text():  # of an earlier file of that name
            return False
    except (InputError, OSError, KeyError) as error:
        print_log(f'the checkpoint is validated once more: {error} (in {beside})', 'current', WARNING)
        return False
    for key, value in state.items():
        checkpoint[key] = {**checkpoint[key], **value} if isinstance(value, dict) else value
    return True


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and what lies beside it, if they are there."""
    for one in (path, _beside(path, 'sha256'), _beside(path, 'validated')):
        one.unlink(missing_ok=True)


def mark_latest(work_dir: Path, checkpoint: Path) -> None:
    """Name a run's latest checkpoint in ``last_checkpoint``.

    Raises:
        InputError: The disk is full or fails; the earlier name stays.
    """
    try:
        write_atomically(work_dir / LATEST, str(checkpoint))
    except OSError as error:
        raise InputError(
            f'{LATEST} could not be written: {error.strerror or error} (in {work_dir}). The checkpoint is complete: '
            f'make room, and continue with --resume {checkpoint}.'
        ) from error


def latest_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint to resume a run from, or None: the latest one, or the newest before it that is not damaged.

    Those that are passed over are reported. Checkpoints kept for their metric (``best_…``) are none to resume from.
    """
    candidates = []
    if (work_dir / LATEST).is_file():
        named = Path((work_dir / LATEST).read_text().strip())
        own = work_dir / named.name  # first: the folder may be a copy of the one where the name was written
        candidates.append(own if own.is_file() or named.parent.name != work_dir.absolute().name else named)
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
            return path
        except InputError as error:
            print_log(f'passed over: {error}', 'current', WARNING)
    return None


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file at ``path``; in a run's folder, the latest.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    latest = latest_checkpoint(path) if path.is_dir() else path
    if latest is None or not latest.is_file():
        raise InputError(f'checkpoint must be a file, or a run folder that holds one, got {str(path)!r}; train first')
    return latest


def _history_statistic(owner: type, name: str) -> Any:
    """Stand in for ``getattr``, by which pickle names the methods that a history buffer carries, and for those only."""
    if owner is not HistoryBuffer or name not in ('mean', 'max', 'min', 'current'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not part of a checkpoint')
    return getattr(HistoryBuffer, name)


@functools.cache
def _safe_types() -> list[Any]:
    """All that may be built from a checkpoint besides tensors and plain containers: what mmengine's checkpoints hold.

    That is the message hub's buffers, NumPy arrays and numbers (named as NumPy 1 and NumPy 2 name them), and a
    config's dict.
    """
    rebuild_array, rebuild_number = np.zeros(1).__reduce__()[0], np.float64().__reduce__()[0]
    return [
        HistoryBuffer,
        (_history_statistic, 'builtins.getattr'),
        ConfigDict,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in '?bBhHiIlLqQefd'},
        *((rebuild_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
        *((rebuild_number, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    ]


def read_checkpoint(path: Path, map_location: Any = 'cpu', is_lazy: bool = False, trusted: bool = False) -> Any:
    """Read a checkpoint without running code.

    Args:
        path: A file written by ``torch.save``, or a safetensors file.
        map_location: Where the tensors go, as for ``torch.load``.
        is_lazy: Leave the tensors in the file until they are used; for looking at a checkpoint, not for loading one.
        trusted: Load a file that holds more than plain data as well, with a warning; it can run any code.

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
        try:
            with torch.serialization.safe_globals(_safe_types()):
                return torch.load(path, map_location, weights_only=True, mmap=is_lazy)
        except pickle.UnpicklingError:
            if not trusted:
                raise
        print_log(f'{path} may hold more than plain data, is trusted and can run code ({_TRUST})', 'current', WARNING)
        return torch.load(path, map_location, weights_only=False)
    except Exception as error:  # a file that is cut off or made to do harm raises any of a dozen types
        raise InputError(
            f'checkpoint must be a readable file of tensors and plain data, got {str(path)!r}: {_reason(error)}'
        ) from error


def _reason(error: Exception) -> str:
    """What was wrong with the file; torch's advice to trust it is replaced by ours."""
    if isinstance(error, pickle.UnpicklingError):
        unsafe = re.search(r'Unsupported \w+: \w+ (\S+)|GLOBAL (\S+)', str(error))
        if unsafe:
            name = unsafe[1] or unsafe[2]
            return f'it holds {name}, which could run code; if you trust its author, load it with {_TRUST}'
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_weights(path: Path, trusted: bool = False) -> dict[str, Tensor]:
    """Read the model weights of a checkpoint.

    Args:
        path: A file written by mmengine (``{'state_dict': …}``), a bare state dict, or a safetensors file.
        trusted: See :func:`read_checkpoint`.

    Returns:
        The tensors by parameter name, on the CPU; a leading ``module.`` is taken off.

    Raises:
        InputError: The file is missing, damaged, holds anything but tensors and plain data, or no weights.
    """
    checkpoint = read_checkpoint(path, trusted=trusted)
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"checkpoint must hold a 'state_dict' of tensors, got none (in {path})")
    return {name.removeprefix('module.'): value for name, value in state.items()}


def export_weights(checkpoint: Path, out: Path, trusted: bool = False) -> int:
    """Write the weights of a checkpoint to a safetensors file, which can hold nothing that runs; returns how many.

    Raises:
        InputError: The checkpoint cannot be read, or the name ends otherwise.
    """
    if out.suffix != '.safetensors':
        raise InputError(f'OUT must end in .safetensors, got {str(out)!r}')
    weights = load_weights(checkpoint, trusted)
    state = {name: value.contiguous().clone() for name, value in weights.items()}  # none may share memory
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, save(state, {'source': checkpoint.name}))
    return len(state)


@contextlib.contextmanager
def safe_loaders(trusted: bool = False) -> Iterator[None]:
    """Let everything that loads a checkpoint through mmengine read it with :func:`read_checkpoint` meanwhile."""

    def load_from_safely(filename: str, map_location: Any = None) -> Any:
        return read_checkpoint(local_file(filename), map_location, trusted=trusted)

    before = CheckpointLoader._schemes  # there is no public way to put loaders back
    CheckpointLoader._schemes = {'': load_from_safely}  # the empty prefix is every name's
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


def local_file(name: str) -> Path:
    """The file that the name of a checkpoint stands for: of the web, it is downloaded once, to torch's folder.

    Args:
        name: A path, a URL, or ``torchvision://…`` or ``open-mmlab://…`` with the zoo's name for it.

    Raises:
        InputError: The name is of none of these kinds, or the file cannot be downloaded.
    """
    scheme, separator, rest = name.partition('://')
    if not separator:
        return Path(name).expanduser()
    urls = {}
    if scheme in ('http', 'https'):
        urls = {rest: name}
    elif scheme in ('modelzoo', 'torchvision'):
        urls = mmengine.load(Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json')
        urls = urls if rest in urls else get_torchvision_models()  # which needs torchvision
    elif scheme in ('open-mmlab', 'openmmlab'):
        urls = get_external_models()
    url = urls.get(rest, '')
    if not url.startswith('http'):
        raise InputError(
            f'checkpoint must be a path, a URL or a known name, got {name!r}; fetch the file and give its path'
        )
    file = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    for turn in (get_rank() == 0, get_rank() != 0):  # the others find it there, unless they are another machine
        if turn and not file.is_file():
            _download(url, file)
        barrier()
    return file


def _download(url: str, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file))
    except OSError as error:
        raise InputError(
            f'The checkpoint could not be downloaded: {error} (from {url}). Save it as {file}, or give the path of '
            'your copy.'
        ) from error


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
        kinds = {
            'missing from the checkpoint': self.missing,
            'not in the model': self.unexpected,
            'of another shape (checkpoint ≠ model)': [f'{n} {a} ≠ {b}' for n, (a, b) in self.mismatched.items()],
        }
        lines = []
        for kind, names in kinds.items():
            if names:
                more = f', … (+{len(names) - limit} more)' if len(names) > limit else ''
                lines.append(f'{len(names)} tensors {kind}: {", ".join(names[:limit])}{more}')
        return '; '.join(lines)


def compare_weights(checkpoint: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> WeightComparison:
    """Compare two state dicts by tensor name and shape; nothing is loaded."""
    shapes = {
        name: (tuple(value.shape), tuple(model[name].shape)) for name, value in checkpoint.items() if name in model
    }
    return WeightComparison(
        matched=[name for name, (theirs, ours) in shapes.items() if theirs == ours],
        missing=[name for name in model if name not in checkpoint],
        unexpected=[name for name in checkpoint if name not in model],
        mismatched={name: both for name, both in shapes.items() if both[0] != both[1]},
    )


def load_exactly(model: nn.Module, checkpoint: Path, config_file: str, trusted: bool = False) -> None:
    """Load the weights of a checkpoint if every one fits the model, and none is missing.

    Args:
        model: The model, perhaps wrapped for distributed work.
        checkpoint: The file.
        config_file: Where the model comes from, for the message.
        trusted: See :func:`read_checkpoint`.

    Raises:
        InputError: Tensors are missing, left over or of another shape: the checkpoint belongs to another model.
    """
    model, state = getattr(model, 'module', model), load_weights(checkpoint, trusted)
    comparison = compare_weights(state, model.state_dict())
    if not comparison.is_exact:
        raise InputError(
            f'checkpoint must be one of this config, got {str(checkpoint)!r}: {comparison.describe()} '
            f'(in {config_file})'
        )
    model.load_state_dict(state)
