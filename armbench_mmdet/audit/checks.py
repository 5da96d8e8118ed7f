"""Checks of annotations and of images; what they find is in :data:`~armbench_mmdet.audit.findings.KINDS`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.audit.findings import LEFT_OUT_KINDS, SHOWN, Findings
from armbench_mmdet.datasets.images import decode_image, exif_orientation, image_size, read_bytes, size_differs
from armbench_mmdet.datasets.index import ColumnIndex
from armbench_mmdet.datasets.records import select_annotations
from armbench_mmdet.datasets.release import CLASSES, assign_categories
from armbench_mmdet.errors import InputError, UnreadableImageError
from armbench_mmdet.masks.encode import mask_area

_EDGE_PX = 1.0
_BOX_PX, _BOX_FRAC = 2.0, 0.02
_AREA_PX2, _AREA_FRAC = 16.0, 0.05


class AnnotationAudit:
    """Checks one annotation file.

    Args:
        index: The file.
        place: ``subset/split``, for the findings.
        findings: Where to add to.
    """

    def __init__(self, index: ColumnIndex, place: str, findings: Findings) -> None:
        self._index = index
        self._place = place
        self._findings = findings

    def run(self) -> NDArray[np.int64] | None:
        """Run all checks.

        Returns:
            ``(A,) int64`` labels, or None when the categories are not ours.
        """
        labels = self._check_categories()
        self._check_instances(np.zeros(self._index.num_annotations, np.int64) if labels is None else labels)
        self._check_masks_and_boxes()
        self._check_areas()
        self._check_repeated()
        self._check_images()
        return labels

    def _add(
        self, kind: str, found: NDArray[np.bool_], detail: str = '', values: NDArray[np.float64] | None = None
    ) -> None:
        """Add annotations, with a value of each in the detail."""
        index = self._index
        rows = np.flatnonzero(found)
        examples = [
            f'annotation {index.annotation_ids[row]} of {index.file_name(int(index.image_rows[row]))}'
            + ('' if values is None else f': {detail.format(values[row])}')
            for row in rows[:SHOWN]
        ]
        self._findings.add(kind, self._place, examples, len(rows))

    def _check_categories(self) -> NDArray[np.int64] | None:
        try:
            assignment = assign_categories(self._index)
        except InputError as error:
            self._findings.add('category-unknown', self._place, [str(error)])
            return None
        self._findings.add('category-assumed', self._place, assignment.notes)
        absent = [name for label, name in enumerate(CLASSES) if label not in assignment.labels.values()]
        self._findings.add('class-absent', self._place, absent)
        return assignment.rows

    def _check_instances(self, labels: NDArray[np.int64]) -> None:
        """What a data set leaves out, each annotation under the first reason that holds."""
        index = self._index
        kept, left_out = select_annotations(index, labels)
        if not kept.any():
            self._findings.add('no-annotations', self._place, [str(index.ann_file)])
        for reason, rows in left_out.items():
            if kind := LEFT_OUT_KINDS.get(reason):
                self._add(kind, rows)
        self._add('crowd', index.crowds)

    def _check_masks_and_boxes(self) -> None:
        index = self._index
        x1, y1, x2, y2 = index.extents.T
        width, height = index.widths[index.image_rows], index.heights[index.image_rows]
        usable = index.usable_masks
        outside = usable & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
        beyond_px = np.max([-x1, -y1, x2 - width, y2 - height, np.zeros_like(x1)], axis=0)
        self._add('mask-outside', outside)
        self._add('mask-beyond-edge', usable & ~outside & (beyond_px > _EDGE_PX), 'by {:.1f} px', beyond_px)
        self._add('box-missing', ~index.box_given)
        x, y, w, h = index.boxes.T
        off_px = np.abs([x - x1, y - y1, x + w - x2, y + h - y2]).max(0)
        allowed_px = np.maximum(_BOX_PX, _BOX_FRAC * np.maximum(x2 - x1, y2 - y1))
        compared = index.box_given & usable & (x2 > x1) & (y2 > y1)
        self._add('box-disagrees', compared & (off_px > allowed_px), 'by {:.1f} px', off_px)

    def _check_areas(self) -> None:
        """Compare with the area inside the polygon first, and count pixels only where that disagrees."""
        index = self._index
        self._add('area-missing', ~index.area_given)
        measured_px2 = polygon_areas(index)
        x1, y1, x2, y2 = index.extents.T
        slack_px2 = (x2 - x1) + (y2 - y1) + _AREA_PX2
        agrees = (np.abs(index.areas - measured_px2) <= slack_px2) & (measured_px2 > 0.5)
        suspect = index.usable_masks & ~agrees
        for row in np.flatnonzero(suspect).tolist():
            image = int(index.image_rows[row])
            segmentation = index.segmentation(row)
            if segmentation is not None:
                measured_px2[row] = mask_area(segmentation, int(index.heights[image]), int(index.widths[image]))
        self._add('mask-empty', suspect & (measured_px2 == 0))
        allowed_px2 = np.maximum(_AREA_PX2, _AREA_FRAC * measured_px2)
        differs = suspect & index.area_given & (index.areas > 0) & (np.abs(index.areas - measured_px2) > allowed_px2)
        self._add('area-disagrees', differs, 'the mask has {:.0f} px', measured_px2)

    def _check_repeated(self) -> None:
        index = self._index
        keys = np.column_stack([index.image_rows, index.category_ids, index.boxes])
        first = np.unique(keys, axis=0, return_index=True)[1]
        self._add('annotation-repeated', np.isin(np.arange(len(keys)), first, invert=True))

    def _check_images(self) -> None:
        index = self._index
        twice = [name for name, count in Counter(index.file_names()).items() if count > 1]
        self._findings.add('image-listed-twice', self._place, twice)
        without = np.flatnonzero(np.diff(index.annotation_starts) == 0)
        examples = [index.file_name(int(row)) for row in without[:SHOWN]]
        self._findings.add('image-without-annotation', self._place, examples, len(without))


def polygon_areas(index: ColumnIndex) -> NDArray[np.float64]:
    """``(A,) float64`` px², the area inside each annotation's polygons, added up; NaN where there are none."""
    areas = np.full(index.num_annotations, np.nan)
    first, last = index.ring_ranges.T
    for row in np.flatnonzero(last > first).tolist():
        areas[row] = sum(map(_polygon_area, index.polygons(row)))
    return areas


