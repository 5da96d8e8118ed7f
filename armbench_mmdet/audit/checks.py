"""Checks of annotations and of images."""

from __future__ import annotations

import hashlib
import io
import struct
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from armbench_mmdet.audit.findings import SHOWN, Findings
from armbench_mmdet.datasets.index import ColumnIndex, SegmentationKind
from armbench_mmdet.datasets.records import select_annotations
from armbench_mmdet.datasets.release import CLASSES, assign_categories
from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import mask_area

_EDGE_PX = 1.0
_BOX_PX, _BOX_FRAC = 2.0, 0.02
_AREA_PX2, _AREA_FRAC = 16.0, 0.05


class AnnotationAudit:
    """Checks one annotation file; see :data:`~armbench_mmdet.audit.findings.KINDS`.

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
        self._check_masks()
        self._check_boxes()
        self._check_areas()
        self._check_repeated()
        self._check_images()
        self._add('crowd', self._index.crowds)
        self._add('annotation-ignored', self._index.ignores)
        return self._check_categories()

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
        index = self._index
        try:
            assignment = assign_categories(index)
        except InputError as error:
            self._findings.add('category-unknown', self._place, [str(error)])
            return None
        self._findings.add('category-assumed', self._place, assignment.notes)
        absent = [name for label, name in enumerate(CLASSES) if label not in assignment.labels.values()]
        self._findings.add('class-absent', self._place, absent)
        if not select_annotations(index, assignment.rows)[0].any():
            self._findings.add('no-annotations', self._place, [str(index.ann_file)])
        return assignment.rows

    def _check_masks(self) -> None:
        index, kinds = self._index, self._index.segmentation_kinds
        self._add('mask-missing', kinds == SegmentationKind.MISSING)
        self._add('mask-degenerate', kinds == SegmentationKind.DEGENERATE)
        self._add('mask-broken', kinds == SegmentationKind.BROKEN)
        self._add('polygon-dropped', (index.dropped_rings > 0) & (kinds == SegmentationKind.POLYGON))
        x1, y1, x2, y2 = index.extents.T
        width, height = index.widths[index.image_rows], index.heights[index.image_rows]
        polygon = kinds == SegmentationKind.POLYGON
        outside = polygon & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
        beyond_px = np.max([-x1, -y1, x2 - width, y2 - height, np.zeros_like(x1)], axis=0)
        self._add('mask-outside', outside)
        beyond = polygon & ~outside & (beyond_px > _EDGE_PX)
        self._add('mask-beyond-edge', beyond, 'by {:.1f} px', beyond_px)

    def _check_boxes(self) -> None:
        index = self._index
        given = index.box_given
        self._add('box-missing', ~given)
        x, y, w, h = index.boxes.T
        width, height = index.widths[index.image_rows], index.heights[index.image_rows]
        inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
        tiny = (w < 1) | (h < 1)
        self._add('box-under-1-px', given & tiny)
        self._add('box-outside', given & ~tiny & ~inside)
        x1, y1, x2, y2 = index.extents.T
        off_px = np.abs([x - x1, y - y1, x + w - x2, y + h - y2]).max(0)
        allowed_px = np.maximum(_BOX_PX, _BOX_FRAC * np.maximum(x2 - x1, y2 - y1))
        compared = given & index.usable_masks & (x2 > x1) & (y2 > y1)
        self._add('box-disagrees', compared & (off_px > allowed_px), 'by {:.1f} px', off_px)

    def _check_areas(self) -> None:
        """Compare with the area inside the polygon first, and count pixels only where that disagrees."""
        index = self._index
        given = index.area_given
        usable = index.usable_masks
        self._add('area-missing', ~given)
        with np.errstate(invalid='ignore'):
            self._add('area-not-positive', given & (index.areas <= 0))
        measured_px2 = polygon_areas(index)
        x1, y1, x2, y2 = index.extents.T
        slack_px2 = (x2 - x1) + (y2 - y1) + _AREA_PX2
        suspect = usable & ~((np.abs(index.areas - measured_px2) <= slack_px2) & (measured_px2 > 0.5))
        for row in np.flatnonzero(suspect).tolist():
            image = int(index.image_rows[row])
            segmentation = index.segmentation(row)
            if segmentation is not None:
                measured_px2[row] = mask_area(segmentation, int(index.heights[image]), int(index.widths[image]))
        self._add('mask-empty', suspect & (measured_px2 == 0))
        allowed_px2 = np.maximum(_AREA_PX2, _AREA_FRAC * measured_px2)
        differs = suspect & given & (index.areas > 0) & (np.abs(index.areas - measured_px2) > allowed_px2)
        self._add('area-disagrees', differs, 'the mask has {:.0f} px', measured_px2)

    def _check_repeated(self) -> None:
        index = self._index
        keys = np.column_stack([index.image_rows, index.category_ids, index.boxes])
        order = np.lexsort(keys.T)
        same = np.zeros(len(order), bool)
        same[1:] = (keys[order[1:]] == keys[order[:-1]]).all(1)
        repeated = np.zeros(len(order), bool)
        repeated[order[same]] = True
        self._add('annotation-repeated', repeated)

    def _check_images(self) -> None:
        index = self._index
        names = Counter(index.file_names())
        twice = [name for name, count in names.items() if count > 1]
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
_DRAFT_FRAC = 8
_TRANSPOSING = {5, 6, 7, 8}

# What Pillow raises on hostile or damaged files.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error,
                  MemoryError, Image.DecompressionBombError)  # fmt: skip


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
    """Decode one image file and compare it with its task.

    JPEGs are decoded at an eighth of their size: the whole stream is read, so a truncated file is found all the same.
    """
    name = task.path.name
    try:
        data = task.path.read_bytes()
    except FileNotFoundError:
        return [('image-missing', str(task.path))], None
    except OSError as error:
        return [('image-unreadable', f'{name}: {error.strerror}')], None
    content = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            rotation = image.getexif().get(ExifTags.Base.Orientation, 1)
            image.draft(None, (max(1, size[0] // _DRAFT_FRAC), max(1, size[1] // _DRAFT_FRAC)))
            image.load()
    except UnidentifiedImageError:
        kind, why = ('image-unreadable', 'no image format') if data else ('image-truncated', 'the file is empty')
        return [(kind, f'{name}: {why}')], content
    except _DECODE_ERRORS as error:
        kind = 'image-truncated' if 'truncated' in str(error).lower() else 'image-unreadable'
        return [(kind, f'{name}: {error}')], content
    found = []
    if rotation not in (None, 1):
        found.append(('image-exif-rotation', f'{name}: orientation {rotation}'))
    if size != (task.width, task.height):
        turned = ' (turned by EXIF it fits)' if rotation in _TRANSPOSING and size == (task.height, task.width) else ''
        wrong = f'{name}: {size[0]}×{size[1]} px, the JSON says {task.width}×{task.height}{turned}'
        found.append(('image-size', wrong))
    return found, content
