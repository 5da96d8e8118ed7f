"""Checkpoint weights: read without running code, and compared with the model before they are used."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from armbench_mmdet.errors import InputError


def _history_statistic(owner: type, name: str) -> Callable:
    """Stand in for ``getattr``, by which pickle names the methods that a history buffer carries, and for those only."""
    if owner is not HistoryBuffer or name not in ('mean', 'max', 'min', 'current'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not part of a checkpoint')
    return getattr(HistoryBuffer, name)


# What an mmengine checkpoint holds besides tensors and plain containers: the message hub's buffers.
_SAFE_TYPES: list[Any] = [
    HistoryBuffer,
    (_history_statistic, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
]


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the model weights of a checkpoint.

    Args:
        path: A file written by mmengine (``{'state_dict': …}``) or a bare state dict.

    Returns:
        The tensors by parameter name, on the CPU; a leading ``module.`` is taken off.

    Raises:
        InputError: The file is missing, damaged, holds anything but tensors and plain data, or no weights.
    """
    if not path.is_file():
        raise InputError(f'checkpoint must be an existing file, got {str(path)!r}; train first, or check the path')
    try:
        with torch.serialization.safe_globals(_SAFE_TYPES):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(
            f'checkpoint must be a readable file of tensors and plain data, got {str(path)!r}: {_reason(error)}'
        ) from error
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"checkpoint must hold a 'state_dict' of tensors, got none (in {path})")
    return {name.removeprefix('module.'): value for name, value in state.items()}


def _reason(error: Exception) -> str:
    """What torch found wrong, without its advice to trust the file."""
    unsafe = re.search(r'Unsupported \w+: \w+ (\S+)', str(error))
    if unsafe:
        return f'it holds {unsafe[1]}, which could run code'
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
