"""A COCO annotation file as memory-mapped columns: parsed once, opened in milliseconds ever after."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from armbench_mmdet.datasets.coco_json import (
    CocoAnnotation,
    CocoCategory,
    CocoImage,
    Problem,
    drop_repeated_ids,
    garbage_collection_paused,
    parse_coco,
    raise_problems,
)
from armbench_mmdet.datasets.coco_stream import NotStreamableError, read_annotations, read_frame
from armbench_mmdet.datasets.column_file import Columns, ColumnWriter, read_columns
from armbench_mmdet.datasets.geometry_build import SegmentationKind
from armbench_mmdet.datasets.index_build import SCHEMA_VERSION, build_columns
from armbench_mmdet.datasets.index_cache import open_cached

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
