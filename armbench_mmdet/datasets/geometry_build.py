"""The masks of a COCO file on their way into the column index."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets import run_lengths
from armbench_mmdet.datasets.coco_json import STRUCTURE, CocoAnnotation, CocoImage, CocoRle, Problem
from armbench_mmdet.datasets.column_file import ColumnWriter

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
                self.missing_areas[len(self._kinds)] = run_lengths.mask_area(rings, image.height, image.width)
        return SegmentationKind.POLYGON

    def _add_rle(self, annotation: CocoAnnotation, rle: CocoRle, image: CocoImage) -> SegmentationKind:
        counts = run_lengths.decode_counts(rle.counts) if isinstance(rle.counts, str) else rle.counts
        if counts is None or not run_lengths.fits_image(counts, rle.size, image.height, image.width):
            return SegmentationKind.BROKEN
        row = len(self._kinds)
        if annotation.area is None:
            self.missing_areas[row] = float(sum(counts[1::2]))
        self._rle_boxes[row] = run_lengths.bounding_box(counts, image.height, image.width)
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
