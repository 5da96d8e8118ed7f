"""Polygons first, the image when its size is known.

``LoadPolygons`` needs no image. Then mmdet's flip, resize and crop follow, for an image that is not decoded yet:
parameters, random draws, boxes and recorded keys are those of the stock classes. Without an image in the results they
move boxes and masks, set ``img_shape`` and record the geometry in ``homography_matrix`` (original to current pixels);
``RenderImage`` then produces the image in one step. With an image they are the stock transforms.
"""

import dataclasses
import math
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandomCrop, RandomFlip, Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from pycocotools import mask as coco_mask

from armbench_mmdet.datasets.images import decode_image, read_bytes, size_differs
from armbench_mmdet.errors import InputError, UnreadableImageError
from armbench_mmdet.transforms.polygons import Polygons, trace_bitmap


@TRANSFORMS.register_module()
class LoadPolygons(BaseTransform):
    """Load boxes, labels and masks as mmdet's ``LoadAnnotations`` does, with the masks kept as polygons.

    It needs no image, so it can come first: what follows only moves coordinates, and ``RenderImage`` decodes the file
    once the final geometry is known. Run-length masks become polygons of the same pixels. An instance without a valid
    polygon (at least three points) is marked as ignored, as in mmdet.

    - Required Keys: height, width; optional: instances, each with bbox, bbox_label, ignore_flag, mask
    - Added Keys: gt_bboxes (HorizontalBoxes[torch.float32]), gt_bboxes_labels (np.int64), gt_ignore_flags (bool),
      gt_masks (Polygons), ori_shape, img_shape (when no image is loaded yet)
    """

    def transform(self, results: dict) -> dict:
        """Add the annotations to ``results``."""
        height, width = results['height'], results['width']
        instances = results.get('instances', [])
        if 'img' not in results:
            results['ori_shape'] = results['img_shape'] = (height, width)
        parts = [_parts(item['mask'], height, width, str(results.get('img_path'))) for item in instances]
        boxes = np.array([item['bbox'] for item in instances], np.float32).reshape(-1, 4)
        ignored = [bool(item['ignore_flag']) or not part for item, part in zip(instances, parts, strict=True)]
        results['gt_bboxes'] = HorizontalBoxes(torch.from_numpy(boxes))
        results['gt_bboxes_labels'] = np.array([item['bbox_label'] for item in instances], np.int64)
        results['gt_ignore_flags'] = np.array(ignored, bool)
        results['gt_masks'] = Polygons(parts, height, width)
        return results


def _parts(mask: list | dict, height: int, width: int, source: str) -> list[np.ndarray]:
    """The parts of one instance: its valid polygons, or the polygon of its run-length code."""
    if not isinstance(mask, dict):
        return [np.asarray(part, np.float64) for part in mask if len(part) >= 6 and len(part) % 2 == 0]
    if tuple(mask['size']) != (height, width):
        raise InputError(f'mask size must be {(height, width)}, got {tuple(mask["size"])!r} (in {source})')
    code = coco_mask.frPyObjects(mask, height, width) if isinstance(mask['counts'], list) else mask
    return trace_bitmap(coco_mask.decode(code))


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

    _rescaled = staticmethod(mmcv.rescale_size)


