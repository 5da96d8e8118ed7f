"""Instances of one sample, and its random numbers, as the augmentations share them."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.polygons import Polygons

TOTE = 0
"""The label of the tote; every other one is an object."""


def replace_masks(results: dict, masks: BitmapMasks | Polygons, matrix: np.ndarray | None = None) -> dict:
    """Give a sample the masks of its instances after a change, and tight boxes; drop those with no pixel left.

    It is changed in place and returned; the matrix ``(3, 3)`` says how the pixels moved.
    """
    visible = masks.areas > 0
    results['gt_masks'] = masks[visible]
    results['gt_bboxes'] = HorizontalBoxes(masks.get_bboxes('hbox').tensor[visible])
    for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
        if key in results:
            results[key] = results[key][visible]
    if matrix is not None:
        earlier = results.get('homography_matrix', np.eye(3, dtype=np.float32))
        results['homography_matrix'] = matrix.astype(np.float32) @ earlier
    return results


def limited(default: Any, low: float = 0.0, high: float = 1.0) -> Any:
    """An argument of a transform whose number, or two ascending numbers, lie between ``low`` and ``high``."""
    return dataclasses.field(default=default, metadata={'limits': (low, high)})


@dataclasses.dataclass(eq=False)
class SeededTransform(BaseTransform):
    """A transform that acts with probability ``prob``, from one number drawn of NumPy's global state.

    Training seeds that state for every sample, and mmcv's ``cache_random_params`` repeats the number; all else follows
    from it. When the transform does not act, the results pass untouched.

    Args:
        prob: Probability of acting.
    """

    prob: float = limited(0.5)

    def __post_init__(self) -> None:  # noqa: D105
        for field in dataclasses.fields(self):
            value, is_pair = getattr(self, field.name), isinstance(field.default, tuple)
            low, high = field.metadata.get('limits', (-math.inf, math.inf))
            numbers = (low, *(value if is_pair else [value]), high)
            if len(numbers) != 3 + is_pair or any(not a <= b for a, b in itertools.pairwise(numbers)):
                kind = 'two ascending numbers' if is_pair else 'a number'
                raise InputError(f'{field.name} must be {kind} from {low} to {high}, got {value!r}')

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