def _polygon_area(points: NDArray[np.float64]) -> float:
    """The shoelace formula with the first point as origin, for precision."""
    x, y = (points - points[0]).T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


_CHUNK = 16
_JPEG, _REDUCTION = b'\xff\xd8', 8


class ImageTask(NamedTuple):
    """An image file and the size in px that the annotation file gives."""

    path: Path
    width: int
    height: int


ImageCheck = tuple[list[tuple[str, str]], str | None]
"""What was found about an image file, kinds with details; and a digest of its content if it could be read."""


def check_images(tasks: list[ImageTask], workers: int) -> Iterator[ImageCheck]:
    """Check image files in ``workers`` processes, results in the order of the tasks."""
    if workers <= 1 or len(tasks) <= _CHUNK:
        yield from map(check_image, tasks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(check_image, tasks, chunksize=_CHUNK)


def check_image(task: ImageTask) -> ImageCheck:
    """Decode one image file as training does, a JPEG at an eighth of its size, and compare it with its task."""
    path, width, height = task
    if not path.exists():
        return [('image-missing', str(path))], None
    try:
        content = read_bytes(path)
        decode_image(content, path, _REDUCTION if content.startswith(_JPEG) else 1)
        size = image_size(content, path)
    except UnreadableImageError as error:
        return [('image-unreadable', str(error))], None
    found = []
    if size != (height, width):
        found.append(('image-size', size_differs(content, path, width, height)))
    elif (orientation := exif_orientation(content)) > 1:
        found.append(('image-exif-rotation', f'{path.name}: orientation {orientation}'))
    return found, hashlib.blake2b(content, digest_size=16).hexdigest()
