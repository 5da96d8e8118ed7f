"""A COCO annotation file as memory-mapped columns: parsed once, opened in milliseconds ever after."""

from __future__ import annotations

import enum
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from armbench_mmdet.datasets.cache import Columns, ColumnWriter, open_cached, read_columns
from armbench_mmdet.datasets.coco import (
    DUPLICATE_ANNOTATION,
    ORPHAN,
    STRUCTURE,
    CocoAnnotation,
    CocoCategory,
    CocoImage,
    CocoRle,
    Problem,
    drop_repeated_ids,
    garbage_collection_paused,
    parse_coco,
    raise_problems,
)
from armbench_mmdet.datasets.coco_stream import NotStreamableError, read_annotations, read_frame
from armbench_mmdet.masks import decode

FARTHEST_POLYGON = 10
"""Polygons that reach farther than this many image sizes are broken; rasterising one can take all memory."""

_BLOCK_NUMBERS = 1 << 18


class SegmentationKind(enum.IntEnum):
    """How an annotation's mask is given; only those up to ``COMPRESSED_RLE`` can be used."""

    POLYGON = 0
    RLE = 1
    COMPRESSED_RLE = 2
    MISSING = 3
    """No ``segmentation``, or null, or an empty list."""
    DEGENERATE = 4
    """Polygons, none of which has three points and an even number of coordinates."""
    BROKEN = 5
    """Run lengths that do not fit the image, or a polygon far outside it."""


class GeometryBuilder:
    """Decodes masks one by one, in file order; polygon coordinates go to the file in blocks.

    Attributes:
        problems: Annotations whose ``segmentation`` is of no known shape.
        missing_areas: Row to area of masks whose annotation gives none.
    """

    def __init__(self, writer: ColumnWriter) -> None:
        self.problems: list[Problem] = []
        self.missing_areas: dict[int, float] = {}
        self._writer = writer
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder(list[list[float]] | CocoRle | None).decode
        self._kinds = bytearray()
        self._dropped = array('i')
        self._coordinates = array('d')
        self._ring_lengths = array('i')
        self._ring_ends = array('q')
        self._rle_bytes = bytearray()
        self._rle_boxes: dict[int, tuple[float, float, float, float]] = {}
        self._rle_ends = array('q')
        self._extents: list[NDArray[np.float64]] = []
        self._flushed = (0, 0)

    def add(self, annotation: CocoAnnotation, image: CocoImage) -> None:
        """Take the mask of the next annotation."""
        try:
            value = self._decode(annotation.segmentation)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            self.problems.append(Problem(STRUCTURE, f'annotation {annotation.id}: segmentation: {error}'))
            value = None
        dropped = 0
        if type(value) is CocoRle:
            kind = self._add_rle(annotation, value, image)
        elif value:
            rings = [ring for ring in value if len(ring) >= 6 and len(ring) % 2 == 0]
            dropped = len(value) - len(rings)
            kind = self._add_polygons(annotation, rings, image)
        else:
            kind = SegmentationKind.MISSING
        self._kinds.append(kind)
        self._dropped.append(dropped)
        self._ring_ends.append(len(self._ring_lengths))
        self._rle_ends.append(len(self._rle_bytes))
        if len(self._coordinates) >= _BLOCK_NUMBERS:
            self.flush()

    def _add_polygons(self, annotation: CocoAnnotation, rings: list[list[float]], image: CocoImage) -> SegmentationKind:
        if not rings:
            return SegmentationKind.DEGENERATE
        for ring in rings:
            self._coordinates.fromlist(ring)
            self._ring_lengths.append(len(ring))
        if annotation.area is None:
            reach_px = max(image.width, image.height) * FARTHEST_POLYGON
            if all(-reach_px <= value <= reach_px for ring in rings for value in ring):
                self.missing_areas[len(self._kinds)] = decode.mask_area(rings, image.height, image.width)
        return SegmentationKind.POLYGON

    def _add_rle(self, annotation: CocoAnnotation, rle: CocoRle, image: CocoImage) -> SegmentationKind:
        counts = decode.decode_counts(rle.counts) if isinstance(rle.counts, str) else rle.counts
        if counts is None or not decode.fits_image(counts, rle.size, image.height, image.width):
            return SegmentationKind.BROKEN
        row = len(self._kinds)
        if annotation.area is None:
            self.missing_areas[row] = float(sum(counts[1::2]))
        self._rle_boxes[row] = decode.bounding_box(counts, image.height, image.width)
        if isinstance(rle.counts, str):
            self._rle_bytes += rle.counts.encode('ascii')
            return SegmentationKind.COMPRESSED_RLE
        self._rle_bytes += np.asarray(counts, '<i8').tobytes()
        return SegmentationKind.RLE

    def flush(self) -> None:
        """Write the collected coordinates and keep the extents of their polygons."""
        first_annotation, first_ring = self._flushed
        ends = np.asarray(self._ring_ends[first_annotation:], np.int64) - first_ring
        lengths = np.asarray(self._ring_lengths[first_ring:], np.int64)
        coordinates = np.asarray(self._coordinates, np.float64)
        self._writer.append('coordinates', coordinates)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        with_rings = np.flatnonzero(ends > starts)
        extents = np.full((len(ends), 4), np.nan)
        if len(with_rings):
            first_points = ((np.cumsum(lengths) - lengths) // 2)[starts[with_rings]]
            for axis in (0, 1):
                values = np.ascontiguousarray(coordinates[axis::2])
                extents[with_rings, axis] = np.minimum.reduceat(values, first_points)
                extents[with_rings, axis + 2] = np.maximum.reduceat(values, first_points)
        self._extents.append(extents)
        self._flushed = (len(self._ring_ends), len(self._ring_lengths))
        self._coordinates = array('d')

    def columns(self, images: list[CocoImage], image_rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Columns with a row for each annotation, in file order."""
        kinds = np.frombuffer(bytes(self._kinds), np.uint8).copy()
        extents = np.concatenate(self._extents)
        reach_px = np.array([max(i.width, i.height) * FARTHEST_POLYGON for i in images], float)[image_rows]
        for row, (x, y, w, h) in self._rle_boxes.items():
            extents[row] = (x, y, x + w, y + h)
        kinds[(np.abs(extents) > reach_px[:, None]).any(1)] = SegmentationKind.BROKEN
        return {
            'segmentation_kinds': kinds,
            'extents': extents,
            'dropped_rings': np.asarray(self._dropped, np.int32),
            'ring_ranges': _ranges(np.asarray(self._ring_ends, np.int64)),
            'rle_ranges': _ranges(np.asarray(self._rle_ends, np.int64)),
        }

    def write_rings(self) -> None:
        """Write the columns with a row for each polygon, and the run lengths."""
        lengths = np.asarray(self._ring_lengths, np.int64)
        self._writer.append('ring_starts', np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
        self._writer.append('rle_bytes', np.frombuffer(bytes(self._rle_bytes), np.uint8))


def _ranges(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(N,)`` ends to ``(N, 2)`` starts and ends."""
    return np.stack([np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)], ends], 1)


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


