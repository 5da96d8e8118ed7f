"""Patterns of whole annotation files: boxes, areas, polygons and images written by another convention than COCO's."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets import coco
from armbench_mmdet.datasets.coco import Problem

if TYPE_CHECKING:
    from armbench_mmdet.datasets.index import ColumnIndex

_NEAR_PX, _NEAR_FRAC = 2.0, 0.02
_MOST = 0.8
_MEASURED = 200


def mistaken_boxes(index: ColumnIndex) -> list[Problem]:
    """A problem if most boxes fit their masks only when read by another convention."""
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
            return [
                Problem(
                    coco.BOXES,
                    f'{count} of {compared.sum()} boxes are {name}: COCO has x, y, width, height; '
                    "convert them, or remove the key 'bbox' from all annotations: then the masks' boxes are used",
                )
            ]
    return []


def odd_areas(index: ColumnIndex) -> list[Problem]:
    """A note if areas are taken from the masks because none is positive, or if they are those of boxes or images."""
    given = np.flatnonzero(index.area_given & index.usable_masks & (index.areas > 0))
    if not len(given):
        is_read = index.usable_masks.any()
        return [Problem(coco.NO_AREAS, 'no annotation has an area: those of the masks are used')] if is_read else []
    images = index.image_rows[given]
    sides: dict[str, NDArray[Any]] = {
        'boxes': index.boxes[given, 2:],
        'images': np.stack([index.widths[images], index.heights[images]], 1),
    }
    areas = index.areas[given]
    for name, side in sides.items():
        same = np.abs(areas - side.prod(1)) <= np.maximum(0.01 * areas, 1)
        if same.mean() <= _MOST:
            continue
        some = given[:: -(-len(given) // _MEASURED)].tolist()
        ratios = [index.areas[row] / max(index.mask_area(row), 1) for row in some]
        if np.median(ratios) > 1.05:  # masks may be rectangles
            about = (
                f'{int(same.sum())} of {len(given)} areas are those of the {name}, {np.median(ratios):.1f} times the'
            )
            remedy = "remove the key 'area' from all annotations: then the masks' areas are used"
            return [Problem(coco.AREAS, f"{about} masks' (median), so small, medium and large are wrong; {remedy}")]
    return []


def nested_polygons(index: ColumnIndex) -> list[Problem]:
    """A note if annotations have a polygon within another one."""
    several = np.flatnonzero(np.diff(index.ring_ranges)[:, 0] > 1).tolist()
    found = [row for row in several if _is_nested([ring.astype(np.float32) for ring in index.polygons(row)])]
    if not found:
        return []
    about = f'{len(found)} annotations (first {index.annotation_ids[found[0]]}) have a polygon in another one'
    return [Problem(coco.NESTED, f'{about}: COCO knows no holes and fills both; write masks with holes as run lengths')]


def repeated_images(index: ColumnIndex) -> list[Problem]:
    """A note if the same file is listed as several images."""
    repeated = {name: n for name, n in Counter(map(os.path.normpath, index.file_names())).items() if n > 1}
    if not repeated:
        return []
    name = next(iter(repeated))
    about = f'{len(repeated)} image files are listed twice or more (first {name}: {repeated[name]} times)'
    return [Problem(coco.REPEATED, f'{about}: each entry lacks the instances of the others; merge them into one')]


def _is_nested(rings: list[np.ndarray]) -> bool:
    return any(
        all(cv2.pointPolygonTest(outer, point.tolist(), measureDist=False) >= 0 for point in inner)
        for outer in rings
        for inner in rings
        if inner is not outer and (inner.min(0) >= outer.min(0)).all() and (inner.max(0) <= outer.max(0)).all()
    )