@TRANSFORMS.register_module()
class FloorResize(LazyResize):
    """``LazyResize`` to torchvision's sizes: it cuts off the fraction of a pixel that keeping the ratio leaves.

    Keys as for ``LazyResize``.
    """

    @staticmethod
    def _rescaled(size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
        factor = min(min(scale) / min(size), max(scale) / max(size))
        return math.floor(size[0] * factor), math.floor(size[1] * factor)


# Resizing a whole image costs a third of warping, for each output pixel.
_RESIZE_GAIN = 3.0


def warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample an image (h, w, 3) uint8 bilinearly into a canvas (H, W, 3); its outermost pixels repeat outside it.

    Args:
        image: The image.
        matrix: (3, 3), affine, from image to canvas coordinates, both in pixels from the outer corner.
        shape: Canvas size (H, W).
    """
    height, width = shape
    mirror_x, mirror_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    if mirror_x or mirror_y:
        mirror = np.diag([-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0, 1.0])
        mirror[0, 2], mirror[1, 2] = width * mirror_x, height * mirror_y
        upright = warp(image, mirror @ matrix, shape)
        return cv2.flip(upright, -1 if mirror_x and mirror_y else int(mirror_x))
    box = np.array([-matrix[0, 2], -matrix[1, 2], matrix[0, 0] * image.shape[1], matrix[1, 1] * image.shape[0]])
    x, y, full_width, full_height = (int(value) for value in np.round(box))
    aligned = np.abs(box - (x, y, full_width, full_height)).max() < 0.01 and not matrix[0, 1] and not matrix[1, 0]
    inside = x >= 0 and y >= 0 and x + width <= full_width and y + height <= full_height
    if aligned and inside and full_width * full_height <= _RESIZE_GAIN * width * height:
        full = image
        if (full_height, full_width) != image.shape[:2]:
            full = cv2.resize(image, (full_width, full_height), interpolation=cv2.INTER_LINEAR)
        return full[y : y + height, x : x + width]
    # OpenCV counts from the centre of the first pixel, boxes and polygons from its outer corner.
    centred = matrix.copy()
    centred[:2, 2] += 0.5 * (matrix[:2, 0] + matrix[:2, 1]) - 0.5
    size = (width, height)
    return cv2.warpAffine(image, centred[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class RenderImage(BaseTransform):
    """Decode the image no larger than needed and resample it once, to where the lazy transforms moved it.

    A JPEG that ends up at no more than half, a quarter or an eighth of its size is decoded at that fraction. This
    averages pixels where bilinear resizing skips them: smoother than stock's image, and consistent as long as training
    and testing both do it. Without reduced decoding the result equals the stock path's (``LoadImageFromFile``, then
    flip, resize and crop in 8 bits) within one grey level, or a few along the border of a crop that is resized later.

    - Required Keys: img_path, img_shape, ori_shape; optional: homography_matrix
    - Added Keys: img ((H, W, 3) uint8, BGR; in memory one channel after the other, as ``PackDetInputs`` returns it)

    Args:
        reduced_decoding: Decode JPEGs at 1/2, 1/4 or 1/8 when the final scale allows it.
    """

    reduced_decoding: bool = True

    def transform(self, results: dict) -> dict:
        """Add ``img``; results that hold an image already pass unchanged."""
        if 'img' in results:
            return results
        matrix = np.asarray(results.get('homography_matrix', np.eye(3)), np.float64)
        path = Path(results['img_path'])
        content = read_bytes(path)
        scale = float(np.hypot(matrix[0, :2], matrix[1, :2]).max())
        reduction = 1
        if self.reduced_decoding and content[:2] == b'\xff\xd8':
            reduction = max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * scale <= 1)
        image = decode_image(content, path, reduction)
        height, width = results['ori_shape']
        if image.shape[:2] != (-(-height // reduction), -(-width // reduction)):
            raise UnreadableImageError(size_differs(content, path, width, height))
        warped = self._warp(image, matrix @ np.diag([reduction, reduction, 1.0]), results['img_shape'])
        results['img'] = np.stack(cv2.split(warped)).transpose(1, 2, 0)
        return results

    _warp = staticmethod(warp)


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class RenderFloatImage(RenderImage):
    """``RenderImage`` as torchvision's models see it: the whole photo, resized bilinearly, its values not rounded.

    Fine detail is skipped where ``RenderImage`` averages it; weights that were trained so want it so.

    - Required Keys: img_path, img_shape, ori_shape; optional: homography_matrix, of resizing and flipping alone
    - Added Keys: img ((H, W, 3) float32 from 0 to 255, BGR)
    """

    reduced_decoding: bool = False

    @staticmethod
    def _warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        corners = matrix @ [[0, image.shape[1]], [0, image.shape[0]], [1, 1]]
        ends = np.sort(corners[:2], axis=1)
        if np.abs(ends - [[0, shape[1]], [0, shape[0]]]).max() > 0.01 or matrix[0, 1] or matrix[1, 0]:
            raise InputError(f'RenderFloatImage takes no crop, padding or rotation, got {matrix.tolist()}')
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        resized = F.interpolate(planes, shape, mode='bilinear', align_corners=False)[0].permute(1, 2, 0).numpy()
        return resized[:: -1 if matrix[1, 1] < 0 else 1, :: -1 if matrix[0, 0] < 0 else 1]
