"""A COCO annotation file as memory-mapped columns: parsed once, opened in milliseconds ever after."""

from __future__ import annotations

import enum
import gc
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from armbench_mmdet.datasets import coco
from armbench_mmdet.datasets.cache import Columns, Content, open_cached
from armbench_mmdet.datasets.coco import CocoAnnotation, CocoCategory, CocoImage, CocoRle, Problem
from armbench_mmdet.masks import encode
from armbench_mmdet.masks.runs import run_lengths

FARTHEST_POLYGON = 10
"""Polygons that reach farther than this many image sizes are broken; rasterising one can take all memory."""

SCHEMA_VERSION = 5
"""Part of the cache key: raise it whenever a column changes."""

_NO_BOX = (np.nan,) * 4
_NOTED_MB = 20


class SegmentationKind(enum.IntEnum):
    """How an annotation's mask is given; only polygons and run lengths can be used.

    ``DEGENERATE``: polygons, none of which has three points and an even number of coordinates. ``BROKEN``: run lengths
    that do not fit the image, or a polygon far outside it.
    """

    POLYGON = 0
    RLE = 1
    MISSING = 2
    DEGENERATE = 3
    BROKEN = 4


@dataclass(frozen=True, eq=False)
class ColumnIndex:
    """The content of a COCO file in the file's own terms; every array is read-only and mapped from the cache.

    Images keep the file's order; annotations are grouped by image, in file order within each. There are I images, A
    annotations, R polygons and C coordinates.
    """

    ann_file: Path
    path: Path | None  # the folder of the mapped columns, None if they lie in memory
    categories: list[CocoCategory] | None  # None when the file has no such key
    notes: list[Problem]  # what is odd about the file as a whole, and how it was read
    image_ids: NDArray[np.int64]  # (I,)
    widths: NDArray[np.int32]  # (I,), in px
    heights: NDArray[np.int32]
    names: NDArray[np.bytes_]  # (I,), the file names in UTF-8
    annotation_starts: NDArray[np.int64]  # (I + 1,); image i has the annotation rows [starts[i], starts[i + 1])
    annotation_ids: NDArray[np.int64]  # (A,), the file's
    image_rows: NDArray[np.int32]  # (A,), row of each annotation's image
    category_ids: NDArray[np.int64]  # (A,), the file's
    boxes: NDArray[np.float64]  # (A, 4), x, y, width, height in px; the mask's where not given, NaN without a mask
    box_given: NDArray[np.bool_]  # (A,)
    areas: NDArray[np.float64]  # (A,), in px²; the mask's where not given
    area_given: NDArray[np.bool_]  # (A,)
    crowds: NDArray[np.bool_]  # (A,)
    ignores: NDArray[np.bool_]  # (A,), the non-standard key "ignore"
    segmentation_kinds: NDArray[np.uint8]  # (A,), see SegmentationKind
    extents: NDArray[np.float64]  # (A, 4), the box x1, y1, x2, y2 around the mask; NaN without a mask
    dropped_rings: NDArray[np.int32]  # (A,), polygons left out for having under three points or half a point
    polygon_starts: NDArray[np.int64]  # (A + 1,), offsets of each annotation's polygons in ring_starts
    ring_starts: NDArray[np.int64]  # (R + 1,), offsets of the polygons in coordinates
    coordinates: NDArray[np.float64]  # (C,), x, y, x, y, … of all polygons
    rle_starts: NDArray[np.int64]  # (A + 1,), offsets of each annotation's compressed run lengths in rle_bytes
    rle_bytes: NDArray[np.uint8]

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle as a path: the receiving process maps the same files."""
        return (open_index, (self.ann_file, self.path.parents[1])) if self.path else super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> ColumnIndex:
        """Nothing here can change, so a copy is the index itself."""
        return self

    @property
    def usable_masks(self) -> NDArray[np.bool_]:
        """``(A,) bool``: the annotation has a mask that can be rasterised."""
        return self.segmentation_kinds <= SegmentationKind.RLE

    def file_name(self, row: int) -> str:
        """The ``file_name`` of an image."""
        return self.names[row].decode()

    def file_names(self) -> Iterator[str]:
        """All file names, in the images' order."""
        return map(bytes.decode, self.names.tolist())

    def polygons(self, row: int) -> list[NDArray[np.float64]]:
        """The polygons of an annotation, ``(P, 2) float64`` each, in px; none for run lengths."""
        first, last = self.polygon_starts[row : row + 2].tolist()
        starts = self.ring_starts[first : last + 1].tolist()
        return [self.coordinates[a:b].reshape(-1, 2) for a, b in pairwise(starts)]

    def segmentation(self, row: int) -> list[list[float]] | dict[str, Any] | None:
        """An annotation's mask: the polygons that can be used, or compressed run lengths; None without a mask."""
        kind = self.segmentation_kinds[row]
        if kind == SegmentationKind.POLYGON:
            return [polygon.ravel().tolist() for polygon in self.polygons(row)]
        if kind != SegmentationKind.RLE:
            return None
        start, end = self.rle_starts[row : row + 2].tolist()
        return {'size': list(self._size(row)), 'counts': self.rle_bytes[start:end].tobytes().decode('ascii')}

    def mask_area(self, row: int) -> float:
        """The pixels of an annotation's mask, as pycocotools counts them; 0 without a mask."""
        mask = self.segmentation(row)
        return 0.0 if mask is None else float(coco_mask.area(run_lengths(mask, *self._size(row))))

    def _size(self, row: int) -> tuple[int, int]:
        """Height and width of an annotation's image."""
        image = self.image_rows[row]
        return int(self.heights[image]), int(self.widths[image])


