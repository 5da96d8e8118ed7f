"""COCO's protocol: its thresholds, limits and sizes, and detections held against ground truth as columns."""

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.evaluation.boundary import cores, lower
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.masks.runs import Runs, run_lengths, runs_of, shared_pixels

MAX_PER_IMAGE = 100
MAX_DETS = (1, 10, MAX_PER_IMAGE)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
IOU_TYPES = ('bbox', 'segm')

SIZES = {'s': (0.0, 32.0**2), 'm': (32.0**2, 96.0**2), 'l': (96.0**2, np.inf)}
"""COCO's small, medium and large, px² of area; both edges belong to both neighbours."""

COCO_IMAGE_AREA_PX = 640 * 480
"""COCO chose its sizes for such images. In a 2448×2048 photo nearly every object is "large" by them; scaled with the
image, up to 1/300, 3/100 and more of its area, they keep what the words meant, whatever the camera's resolution.
"""

SHAPES_AT_ONCE = 4096
"""Masks in memory as runs, so that a large data set needs no more of it than a small one."""


class Shapes(NamedTuple):
    """N detections as columns."""

    image_ids: np.ndarray  # (N,) int64
    category_ids: np.ndarray  # (N,) int64
    scores: np.ndarray  # (N,) float64
    boxes: np.ndarray  # (N, 4) float64, x, y, width and height in px
    masks: Sequence[Any]  # N segmentations in any of COCO's forms; not looked at where boxes are evaluated

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> 'Shapes':
        """COCO's results; for a box that they do not have stands 0."""
        return cls(
            np.array([row['image_id'] for row in rows], np.int64),
            np.array([row['category_id'] for row in rows], np.int64),
            np.array([row['score'] for row in rows], np.float64),
            np.array([row.get('bbox', (0, 0, 0, 0)) for row in rows], np.float64).reshape(-1, 4),
            [row.get('segmentation') for row in rows],
        )


class Columns(NamedTuple):
    """Shapes by image and class; those of one image and class are a *group*."""

    place: np.ndarray  # (N,) int64, where each stands in the shapes that were given
    image: np.ndarray  # (N,) int32, row of its image among the rising image ids
    kind: np.ndarray  # (N,) int32, number of its class among the rising category ids
    starts: np.ndarray  # (I * C + 1,) int64, where the groups begin
    scores: np.ndarray  # as of Shapes, like the boxes
    boxes: np.ndarray
    given: Sequence[Any]  # the masks that were given, in their own order


class Common(NamedTuple):
    """What D detections have in common with the annotations that they are held against."""

    own: np.ndarray  # (D, 2) int64, the first annotation of each one's image and class, and the one after the last
    near: np.ndarray  # (D, 2) int64, the same of those that it is held against: of its class, or of all
    offsets: np.ndarray  # (D,) int64; the place of detection d and annotation g in the next two is offsets[d] + g
    shared: np.ndarray  # (V,) float64, the area that both have in common, px²
    ious: np.ndarray  # (V,) float64; with a crowd the share of the detection
    found_sizes: np.ndarray  # (D,) float64, area of each detection's box or mask
    truth_sizes: np.ndarray  # (G,) float64, the same of annotations


