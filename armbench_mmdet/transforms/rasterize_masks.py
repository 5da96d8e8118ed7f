"""Polygons into bitmaps, at the size the model sees."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks

from armbench_mmdet.transforms.polygons import Polygons


@TRANSFORMS.register_module()
class RasterizeMasks(BaseTransform):
    """Draw what is left of the polygons, once. For models that need bitmaps, such as Mask2Former.

    Mask R-CNN reads polygons directly and does without.

    Required Keys:

    - gt_masks (Polygons)

    Modified Keys:

    - gt_masks (BitmapMasks[uint8])
    """

    def transform(self, results: dict) -> dict:
        """Replace ``gt_masks``; bitmaps pass unchanged."""
        masks = results['gt_masks']
        if isinstance(masks, Polygons):
            results['gt_masks'] = BitmapMasks(masks.to_ndarray(), masks.height, masks.width)
        return results
