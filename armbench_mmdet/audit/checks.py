"""Checks of annotations and of images; what they find is in :data:`~armbench_mmdet.audit.findings.KINDS`."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.audit.findings import LEFT_OUT_KINDS, SHOWN, Findings
from armbench_mmdet.datasets import coco
from armbench_mmdet.datasets.images import (
    EXIF_IS_OBEYED,
    decode_image,
    exif_orientation,
    image_size,
    is_dark,
    read_bytes,
    size_differs,
)
from armbench_mmdet.datasets.index import ColumnIndex
from armbench_mmdet.datasets.records import select_annotations
from armbench_mmdet.datasets.release import CLASSES, CategoryMap, assign_categories
from armbench_mmdet.errors import InputError, UnreadableImageError

_EDGE_PX, _ROUNDING_PX = 1.0, 0.01
_BOX_PX, _BOX_FRAC = 2.0, 0.02
_AREA_PX2, _AREA_FRAC = 16.0, 0.05
_LIMIT = 100
_TOLD_BY = {'area-disagrees': coco.AREAS, 'area-missing': coco.NO_AREAS, 'box-disagrees': coco.BOXES}
"""Kinds that are not listed one by one where a pattern of the whole file says them."""


Found = tuple[str, NDArray[np.bool_], str, NDArray[np.float64] | None]
"""A kind, which of the annotations are of it, and a number of each with the words around it."""


def check_annotations(
    index: ColumnIndex, place: str, findings: Findings, category_map: CategoryMap | None = None
) -> NDArray[np.int64] | None:
    """Check one annotation file.

    Args:
        index: The file.
        place: ``subset/split``, for the findings.
        findings: Where to add to.
        category_map: See :func:`~armbench_mmdet.datasets.release.assign_categories`.

    Returns:
        ``(A,) int64`` labels, or None when the categories are not ours.
    """
    labels = None
    try:
        assignment = assign_categories(index, category_map)
    except InputError as error:
        findings.add('category-unknown', place, [str(error)])
    else:
        labels = assignment.rows
        findings.add('category-assumed', place, assignment.notes)
        absent = [name for label, name in enumerate(CLASSES) if label not in assignment.labels.values()]
        findings.add('class-absent', place, absent)
    for note in index.notes:
        findings.add(note.kind, place, [note.detail])
    without = np.flatnonzero(np.diff(index.annotation_starts) == 0).tolist()
    findings.add('image-without-annotation', place, map(index.file_name, without[:SHOWN]), len(without))
    known = np.zeros(index.num_annotations, np.int64) if labels is None else labels
    kept, left_out = select_annotations(index, known)
    used = kept & ~index.crowds
    if not used.any():
        findings.add('no-annotations', place, [f'{index.crowds.sum()} of {len(used)} are crowd regions'])
    for label, name in enumerate(CLASSES if labels is not None else ()):
        number, crowds = (int(rows.sum()) for rows in (known == label, (known == label) & index.crowds))
        if number and not used[known == label].any():
            findings.add('class-unusable', place, [f'{name}: {number} annotations, {crowds} of them crowd regions'])
    crowded = np.bincount(index.image_rows[used] * 2 + known[used], minlength=2 * index.num_images) > _LIMIT
    rows = np.unique(np.flatnonzero(crowded) // 2).tolist()
    findings.add('image-crowded', place, map(index.file_name, rows[:SHOWN]), len(rows))
    excluded = [
        (LEFT_OUT_KINDS[reason], rows, '', None) for reason, rows in left_out.items() if reason in LEFT_OUT_KINDS
    ]
    for kind, found, words, values in [*excluded, *_check_masks_and_boxes(index), *_check_areas(index)]:
        if findings.has(_TOLD_BY.get(kind, ''), place):
            continue
        rows = np.flatnonzero(found)
        examples = [
            f'annotation {index.annotation_ids[row]} of {index.file_name(int(index.image_rows[row]))}'
            + ('' if values is None else words.format(values[row]))
            for row in rows[:SHOWN]
        ]
        findings.add(kind, place, examples, len(rows))
    return labels


def _check_masks_and_boxes(index: ColumnIndex) -> Iterator[Found]:
    usable, given = index.usable_masks, index.box_given
    x1, y1, x2, y2 = index.extents.T
    width, height = index.widths[index.image_rows], index.heights[index.image_rows]
    outside = usable & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
    beyond_px = np.max([-x1, -y1, x2 - width, y2 - height, np.zeros_like(x1)], axis=0)
    yield 'mask-outside', outside, '', None
    yield 'mask-beyond-edge', usable & ~outside & (beyond_px > _EDGE_PX), ': by {:.1f} px', beyond_px
    x, y, w, h = index.boxes.T
    off_px = np.abs([x - x1, y - y1, x + w - x2, y + h - y2]).max(0)
    allowed_px = np.maximum(_BOX_PX, _BOX_FRAC * np.maximum(x2 - x1, y2 - y1))
    compared = given & usable & (x2 > x1) & (y2 > y1)
    yield 'box-missing', ~given, '', None
    yield 'box-beyond-edge', given & (np.min([x, y, width - x - w, height - y - h], axis=0) < -_ROUNDING_PX), '', None
    yield 'box-disagrees', compared & (off_px > allowed_px), ': by {:.1f} px', off_px
    keys = np.column_stack([index.image_rows, index.category_ids, index.boxes])
    first = np.unique(keys, axis=0, return_index=True)[1]
    yield 'annotation-repeated', np.isin(np.arange(len(keys)), first, invert=True), '', None
    yield 'crowd', index.crowds, '', None


def _check_areas(index: ColumnIndex) -> Iterator[Found]:
    """Compare with the area inside the polygon first, and count pixels only where that disagrees."""
    measured_px2 = np.full(index.num_annotations, np.nan)
    for row in np.flatnonzero(np.diff(index.ring_ranges)[:, 0]).tolist():
        measured_px2[row] = sum(cv2.contourArea(points.astype(np.float32)) for points in index.polygons(row))
    x1, y1, x2, y2 = index.extents.T
    slack_px2 = (x2 - x1) + (y2 - y1) + _AREA_PX2
    suspect = index.usable_masks & ~((np.abs(index.areas - measured_px2) <= slack_px2) & (measured_px2 > 0.5))
    for row in np.flatnonzero(suspect).tolist():
        measured_px2[row] = index.mask_area(row)
    allowed_px2 = np.maximum(_AREA_PX2, _AREA_FRAC * measured_px2)
    differs = suspect & index.area_given & (index.areas > 0) & (np.abs(index.areas - measured_px2) > allowed_px2)
    yield 'area-missing', ~index.area_given, '', None
    yield 'mask-empty', suspect & (measured_px2 == 0), '', None
    yield 'area-disagrees', differs, ': the mask has {:.0f} px', measured_px2


_CHUNK = 16
_JPEG, _REDUCTION = b'\xff\xd8', 8
_TRANSPOSING = 5


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
    try:
        content = read_bytes(path)
        image = decode_image(content, path, _REDUCTION if content.startswith(_JPEG) else 1)
        size = image_size(content, path)
    except UnreadableImageError as error:
        return [('image-unreadable' if path.exists() else 'image-missing', str(error))], None
    found = []
    if size != (height, width):
        found.append(('image-size', size_differs(content, path, width, height)))
    elif (orientation := exif_orientation(content)) > 1 and (orientation < _TRANSPOSING or width == height):
        found.append(('image-exif-rotation', f'{path} {EXIF_IS_OBEYED.format(orientation)}'))
    if is_dark(content, image):
        found.append(('image-dark', str(path)))
    return found, hashlib.blake2b(content, digest_size=16).hexdigest()
