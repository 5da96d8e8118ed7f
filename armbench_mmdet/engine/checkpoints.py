"""Checkpoints: written atomically, read without running code, compared with the model."""

import contextlib
import io
import itertools
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
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
from safetensors.torch import load_file, save
from torch import Tensor, nn

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import write_atomically
from armbench_mmdet.run_folder import LATEST

_TRUST = '--trust-checkpoint'


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files for mmengine's checkpoints: never half there; the ``unwanted`` go once the next one is there."""

    def __init__(self, unwanted: list[str]) -> None:  # mmengine makes several with one list, as text
        self.unwanted = unwanted

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write a file, then remove what is unwanted.

        Raises:
            InputError: The disk is full or fails; an earlier file of that name, and every other one, is as it was.
        """
        path = Path(filepath)
        try:
            write_atomically(path, obj)
        except OSError as error:
            raise InputError(
                f'The checkpoint could not be written: {error.strerror or error} (in {path}). Earlier checkpoints are '
                'intact: make room, and continue with --resume.'
            ) from error
        while self.unwanted:
            if (other := Path(self.unwanted.pop())) != path:
                other.unlink(missing_ok=True)

    def remove(self, filepath: str | Path) -> None:
        """Take note of a file to remove."""
        self.unwanted.append(str(filepath))


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint, as :meth:`AtomicBackend.put` does."""
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    AtomicBackend([]).put(stream.getbuffer(), path)


def is_whole(path: Path) -> bool:
    """Whether every record of a checkpoint agrees with its CRC-32, which ``torch.load`` does not look at."""
    try:
        with zipfile.ZipFile(path) as records:
            return records.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):  # cut off, or no such records
        return False


def latest_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint to resume a run from, or None: the latest one, or the newest before it that is not damaged.

    Those that are passed over are reported. Checkpoints kept for their metric (``best_…``) are none to resume from.
    """
    checkpoints = [path for path in work_dir.glob('*.pth') if not path.name.startswith('best_')]
    named = Path((work_dir / LATEST).read_text()).name if (work_dir / LATEST).is_file() else ''
    for path in sorted(checkpoints, key=lambda path: (path.name == named, path.stat().st_mtime), reverse=True):
        if is_whole(path):
            return path
        print_log(f'passed over, a damaged checkpoint: {path}', 'current', WARNING)
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


_CORES = ('numpy.core.multiarray', 'numpy._core.multiarray')  # as NumPy 1 and NumPy 2 name it
_SAFE_TYPES = [
    HistoryBuffer,
    (_history_statistic, 'builtins.getattr'),
    ConfigDict,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in '?bBhHiIlLqQefd'},
    *((np.zeros(1).__reduce__()[0], f'{core}._reconstruct') for core in _CORES),
    *((np.float64().__reduce__()[0], f'{core}.scalar') for core in _CORES),
]
"""All that may be built from a checkpoint besides tensors and plain containers: what mmengine's checkpoints hold."""


def read_checkpoint(path: Path, trusted: bool = False) -> Any:
    """What ``torch.save`` wrote, on the CPU, read without running code; a ``trusted`` file can run any.

    A safetensors file is ``{'state_dict': tensors by name}``.

    Raises:
        InputError: The file is missing or damaged, or holds more than plain data.
    """
    if zipfile.is_zipfile(path) and not is_whole(path):  # else it is safetensors, or of torch before 1.6
        raise InputError(
            f'The checkpoint is damaged: a record differs from its checksum (in {path}). Take another one.'
        )
    if trusted:
        print_log(f'{path} is trusted: what it holds besides tensors can run code ({_TRUST})', 'current', WARNING)
    try:
        if path.suffix == '.safetensors':
            return {'state_dict': load_file(path)}
        with torch.serialization.safe_globals(_SAFE_TYPES):
            return torch.load(path, 'cpu', weights_only=not trusted)
    except Exception as error:  # a file that is cut off or made to do harm raises any of a dozen types
        unsafe = re.search(r'(?:Unsupported \w+: \w+|GLOBAL) (\S+)|(getattr)\(', str(error))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if unsafe and isinstance(error, pickle.UnpicklingError):  # torch would advise to trust it
            name = unsafe[1] or unsafe[2]
            reason = f'it holds {name}, which could run code; if you trust its author, load it with {_TRUST}'
        raise InputError(
            f'checkpoint must be a readable file of tensors and plain data, got {str(path)!r}: {reason}'
        ) from error


_WRAPPERS = ('model_state_dict', 'state_dict', 'model')  # keys under which projects keep a model's weights


