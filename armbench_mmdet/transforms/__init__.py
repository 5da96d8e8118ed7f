"""Polygon-first loading and the custom augmentations; importing it registers them with mmdet."""

from armbench_mmdet.transforms import (
    corruption,
    loading,
    replace_background,
    tote_copy_paste,
    tote_crop_jitter,
    warehouse_lighting,
    zoom_out_tote,
)

__all__ = [
    'corruption',
    'loading',
    'replace_background',
    'tote_copy_paste',
    'tote_crop_jitter',
    'warehouse_lighting',
    'zoom_out_tote',
]
