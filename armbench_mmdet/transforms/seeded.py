"""What the random augmentations have in common: when they act, and where their randomness comes from."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from armbench_mmdet.errors import InputError


class SeededTransform(BaseTransform):
    """A transform that acts with probability ``prob``, from one number drawn of NumPy's global state.

    Training seeds that state for every sample (``armbench_mmdet/engine/batches.py``), and mmcv's
    ``cache_random_params`` repeats the number; all else follows from it. When the transform does not act, the results
    pass untouched.

    Args:
        prob: Probability of acting.
    """

    def __init__(self, prob: float) -> None:
        self.prob = check_fraction('prob', prob)

    @cache_randomness
    def _seed(self) -> int:
        return int(np.random.randint(2**31 - 1))  # noqa: NPY002

    def transform(self, results: dict) -> dict:
        """Change ``results`` with probability ``prob``."""
        rng = np.random.default_rng(self._seed())
        return self.apply(results, rng) if rng.random() < self.prob else results

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Change ``results``; every random choice comes from ``rng``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Name and public arguments."""
        arguments = ', '.join(f'{name}={value!r}' for name, value in vars(self).items() if not name.startswith('_'))
        return f'{type(self).__name__}({arguments})'


def check_fraction(name: str, value: float) -> float:
    """``value`` if it lies in [0, 1], else :class:`InputError`."""
    if not 0 <= value <= 1:
        raise InputError(f'{name} must be between 0 and 1, got {value!r}')
    return value


def check_range(name: str, value: tuple[float, float], low: float = 0, high: float = float('inf')) -> tuple:
    """``value`` if it is an ascending pair between ``low`` and ``high``, else :class:`InputError`."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise InputError(f'{name} must be two ascending numbers between {low} and {high}, got {value!r}')
    return tuple(value)