def open_index(ann_file: Path | str, cache_dir: Path | str | None = None) -> ColumnIndex:
    """Open a COCO annotation file as columns, parsing it only when the cache does not have it.

    The cache lies in ``cache_dir``, else in ``ARMBENCH_CACHE``, else in the user's cache directory.

    Raises:
        InputError: The file is missing, is no JSON, lacks keys, has values of a wrong type, ids that occur twice, or
            annotations of images it does not list.
    """
    ann_file = Path(ann_file)

    def build() -> Content:
        size_mb = ann_file.stat().st_size / 1e6
        if size_mb >= _NOTED_MB:
            print_log(f'{ann_file}: indexing {size_mb:,.0f} MB, once', 'current', logging.INFO)
        index, problems = read_sound_records(ann_file)
        coco.raise_problems(problems, ann_file)
        columns = {name: value for name, value in vars(index).items() if isinstance(value, np.ndarray)}
        return columns, {'categories': msgspec.to_builtins(index.categories), 'notes': index.notes}

    path, (columns, meta) = open_cached(ann_file, cache_dir, f'index-v{SCHEMA_VERSION}', build)
    categories = msgspec.convert(meta['categories'], list[CocoCategory] | None)
    return ColumnIndex(ann_file, path, categories, [Problem(*note) for note in meta['notes']], **columns)


def read_sound_records(ann_file: Path) -> tuple[ColumnIndex, list[Problem]]:
    """Parse a COCO file into memory, leaving broken records out; and everything that is wrong with its structure."""
    gc.disable()  # parsing makes millions of objects, and no cycles
    try:
        return _parse(ann_file)
    finally:
        gc.enable()


