"""Polygon-first loading and the custom augmentations; importing it registers them with mmdet."""

from armbench_mmdet.transforms.corruption import CorruptImage
from armbench_mmdet.transforms.geometry import FloorResize, LazyRandomCrop, LazyRandomFlip, LazyResize
from armbench_mmdet.transforms.loading import LoadPolygons, RenderFloatImage, RenderImage
from armbench_mmdet.transforms.polygons import Polygons
from armbench_mmdet.transforms.replace_background import ReplaceBackground
from armbench_mmdet.transforms.tote_copy_paste import ToteCopyPaste
from armbench_mmdet.transforms.tote_crop_jitter import ToteCropJitter
from armbench_mmdet.transforms.warehouse_lighting import WarehouseLighting
from armbench_mmdet.transforms.zoom_out_tote import ZoomOutTote

__all__ = [
    'CorruptImage',
    'FloorResize',
    'LazyRandomCrop',
    'LazyRandomFlip',
    'LazyResize',
    'LoadPolygons',
    'Polygons',
    'RenderFloatImage',
    'RenderImage',
    'ReplaceBackground',
    'ToteCopyPaste',
    'ToteCropJitter',
    'WarehouseLighting',
    'ZoomOutTote',
]
