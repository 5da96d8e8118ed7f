"""Polygon-first loading and the custom augmentations; importing it registers them with mmdet."""

import armbench_mmdet.transforms.corruption
import armbench_mmdet.transforms.loading
import armbench_mmdet.transforms.replace_background
import armbench_mmdet.transforms.tote_copy_paste
import armbench_mmdet.transforms.tote_crop_jitter
import armbench_mmdet.transforms.warehouse_lighting
import armbench_mmdet.transforms.zoom_out_tote  # noqa: F401
