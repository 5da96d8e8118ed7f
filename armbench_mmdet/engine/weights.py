"""Checkpoint weights: read without running code, and compared with the model before they are used."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, print_log
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from armbench_mmdet.engine.checkpoint_files import check_checksum, write_atomically
from armbench_mmdet.errors import InputError


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
