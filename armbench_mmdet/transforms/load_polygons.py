"""Annotations into arrays, without drawing any mask."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from pycocotools import mask as coco_mask

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.bitmap_trace import trace_bitmap
from armbench_mmdet.transforms.polygons import Polygons


@TRANSFORMS.register_module()
class LoadPolygons(BaseTransform):
    """Load boxes, labels and masks as mmdet's ``LoadAnnotations`` does, with the masks kept as polygons.

    It needs no image, so it can come first: the transforms after it then only move coordinates, and
    ``RenderImage`` decodes the file once the final geometry is known. Run-length masks become polygons that
    cover exactly the same pixels. An instance without a valid polygon (at least three points) is marked as
    ignored, as in mmdet.

    Required Keys:

    - height
    - width
    - instances (optional)

      - bbox
      - bbox_label
      - ignore_flag
      - mask

    Added Keys:

    - gt_bboxes (HorizontalBoxes[torch.float32])
    - gt_bboxes_labels (np.int64)
    - gt_ignore_flags (bool)
    - gt_masks (Polygons)
    - ori_shape, img_shape (when no image is loaded yet)

    Args:
        centred: Where the masks are read when they are resized, see
            :class:`armbench_mmdet.transforms.polygons.Polygons`. False gives stock mmdet's targets.
    """

    def __init__(self, centred: bool = False) -> None:
        self.centred = centred

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
        results['gt_masks'] = Polygons(parts, height, width, self.centred)
        return results

    def __repr__(self) -> str:
        """Name and arguments."""
        return f'{type(self).__name__}(centred={self.centred})'


def _parts(mask: list | dict, height: int, width: int, source: str) -> list[np.ndarray]:
    """The parts of one instance: its valid polygons, or the polygon of its run-length code."""
    if not isinstance(mask, dict):
        return [np.asarray(part, np.float64) for part in mask if len(part) >= 6 and len(part) % 2 == 0]
    if tuple(mask['size']) != (height, width):
        raise InputError(f'mask size must be {(height, width)}, got {tuple(mask["size"])!r} (in {source})')
    code = coco_mask.frPyObjects(mask, height, width) if isinstance(mask['counts'], list) else mask
    return trace_bitmap(coco_mask.decode(code))
