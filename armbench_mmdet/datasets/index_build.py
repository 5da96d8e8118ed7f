"""Turns the records of a COCO file into the flat arrays of the column index."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets.coco_json import DUPLICATE_ANNOTATION, ORPHAN, CocoAnnotation, CocoImage, Problem
from armbench_mmdet.datasets.column_file import ColumnWriter
from armbench_mmdet.datasets.geometry_build import GeometryBuilder, SegmentationKind

SCHEMA_VERSION = 1
"""Part of the cache key: raise it whenever a column changes."""

_NO_BOX = (np.nan,) * 4


def build_columns(
    images: list[CocoImage], annotations: Iterable[CocoAnnotation], writer: ColumnWriter
) -> list[Problem]:
    """Write all columns of a COCO file, annotations grouped by image and else in file order.

    The columns are those of :class:`~armbench_mmdet.datasets.index.ColumnIndex`. A missing box or area is taken
    from the mask here, once.

    Args:
        images: The file's images.
        annotations: The file's annotations; read once, in file order.
        writer: A new column file; the caller finishes it.

    Returns:
        Annotations that were left out (orphans, ids that came before), and those whose ``segmentation`` is of no
        known shape, indexed as ``MISSING``.
    """
    row_of = {image.id: row for row, image in enumerate(images)}
    geometry = GeometryBuilder(writer)
    records = _Records()
    problems = geometry.problems
    for annotation in annotations:
        row = row_of.get(annotation.image_id)
        if row is None:
            problems.append(Problem(ORPHAN, f'annotation {annotation.id}: no image has id {annotation.image_id}'))
            continue
        geometry.add(annotation, images[row])
        records.add(annotation, row)
    geometry.flush()

    columns = records.columns() | geometry.columns(images, np.asarray(records.image_rows, np.int64))
    _fill_from_masks(columns, geometry)
    order = _order(columns, problems)
    for name, column in columns.items():
        writer.append(name, column[order])
    geometry.write_rings()
    _write_images(images, columns['image_rows'][order], writer)
    return problems


class _Records:
    """What annotations say apart from their masks, in file order."""

    def __init__(self) -> None:
        self.image_rows = array('i')
        self._ids = array('q')
        self._category_ids = array('q')
        self._boxes = array('d')
        self._areas = array('d')
        self._crowds = bytearray()
        self._ignores = bytearray()

    def add(self, annotation: CocoAnnotation, image_row: int) -> None:
        """Take the next annotation."""
        self.image_rows.append(image_row)
        self._ids.append(annotation.id)
        self._category_ids.append(annotation.category_id)
        self._boxes.extend(annotation.bbox or _NO_BOX)
        self._areas.append(np.nan if annotation.area is None else annotation.area)
        self._crowds.append(bool(annotation.iscrowd))
        self._ignores.append(bool(annotation.ignore))

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of these records; boxes and areas the file does not give are NaN."""
        boxes = np.asarray(self._boxes, np.float64).reshape(-1, 4)
        areas = np.asarray(self._areas, np.float64)
        return {
            'annotation_ids': np.asarray(self._ids, np.int64),
            'image_rows': np.asarray(self.image_rows, np.int32),
            'category_ids': np.asarray(self._category_ids, np.int64),
            'boxes': boxes,
            'box_given': ~np.isnan(boxes[:, 0]),
            'areas': areas,
            'area_given': ~np.isnan(areas),
            'crowds': np.frombuffer(bytes(self._crowds), np.bool_),
            'ignores': np.frombuffer(bytes(self._ignores), np.bool_),
        }


def _fill_from_masks(columns: dict[str, NDArray[Any]], geometry: GeometryBuilder) -> None:
    boxes, extents = columns['boxes'], columns['extents']
    missing = ~columns['box_given'] & (columns['segmentation_kinds'] <= SegmentationKind.COMPRESSED_RLE)
    boxes[missing] = extents[missing]
    boxes[missing, 2:] -= extents[missing, :2]
    for row, area in geometry.missing_areas.items():
        columns['areas'][row] = area


def _order(columns: dict[str, NDArray[Any]], problems: list[Problem]) -> NDArray[np.int64]:
    """Rows grouped by image, without those whose id came before."""
    ids = columns['annotation_ids']
    first = np.unique(ids, return_index=True)[1]
    is_first = np.zeros(len(ids), bool)
    is_first[first] = True
    problems += [
        Problem(DUPLICATE_ANNOTATION, f'annotation {ids[row]}: the id is taken already')
        for row in np.flatnonzero(~is_first)
    ]
    order = np.argsort(columns['image_rows'], kind='stable')
    return order[is_first[order]]


def _write_images(images: list[CocoImage], image_rows: NDArray[np.int32], writer: ColumnWriter) -> None:
    names = [image.file_name.encode() for image in images]
    count = len(images)
    writer.append('image_ids', np.fromiter((i.id for i in images), np.int64, count))
    writer.append('widths', np.fromiter((i.width for i in images), np.int32, count))
    writer.append('heights', np.fromiter((i.height for i in images), np.int32, count))
    writer.append('name_starts', _starts(np.fromiter(map(len, names), np.int64, count)))
    writer.append('name_bytes', np.frombuffer(b''.join(names), np.uint8))
    writer.append('annotation_starts', _starts(np.bincount(image_rows, minlength=count)))


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """``(N,)`` lengths to ``(N + 1,)`` offsets."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
