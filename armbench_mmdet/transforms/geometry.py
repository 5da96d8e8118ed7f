"""mmdet's flip, resize and crop for an image that is not decoded yet.

Parameters, random draws, boxes and recorded keys are those of the stock classes. Without an image in the results
they move boxes and masks, set ``img_shape`` and record the geometry in ``homography_matrix`` (original to current
pixels); ``RenderImage`` then produces the image in one step. With an image they are the stock transforms.
"""

import math

import mmcv
import numpy as np
from mmdet.datasets.transforms import RandomCrop, RandomFlip, Resize
from mmdet.registry import TRANSFORMS

from armbench_mmdet.errors import UnreadableImageError


class _WithoutImage:
    """Lets a stock transform run on the shape of the image alone."""

    def transform(self, results: dict) -> dict | None:
        if 'img' in results:
            return super().transform(results)  # type: ignore[misc]
        # An array without memory of its own: flipping and slicing it costs nothing.
        results['img'] = np.broadcast_to(np.uint8(0), results['img_shape'])
        out = super().transform(results)  # type: ignore[misc]
        if out is not None:
            del out['img']
        return out


@TRANSFORMS.register_module()
class LazyRandomFlip(_WithoutImage, RandomFlip):
    """``RandomFlip`` that does not need the image.

    - Required Keys: img_shape; optional: gt_bboxes, gt_masks
    - Modified Keys: gt_bboxes, gt_masks
    - Added Keys: flip, flip_direction, homography_matrix
    """


@TRANSFORMS.register_module()
class LazyRandomCrop(_WithoutImage, RandomCrop):
    """``RandomCrop`` that does not need the image.

    - Required Keys: img_shape, gt_bboxes; optional: gt_bboxes_labels, gt_masks, gt_ignore_flags
    - Modified Keys: img_shape, gt_bboxes, gt_bboxes_labels, gt_masks, gt_ignore_flags
    - Added Keys: homography_matrix
    """


@TRANSFORMS.register_module()
class LazyResize(_WithoutImage, Resize):
    """``Resize`` that does not need the image; ``RandomResize(resize_type='LazyResize', …)`` draws its scale.

    - Required Keys: img_shape; optional: gt_bboxes, gt_masks
    - Modified Keys: img_shape, gt_bboxes, gt_masks
    - Added Keys: scale, scale_factor, keep_ratio, homography_matrix
    """

    def _resize_img(self, results: dict) -> None:
        if results['img'].ndim == 3:
            super()._resize_img(results)
            return
        height, width = results['img_shape']
        size = tuple(results['scale'])
        if self.keep_ratio:
            size = self._rescaled((width, height), size)
        if not all(size):
            raise UnreadableImageError(f'{width}x{height} is too narrow: nothing is left at the input size')
        results['img_shape'] = (size[1], size[0])
        results['scale_factor'] = (size[0] / width, size[1] / height)
        results['keep_ratio'] = self.keep_ratio

    def _rescaled(self, size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
        return mmcv.rescale_size(size, scale)


@TRANSFORMS.register_module()
class FloorResize(LazyResize):
    """``LazyResize`` to torchvision's sizes: it cuts off the fraction of a pixel that keeping the ratio leaves.

    Keys as for ``LazyResize``.
    """

    def _rescaled(self, size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
        factor = min(min(scale) / min(size), max(scale) / max(size))
        return math.floor(size[0] * factor), math.floor(size[1] * factor)
