"""Polygon-first loading and the custom augmentations; importing it registers them with mmdet."""

from armbench_mmdet.transforms.augmentations import (
    ReplaceBackground,
    ToteCopyPaste,
    ToteCropJitter,
    WarehouseLighting,
    ZoomOutTote,
)
from armbench_mmdet.transforms.corruption import CorruptImage
from armbench_mmdet.transforms.loading import (
    FloorResize,
    LazyRandomCrop,
    LazyRandomFlip,
    LazyResize,
    LoadPolygons,
    RenderFloatImage,
    RenderImage,
)
from armbench_mmdet.transforms.polygons import Polygons

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