_SCHEMA = f'index-v{SCHEMA_VERSION}'
_NOTED_MB = 20


class ColumnIndex:
    """The content of a COCO file in the file's own terms; every array is read-only and mapped from the cache.

    Images keep the file's order; annotations are grouped by image, in file order within each.

    Attributes:
        image_ids: ``(I,) int64``.
        widths: ``(I,) int32`` in px; ``heights`` likewise.
        annotation_starts: ``(I + 1,) int64``; image ``i`` has the annotation rows ``[starts[i], starts[i + 1])``.
        annotation_ids: ``(A,) int64``.
        image_rows: ``(A,) int32``, row of each annotation's image.
        category_ids: ``(A,) int64``, the file's ids.
        boxes: ``(A, 4) float64``, x, y, width, height in px, taken from the mask where the file gives none (see
            ``box_given``), NaN where there is no mask either.
        areas: ``(A,) float64`` in px², likewise with ``area_given``.
        crowds: ``(A,) bool``; ``ignores`` likewise (the non-standard key ``ignore``).
        segmentation_kinds: ``(A,) uint8``, see :class:`SegmentationKind`.
        extents: ``(A, 4) float64``, the box x1, y1, x2, y2 around the mask; NaN without a mask.
        dropped_rings: ``(A,) int32``, polygons left out for having under three points or half a point.
        coordinates: ``(C,) float64``, x, y, x, y, … of all polygons.
        ring_starts: ``(R + 1,) int64``, offsets of the polygons in ``coordinates``.
        ring_ranges: ``(A, 2) int64``, first and last + 1 of each annotation's polygons in ``ring_starts``.
        categories: The file's categories, or None when it has no such key.
        ann_file: The annotation file.
        path: The mapped file.
    """

    image_ids: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    annotation_starts: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    image_rows: NDArray[np.int32]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    box_given: NDArray[np.bool_]
    areas: NDArray[np.float64]
    area_given: NDArray[np.bool_]
    crowds: NDArray[np.bool_]
    ignores: NDArray[np.bool_]
    segmentation_kinds: NDArray[np.uint8]
    extents: NDArray[np.float64]
    dropped_rings: NDArray[np.int32]
    coordinates: NDArray[np.float64]
    ring_starts: NDArray[np.int64]
    ring_ranges: NDArray[np.int64]
    name_starts: NDArray[np.int64]
    name_bytes: NDArray[np.uint8]
    rle_ranges: NDArray[np.int64]
    rle_bytes: NDArray[np.uint8]

    def __init__(self, ann_file: Path, path: Path, columns: Columns, meta: dict[str, Any]) -> None:
        self.ann_file = ann_file
        self.path = path
        categories = meta['categories']
        self.categories = None if categories is None else [CocoCategory(**entry) for entry in categories]
        for name, column in columns.items():
            setattr(self, name, column)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a path: the receiving process maps the same file."""
        return _reopen, (self.ann_file, self.path)

    def __deepcopy__(self, memo: dict[int, Any]) -> ColumnIndex:
        """Nothing here can change, so a copy is the index itself."""
        return self

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def num_annotations(self) -> int:
        """Number of annotations."""
        return len(self.annotation_ids)

    @property
    def usable_masks(self) -> NDArray[np.bool_]:
        """``(A,) bool``: the annotation has a mask that can be rasterised."""
        return self.segmentation_kinds <= SegmentationKind.COMPRESSED_RLE

    def file_name(self, row: int) -> str:
        """The ``file_name`` of an image."""
        start, end = self.name_starts[row : row + 2].tolist()
        return self.name_bytes[start:end].tobytes().decode()

    def file_names(self) -> Iterator[str]:
        """All file names, in the images' order."""
        return map(self.file_name, range(self.num_images))

    def rings(self, row: int) -> list[NDArray[np.float64]]:
        """The polygons of an annotation, ``(P, 2) float64`` each, in px."""
        first, last = self.ring_ranges[row].tolist()
        starts = self.ring_starts[first : last + 1].tolist()
        return [self.coordinates[a:b].reshape(-1, 2) for a, b in pairwise(starts)]

    def segmentation(self, row: int) -> list[list[float]] | dict[str, Any] | None:
        """An annotation's mask as the file has it, without polygons that cannot be used; None without a mask."""
        kind = self.segmentation_kinds[row]
        if kind == SegmentationKind.POLYGON:
            first, last = self.ring_ranges[row].tolist()
            starts = self.ring_starts[first : last + 1].tolist()
            return [self.coordinates[a:b].tolist() for a, b in pairwise(starts)]
        if kind not in (SegmentationKind.RLE, SegmentationKind.COMPRESSED_RLE):
            return None
        start, end = self.rle_ranges[row].tolist()
        image = self.image_rows[row]
        size = [int(self.heights[image]), int(self.widths[image])]
        content = self.rle_bytes[start:end].tobytes()
        if kind == SegmentationKind.COMPRESSED_RLE:
            return {'size': size, 'counts': content.decode('ascii')}
        return {'size': size, 'counts': np.frombuffer(content, '<i8').tolist()}