def load_weights(path: Path, trusted: bool = False) -> dict[str, Tensor]:
    """The tensors by parameter name of a checkpoint, a bare state dict or a safetensors file, on the CPU.

    Raises:
        InputError: See :func:`read_checkpoint`; or there are no tensors, or something else is among them.
    """
    weights = read_checkpoint(path, trusted)
    for key in _WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(key), Mapping):
            weights = weights[key]
    named = weights if isinstance(weights, Mapping) else {}
    others = [str(name) for name, value in named.items() if not isinstance(value, Tensor)]
    if others or not named:
        raise InputError(
            f'checkpoint must hold tensors by name, bare or under one of {", ".join(_WRAPPERS)}, '
            f'got {", ".join(others[:5]) or "none"} (in {path})'
        )
    return {name.removeprefix('module.'): value for name, value in named.items()}


def export_weights(checkpoint: Path, out: Path, trusted: bool = False) -> int:
    """Write the weights of a checkpoint to a safetensors file, which can hold nothing that runs; returns how many.

    Raises:
        InputError: The checkpoint cannot be read, or the name ends otherwise.
    """
    if out.suffix != '.safetensors':
        raise InputError(f'OUT must end in .safetensors, got {str(out)!r}')
    weights = load_weights(checkpoint, trusted)
    state = {name: value.contiguous().clone() for name, value in weights.items()}  # none may share memory
    write_atomically(out, save(state, {'source': checkpoint.name}))
    return len(state)


@contextlib.contextmanager
def safe_loaders(trusted: bool = False) -> Iterator[None]:
    """Let everything that loads a checkpoint through mmengine read it with :func:`read_checkpoint` meanwhile."""
    before = CheckpointLoader._schemes  # there is no public way to put loaders back
    CheckpointLoader._schemes = {  # the empty prefix is every name's; tensors go to their device when they are copied
        '': lambda filename, map_location=None: read_checkpoint(local_file(filename), trusted)
    }
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


_ZOOS = {'torchvision': 'torchvision_0.12.json', 'open-mmlab': 'openmmlab.json'}  # mmengine's lists of URLs


def local_file(name: str) -> Path:
    """The file that the name of a checkpoint stands for: a path; a URL, or ``torchvision://…`` or ``open-mmlab://…``
    with the zoo's name for it, which is downloaded once, to torch's folder.

    Raises:
        InputError: The name is of none of these kinds, or the file cannot be downloaded.
    """
    scheme, separator, rest = name.partition('://')
    if not separator:
        return Path(name).expanduser()
    url = name
    if scheme in _ZOOS:
        url = mmengine.load(Path(mmengine.__file__).parent / 'hub' / _ZOOS[scheme]).get(rest, '')
    if not url.startswith('http'):
        raise InputError(
            f'checkpoint must be a path, a URL or a known name, got {name!r}; fetch the file and give its path'
        )
    file = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    for turn in (get_rank() == 0, get_rank() != 0):  # the others find it there, unless they are another machine
        if turn and not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(url, str(file))
            except OSError as error:
                raise InputError(
                    f'The checkpoint could not be downloaded: {error} (from {url}). Save it as {file}, or give the '
                    'path of your copy.'
                ) from error
        barrier()
    return file


def compare_weights(checkpoint: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, str]:
    """How the tensors of two state dicts differ, by name; of another shape, ``(checkpoint's) ≠ (model's)``."""
    shapes = {name: (tuple(checkpoint[name].shape), tuple(model[name].shape)) for name in model if name in checkpoint}
    return {
        **{name: f'{theirs} ≠ {ours}' for name, (theirs, ours) in shapes.items() if theirs != ours},
        **{name: 'is missing from the checkpoint' for name in model if name not in checkpoint},
        **{name: 'is not in the model' for name in checkpoint if name not in model},
    }


def described(differences: Mapping[str, str]) -> str:
    """Some differences in words: the first five of each kind by name, and how many more there are."""
    kinds = []
    for _, some in itertools.groupby(differences.items(), lambda difference: '≠' in difference[1] or difference[1]):
        lines = [f'{name} {what}' for name, what in some]
        kinds.append(', '.join(lines[:5]) + (f', … (+{len(lines) - 5} more)' if len(lines) > 5 else ''))
    return '; '.join(kinds)


def load_exactly(model: nn.Module, checkpoint: Path, config_file: str, trusted: bool = False) -> None:
    """Load the weights of a checkpoint if every one fits the model, perhaps wrapped, and none is missing.

    Raises:
        InputError: Tensors are missing, left over or of another shape: the checkpoint is not of ``config_file``.
    """
    model, state = getattr(model, 'module', model), load_weights(checkpoint, trusted)
    differences = compare_weights(state, model.state_dict())
    if differences:
        raise InputError(
            f'checkpoint must be one of this config, got {str(checkpoint)!r}: {described(differences)} '
            f'(in {config_file})'
        )
    model.load_state_dict(state)
