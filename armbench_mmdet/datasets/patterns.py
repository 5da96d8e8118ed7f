"""Patterns of whole annotation files: boxes, areas, polygons and images written by another convention than COCO's."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import cv2
import numpy as np

from armbench_mmdet.datasets import coco
from armbench_mmdet.datasets.coco import Problem

if TYPE_CHECKING:
    from armbench_mmdet.datasets.index import ColumnIndex

_NEAR_PX, _NEAR_FRAC = 2.0, 0.02
_MOST = 0.8
_MEASURED = 200


def find_patterns(index: ColumnIndex) -> list[Problem]:
    """What is written by another convention in most or some of a file's records."""
    found = {
        coco.BOXES: _mistaken_boxes(index),
        coco.AREAS: _mistaken_areas(index),
        coco.NESTED: _nested_polygons(index),
        coco.REPEATED: _repeated_images(index),
    }
    if index.usable_masks.any() and not (index.area_given & index.usable_masks & (index.areas > 0)).any():
        found[coco.NO_AREAS] = 'no annotation has an area: those of the masks are used'
    return [Problem(kind, detail) for kind, detail in found.items() if detail]


def _mistaken_boxes(index: ColumnIndex) -> str:
    """The convention by which most boxes fit their masks, if they do not by COCO's."""
    x1, y1, x2, y2 = index.extents.T
    w, h = x2 - x1, y2 - y1
    conventions = {
        'x, y, width, height': (x1, y1, w, h),
        'x1, y1, x2, y2': (x1, y1, x2, y2),
        'y, x, height, width': (y1, x1, h, w),
        'centre x, centre y, width, height': (x1 + w / 2, y1 + h / 2, w, h),
    }
    near_px = np.maximum(_NEAR_PX, _NEAR_FRAC * np.maximum(w, h))
    compared = index.box_given & index.usable_masks & (w > 0) & (h > 0)
    fits = {name: (np.abs(index.boxes.T - box) <= near_px).all(0) & compared for name, box in conventions.items()}
    right = fits.pop('x, y, width, height')
    for name, other in fits.items():
        count = int((other & ~right).sum())
        if count > _MOST * compared.sum():
            return (
                f'{count} of {compared.sum()} boxes are {name}: COCO has x, y, width, height; '
                "convert them, or remove the key 'bbox' from all annotations: then the masks' boxes are used"
            )
    return ''


def _mistaken_areas(index: ColumnIndex) -> str:
    """Whether most areas are those of the boxes or of the images, though the masks are no rectangles."""
    given = np.flatnonzero(index.area_given & index.usable_masks & (index.areas > 0))
    images = index.image_rows[given]
    sides = {'boxes': index.boxes[given, 2:].prod(1), 'images': 1.0 * index.widths[images] * index.heights[images]}
    areas = index.areas[given]
    some = given[:: len(given) // _MEASURED + 1].tolist()
    for name, other in sides.items():
        same = np.abs(areas - other) <= np.maximum(0.01 * areas, 1)
        if same.sum() <= _MOST * len(given):
            continue
        ratio = np.median([index.areas[row] / max(index.mask_area(row), 1) for row in some])
        if ratio > 1.05:
            return (
                f"{same.sum()} of {len(given)} areas are those of the {name}, {ratio:.1f} times the masks' (median), "
                "so small, medium and large are wrong; remove the key 'area' from all annotations: then the masks' "
                'areas are used'
            )
    return ''


def _nested_polygons(index: ColumnIndex) -> str:
    """Whether annotations have a polygon within another one."""
    several = np.flatnonzero(np.diff(index.ring_ranges)[:, 0] > 1).tolist()
    found = [row for row in several if _is_nested([ring.astype(np.float32) for ring in index.polygons(row)])]
    if not found:
        return ''
    about = f'{len(found)} annotations (first {index.annotation_ids[found[0]]}) have a polygon in another one'
    return f'{about}: COCO knows no holes and fills both; write masks with holes as run lengths'


def _is_nested(rings: list[np.ndarray]) -> bool:
    return any(
        all(cv2.pointPolygonTest(outer, point.tolist(), measureDist=False) >= 0 for point in inner)
        for outer in rings
        for inner in rings
        if inner is not outer and (inner.min(0) >= outer.min(0)).all() and (inner.max(0) <= outer.max(0)).all()
    )


def _repeated_images(index: ColumnIndex) -> str:
    """Whether the same file is listed as several images."""
    repeated = {name: n for name, n in Counter(map(os.path.normpath, index.file_names())).items() if n > 1}
    if not repeated:
        return ''
    name = next(iter(repeated))
    about = f'{len(repeated)} image files are listed twice or more (first {name}: {repeated[name]} times)'
    return f'{about}: each entry lacks the instances of the others; merge them into one'