def _parse(ann_file: Path) -> tuple[ColumnIndex, list[Problem]]:
    document, found = coco.parse_coco(ann_file.read_bytes())
    images = document.images
    row_of = {image.id: row for row, image in enumerate(images)}
    annotations = []
    for annotation in document.annotations:
        if annotation.image_id not in row_of:
            found.append(Problem(coco.ORPHAN, f'annotation {annotation.id}: no image has id {annotation.image_id}'))
        elif annotation.bbox and len(annotation.bbox) != 4:
            found.append(Problem(coco.STRUCTURE, f'annotation {annotation.id}: bbox must have 4 numbers or none'))
        else:
            annotations.append(annotation)
    annotations.sort(key=lambda annotation: row_of[annotation.image_id])
    image_rows = np.array([row_of[annotation.image_id] for annotation in annotations], np.int32)
    columns: Columns = {
        'image_ids': np.array([image.id for image in images], np.int64),
        'widths': np.array([image.width for image in images], np.int32),
        'heights': np.array([image.height for image in images], np.int32),
        'names': np.array([image.file_name.encode() for image in images], np.bytes_),
        'annotation_starts': _starts(np.bincount(image_rows, minlength=len(images))),
        'image_rows': image_rows,
        **_record_columns(annotations),
        **_mask_columns(annotations, [images[row] for row in image_rows.tolist()], found),
    }
    index = ColumnIndex(ann_file, None, document.categories, [], **columns)
    _fill_from_masks(index)
    found += find_patterns(index)
    index.notes.extend(problem for problem in found if problem.kind in coco.NOTES)
    return index, [problem for problem in found if problem.kind not in coco.NOTES]


def _record_columns(annotations: Sequence[CocoAnnotation]) -> Columns:
    """What annotations say apart from their masks; NaN where they do not, and for areas of which none is positive."""
    corners = chain.from_iterable(a.bbox or _NO_BOX for a in annotations)
    boxes = np.fromiter(corners, np.float64, 4 * len(annotations)).reshape(-1, 4)
    boxes[~np.isfinite(boxes).all(1)] = np.nan
    areas = np.array([a.area for a in annotations], np.float64)  # None becomes NaN
    areas[~np.isfinite(areas) | (areas.max(initial=0) <= 0)] = np.nan
    return {
        'annotation_ids': np.array([a.id for a in annotations], np.int64),
        'category_ids': np.array([a.category_id for a in annotations], np.int64),
        'boxes': boxes,
        'box_given': ~np.isnan(boxes[:, 0]),
        'areas': areas,
        'area_given': ~np.isnan(areas),
        'crowds': np.array([bool(a.iscrowd) for a in annotations], np.bool_),
        'ignores': np.array([bool(a.ignore) for a in annotations], np.bool_),
    }


def _mask_columns(annotations: Sequence[CocoAnnotation], images: Sequence[CocoImage], found: list[Problem]) -> Columns:
    """Decode the mask of each annotation, one by one: as Python objects, all of them would fill the memory."""
    parse = msgspec.json.Decoder(list[list[float]] | CocoRle | None).decode
    flat: list[int] = []
    counts, lengths, numbers = array('q'), array('q'), array('d')
    runs: dict[int, tuple[SegmentationKind, bytes, tuple[float, float, float, float]]] = {}
    for row, annotation in enumerate(annotations):
        try:
            mask: Any = parse(annotation.segmentation)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            mask = _read_oddly(annotation.segmentation)
            if mask is None:
                found.append(Problem(coco.STRUCTURE, f'annotation {annotation.id}: segmentation: {error}'))
            else:
                flat.append(annotation.id)
        if type(mask) is CocoRle:
            runs[row] = _read_runs(mask, images[row])
            mask = None
        counts.append(len(mask or ()))
        for polygon in mask or ():
            lengths.append(len(polygon))
            numbers.fromlist(polygon)
    if flat:
        about = f'{len(flat)} masks (first of annotation {flat[0]})'
        found.append(Problem(coco.FLAT, f'{about} have numbers as text, or a polygon not in a list: read as polygons'))
    columns = _polygon_columns(np.asarray(counts), np.asarray(lengths), np.asarray(numbers))
    code_lengths = np.zeros(len(annotations), np.int64)
    for row, (kind, code, box) in runs.items():
        columns['segmentation_kinds'][row], columns['extents'][row], code_lengths[row] = kind, box, len(code)
    codes = b''.join(code for _, code, _ in runs.values())
    return {**columns, 'rle_starts': _starts(code_lengths), 'rle_bytes': np.frombuffer(codes, np.uint8)}