def open_index(ann_file: Path | str, cache_dir: Path | str | None = None) -> ColumnIndex:
    """Open a COCO annotation file as columns, parsing it only when the cache does not have it.

    Args:
        ann_file: The JSON file.
        cache_dir: Where parsed files are kept; by default ``ARMBENCH_CACHE``, else the user's cache directory.

    Returns:
        The index, mapped from the cache.

    Raises:
        InputError: The file is missing, is no JSON, lacks keys, has values of a wrong type, ids that occur twice,
            or annotations of images it does not list.
    """
    ann_file = Path(ann_file)

    def build(file: BinaryIO) -> None:
        size_mb = ann_file.stat().st_size / 1e6
        if size_mb >= _NOTED_MB:
            print_log(f'{ann_file}: indexing {size_mb:,.0f} MB, once', 'current', logging.INFO)
        raise_problems(write_index(ann_file, file), ann_file)

    return ColumnIndex(ann_file, *open_cached(ann_file, cache_dir, _SCHEMA, build))


def write_index(ann_file: Path, file: BinaryIO) -> list[Problem]:
    """Write the columns of a COCO file's sound records.

    Args:
        ann_file: The JSON file.
        file: A new column file.

    Returns:
        Everything that is wrong with the file's structure.
    """
    with garbage_collection_paused():
        try:
            images, categories, byte_range = read_frame(ann_file)
            problems = drop_repeated_ids(images, 'images') + drop_repeated_ids(categories or [], 'categories')
            problems += _write(images, categories, read_annotations(ann_file, byte_range), file)
        except NotStreamableError:
            file.seek(0)
            file.truncate()
            document, problems = parse_coco(ann_file.read_bytes())
            problems += _write(document.images, document.categories, document.annotations, file)
    return problems


def _write(
    images: list[CocoImage],
    categories: list[CocoCategory] | None,
    annotations: Iterable[CocoAnnotation],
    file: BinaryIO,
) -> list[Problem]:
    writer = ColumnWriter(file)
    problems = build_columns(images, annotations, writer)
    writer.finish({'categories': None if categories is None else msgspec.to_builtins(categories)})
    return problems


def _reopen(ann_file: Path, path: Path) -> ColumnIndex:
    return ColumnIndex(ann_file, path, *read_columns(path))