class Matching:
    """Detections held against ground truth under one IoU type.

    Args:
        ground_truth: What they are held against.
        detections: Those of other images and categories do not count.
        iou_type: ``bbox``, ``segm`` or, of masks, ``boundary``.
        is_across: Whether masks are held against those of other classes, too.

    Attributes:
        image_ids: ``(I,) int64``, rising.
        sizes: Height and width of each, px.
        category_ids: ``(C,) int64``, rising.
        classes: The names of these.
        truth: The annotations as columns, those of a group in their order.
        found: The detections as columns, those of a group by falling score, equal scores in their order, at most 100.
        crowd: ``(G,) bool``, of ``truth``.
        areas: ``(G,) float64``, the annotations' own, px².

    Raises:
        InputError: A mask is of another size than its image.
    """

    def __init__(self, ground_truth: GroundTruth, detections: Shapes, iou_type: str, is_across: bool = False) -> None:
        self.iou_type = iou_type
        self.is_across = is_across
        self.ground_truth = ground_truth
        self.image_ids = np.array(sorted(ground_truth.images), np.int64)
        images = [ground_truth.images[number] for number in self.image_ids.tolist()]
        self.sizes = [(image.height, image.width) for image in images]
        self.category_ids = np.array(sorted(ground_truth.categories), np.int64)
        self.classes = tuple(ground_truth.categories[number] for number in self.category_ids.tolist())
        places, count = (ground_truth.image_ids, ground_truth.category_ids), len(ground_truth.ids)
        shapes = Shapes(*places, np.zeros(count), ground_truth.boxes, ground_truth.masks)
        self.truth = self._columns(shapes, count)
        self.found = self._columns(detections, MAX_PER_IMAGE)
        self.crowd = ground_truth.crowds[self.truth.place]
        self.areas = ground_truth.areas[self.truth.place]

    def _columns(self, shapes: Shapes, most: int) -> Columns:
        image, kind = _places(self.image_ids, shapes.image_ids), _places(self.category_ids, shapes.category_ids)
        place = np.lexsort((-shapes.scores, kind, image))
        place = place[(image[place] >= 0) & (kind[place] >= 0)]
        group = image[place].astype(np.int64) * len(self.classes) + kind[place]
        is_kept = np.arange(len(place)) - np.searchsorted(group, group) < most
        starts = np.searchsorted(group[is_kept], np.arange(len(self.image_ids) * len(self.classes) + 1))
        place = place[is_kept]
        boxes = shapes.boxes[place]
        return Columns(place, image[place], kind[place], starts, shapes.scores[place], boxes, shapes.masks)

    def group(self, image_id: int, category_id: int) -> int:
        """The number of an image's and class's group."""
        row, kind = np.searchsorted(self.image_ids, image_id), np.searchsorted(self.category_ids, category_id)
        return int(row * len(self.classes) + kind)

    @functools.cached_property
    def orders(self) -> list[np.ndarray]:
        """For each class its rows of ``found``, by falling score; equal scores by image."""
        own = [np.flatnonzero(self.found.kind == kind) for kind in range(len(self.classes))]
        return [rows[np.argsort(-self.found.scores[rows], kind='stable')] for rows in own]

    @functools.cached_property
    def common(self) -> Common:
        """What detections have in common with annotations of their image."""
        found, truth, classes = self.found, self.truth, len(self.classes)
        group = found.image.astype(np.int64) * classes + found.kind
        own = np.column_stack([truth.starts[group], truth.starts[group + 1]])
        near = truth.starts[::classes][np.column_stack([found.image, found.image + 1])] if self.is_across else own
        counts = near[:, 1] - near[:, 0]
        offsets = np.cumsum(counts) - counts - near[:, 0]
        sizes = found.boxes[:, 2:].prod(1), truth.boxes[:, 2:].prod(1)
        common = Common(own, near, offsets, np.zeros(counts.sum()), np.zeros(counts.sum()), *sizes)
        if self.iou_type == 'bbox':
            _common_boxes(found.boxes, truth.boxes, self.crowd, common)
        else:
            starts = np.column_stack([found.starts[::classes], truth.starts[::classes]])
            firsts = np.searchsorted(starts.sum(1), np.arange(0, starts[-1].sum(), SHAPES_AT_ONCE))
            parts = pairwise(starts[[*firsts, -1]].tolist())
            map_threads(lambda part: self._fill_masks(common, *map(slice, *part)), parts)
        return common

    def _fill_masks(self, common: Common, own: slice, instances: slice) -> None:
        """Find what the masks of some images have in common."""
        found, truth = self.runs(self.found, own), self.runs(self.truth, instances)
        common.found_sizes[own], common.truth_sizes[instances] = found.areas, truth.areas
        first, crowd = instances.start, self.crowd[instances]
        places = common.near[own] - first, common.offsets[own] + first
        _common_masks(found, truth, crowd, *places, common.shared, common.ious)
        if self.iou_type == 'boundary':
            sizes = np.array(self.sizes)
            inner = cores(found, sizes[self.found.image[own]]), cores(truth, sizes[self.truth.image[instances]])
            lower(found, truth, *inner, crowd, *places, common.ious)

    def runs(self, columns: Columns, rows: np.ndarray | slice) -> Runs:
        """The masks of some rows of ``found`` or ``truth``."""
        masks = [columns.given[place] for place in columns.place[rows].tolist()]
        return runs_of(masks, [self.sizes[row] for row in columns.image[rows].tolist()])

    def rle(self, columns: Columns, row: int) -> dict[str, Any]:
        """The mask of a row of ``found`` or ``truth`` as compressed run lengths."""
        return run_lengths(columns.given[columns.place[row]], *self.sizes[columns.image[row]])


def _places(known: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where the ids stand among rising ones, -1 for those that do not; ``(N,) int32``."""
    places = np.searchsorted(known, ids).astype(np.int32)
    return np.where(np.append(known, 0)[places] == ids, places, -1)


@compiled
def _iou(shared: float, found: float, truth: float, is_crowd: bool) -> float:
    return shared / (found if is_crowd else found + truth - shared)


@compiled
def _common_boxes(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray, common: Common) -> None:
    """Write what boxes have in common."""
    for d in range(common.near.shape[0]):
        for g in range(common.near[d, 0], common.near[d, 1]):
            wide = min(found[d, 0] + found[d, 2], truth[g, 0] + truth[g, 2]) - max(found[d, 0], truth[g, 0])
            high = min(found[d, 1] + found[d, 3], truth[g, 1] + truth[g, 3]) - max(found[d, 1], truth[g, 1])
            if wide > 0 and high > 0:
                iou = _iou(wide * high, common.found_sizes[d], common.truth_sizes[g], crowd[g])
                common.ious[common.offsets[d] + g] = iou


@compiled
def _common_masks(
    found: Runs,
    truth: Runs,
    crowd: np.ndarray,
    near: np.ndarray,
    offsets: np.ndarray,
    shared: np.ndarray,
    ious: np.ndarray,
) -> None:
    """Write what masks have in common, see :class:`Common`."""
    for d in range(near.shape[0]):
        for g in range(near[d, 0], near[d, 1]):
            pixels = shared_pixels(found, d, truth, g)
            if pixels:
                shared[offsets[d] + g] = pixels
                ious[offsets[d] + g] = _iou(pixels, found.areas[d], truth.areas[g], crowd[g])