def _read_oddly(mask: msgspec.Raw) -> Any:
    """A mask with numbers as text, or of one polygon that lies in no list, as others write it; else None."""
    with suppress(msgspec.ValidationError, UnicodeDecodeError):
        return msgspec.json.decode(mask, type=list[list[float]] | CocoRle, strict=False)
    with suppress(msgspec.ValidationError, UnicodeDecodeError):
        return [msgspec.json.decode(mask, type=list[float], strict=False)]
    return None


def _read_runs(rle: CocoRle, image: CocoImage) -> tuple[SegmentationKind, bytes, tuple[float, float, float, float]]:
    """Kind, compressed run lengths, and the box x1, y1, x2, y2 around them."""
    counts = encode.decode_counts(rle.counts) if isinstance(rle.counts, str) else rle.counts
    if not encode.fits_image(counts, rle.size, image.height, image.width):
        return SegmentationKind.BROKEN, b'', _NO_BOX
    compressed = coco_mask.frPyObjects({'size': rle.size, 'counts': counts}, *rle.size)
    x, y, w, h = coco_mask.toBbox(compressed).tolist()
    return SegmentationKind.RLE, compressed['counts'], (x, y, x + w, y + h)


def _polygon_columns(given: NDArray[np.int64], lengths: NDArray[np.int64], numbers: NDArray[np.float64]) -> Columns:
    """The columns of polygons that can be used, given the number each mask has, their lengths and coordinates."""
    is_usable = (lengths >= 6) & (lengths % 2 == 0)
    usable = np.bincount(np.repeat(np.arange(len(given)), given)[is_usable], minlength=len(given))
    kinds = [SegmentationKind.MISSING, SegmentationKind.DEGENERATE, SegmentationKind.POLYGON]
    coordinates = numbers if is_usable.all() else numbers[np.repeat(is_usable, lengths)]
    polygon_starts, ring_starts = _starts(usable), _starts(lengths[is_usable])
    extents = np.full((len(given), 4), np.nan)
    if len(coordinates):
        rows = np.flatnonzero(usable)
        first_points = ring_starts[polygon_starts[rows]] // 2
        for axis, values in enumerate((coordinates[::2], coordinates[1::2])):
            extents[rows, axis] = np.minimum.reduceat(values, first_points)
            extents[rows, axis + 2] = np.maximum.reduceat(values, first_points)
    return {
        'segmentation_kinds': np.array(kinds, np.uint8)[np.sign(given) + np.sign(usable)],
        'extents': extents,
        'dropped_rings': (given - usable).astype(np.int32),
        'polygon_starts': polygon_starts,
        'ring_starts': ring_starts,
        'coordinates': coordinates,
    }


def _fill_from_masks(index: ColumnIndex) -> None:
    """Mark polygons that reach too far as broken; take boxes and areas from the masks where the file has none."""
    reach_px = np.maximum(index.widths, index.heights)[index.image_rows] * float(FARTHEST_POLYGON)
    index.segmentation_kinds[(np.abs(index.extents) > reach_px[:, None]).any(1)] = SegmentationKind.BROKEN
    boxless = index.usable_masks & ~index.box_given
    index.boxes[boxless] = index.extents[boxless]
    index.boxes[boxless, 2:] -= index.extents[boxless, :2]
    for row in np.flatnonzero(index.usable_masks & ~index.area_given).tolist():
        index.areas[row] = index.mask_area(row)


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """``(N,)`` lengths to ``(N + 1,)`` offsets."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


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
    several = np.flatnonzero(np.diff(index.polygon_starts) > 1).tolist()
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
