"""Instances of one sample, and its random numbers, as the augmentations share them."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.geometry import LazyRandomCrop
from armbench_mmdet.transforms.polygons import Polygons

PER_INSTANCE_KEYS = ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')


class _WindowCrop(LazyRandomCrop):
    """``RandomCrop`` with nothing left to chance."""

    def __init__(self, x1: int, y1: int, x2: int, y2: int, recompute_bbox: bool) -> None:
        super().__init__((x2 - x1, y2 - y1), allow_negative_crop=True, recompute_bbox=recompute_bbox)
        self.offset = (y1, x1)

    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        return self.offset


def largest_tote(results: dict, tote_label: int) -> np.ndarray | None:
    """(4,) float32 x1, y1, x2, y2 of the largest box with the tote's label, None where there is none."""
    boxes = results['gt_bboxes'].tensor.numpy()[results['gt_bboxes_labels'] == tote_label]
    if not len(boxes):
        return None
    return boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()]


def crop_to(results: dict, x1: int, y1: int, x2: int, y2: int) -> dict:
    """Crop image (if there is one), boxes and masks to a window of the canvas; what leaves it is removed."""
    cropped = _WindowCrop(x1, y1, x2, y2, recompute_bbox='gt_masks' in results).transform(results)
    return keep_visible(results if cropped is None else cropped)


def keep_visible(results: dict) -> dict:
    """Remove the instances of which no pixel is left. Ignored ones go too: they hold no training target."""
    if 'gt_masks' in results and len(results['gt_masks']):
        select(results, results['gt_masks'].areas > 0)
    return results


def select(results: dict, keep: np.ndarray) -> None:
    """Keep the instances that (N,) bool ``keep`` says, in place."""
    for key in PER_INSTANCE_KEYS:
        if key in results:
            results[key] = results[key][keep]


def redraw(results: dict, bitmaps: np.ndarray, changed: np.ndarray) -> None:
    """Give a sample new masks (N, H, W) uint8, of the kind it had, and tight boxes where (N,) bool ``changed`` says."""
    are_bitmaps = isinstance(results['gt_masks'], BitmapMasks)
    masks = BitmapMasks(bitmaps, *bitmaps.shape[1:]) if are_bitmaps else Polygons.from_bitmaps(bitmaps)
    boxes, tight = results['gt_bboxes'].tensor, masks.get_bboxes('hbox').tensor
    results['gt_masks'] = masks
    results['gt_bboxes'] = HorizontalBoxes(torch.where(torch.from_numpy(changed)[:, None], tight, boxes))


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
