"""COCO's protocol: its thresholds, limits and sizes, and detections held against ground truth as columns."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.masks.runs import Runs, runs_of, shared_pixels

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

Shape = Mapping[str, Any]


class Columns(NamedTuple):
    """Detections or annotations by image and class; those of one image and class are a *group*.

    Attributes:
        place: ``(N,) int64``, where each stands in the list that was given.
        image: ``(N,) int32``, row of its image among the rising image ids.
        kind: ``(N,) int32``, number of its class among the rising category ids.
        starts: ``(I * C + 1,) int64``, where the groups begin.
    """

    place: np.ndarray
    image: np.ndarray
    kind: np.ndarray
    starts: np.ndarray


class Common(NamedTuple):
    """The area that each detection has in common with each annotation of its group, px².

    Attributes:
        found_starts: ``(K + 1,) int64``, where the detections of the groups begin.
        truth_starts: ``(K + 1,) int64``, where the annotations of the groups begin.
        starts: ``(K + 1,) int64``, where the values of the groups begin, a row of annotations for each detection.
        values: ``(V,) float64``.
        found_sizes: ``(D,) float64``, area of each detection's box or mask.
        truth_sizes: ``(G,) float64``, the same of annotations.
    """

    found_starts: np.ndarray
    truth_starts: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    found_sizes: np.ndarray
    truth_sizes: np.ndarray

    def block(self, group: int) -> np.ndarray:
        """The values of a group, ``(D, G)``."""
        shape = [starts[group + 1] - starts[group] for starts in (self.found_starts, self.truth_starts)]
        return self.values[self.starts[group] : self.starts[group + 1]].reshape(shape)


class Matching:
    """Detections held against ground truth under one IoU type.

    Args:
        ground_truth: COCO-format dict with ``images``, ``annotations`` and ``categories``; ``area`` is filled.
            It is not changed.
        detections: COCO results: ``image_id``, ``category_id``, ``score`` and ``bbox`` (xywh) for boxes or
            ``segmentation`` for masks. They are not changed.
        iou_type: ``bbox`` or ``segm``.
        is_across: Whether classes are held against each other, too; :attr:`across` then costs nothing more.

    Attributes:
        images: By id.
        image_ids: ``(I,) int64``, rising.
        sizes: Height and width of each, px.
        classes: The names of the C classes, by rising category id.
        annotations: As given.
        detections: As given.
        truth: The annotations as columns, those of a group in their order.
        found: The detections as columns, those of a group by falling score, equal scores in their order, at most 100.
        scores: ``(D,) float64``, of ``found``.
        crowd: ``(G,) bool``, of ``truth``.
        areas: ``(G,) float64``, the annotations' own, px².

    Raises:
        InputError: A mask is of another size than its image.
    """

    def __init__(
        self, ground_truth: Mapping[str, Any], detections: Sequence[Shape], iou_type: str, is_across: bool = False
    ) -> None:
        self.iou_type = iou_type
        self.is_across = is_across
        self.images: dict[int, dict[str, Any]] = {image['id']: image for image in ground_truth['images']}
        self.image_ids = np.array(sorted(self.images), np.int64)
        by_row = map(self.images.__getitem__, self.image_ids.tolist())
        self.sizes = [(image['height'], image['width']) for image in by_row]
        categories = sorted(ground_truth['categories'], key=lambda category: category['id'])
        self.classes = tuple(category['name'] for category in categories)
        self.category_ids = [category['id'] for category in categories]
        self.annotations: Sequence[Shape] = ground_truth['annotations']
        self.detections = detections
        self.truth = self._columns(self.annotations, np.zeros(len(self.annotations)), len(self.annotations))
        scores = np.fromiter(_values(detections, 'score'), np.float64, len(detections))
        self.found = self._columns(detections, -scores, MAX_PER_IMAGE)
        self.scores = scores[self.found.place]
        self.crowd = np.array([bool(one.get('iscrowd')) for one in self.annotations], bool)[self.truth.place]
        areas = np.fromiter(_values(self.annotations, 'area'), np.float64, len(self.annotations))
        self.areas = areas[self.truth.place]

    def _columns(self, shapes: Sequence[Shape], order: np.ndarray, most: int) -> Columns:
        rows = {image_id: row for row, image_id in enumerate(self.image_ids.tolist())}
        kinds = {category: kind for kind, category in enumerate(self.category_ids)}
        image = np.fromiter(map(rows.get, _values(shapes, 'image_id'), repeat(-1)), np.int32, len(shapes))
        kind = np.fromiter(map(kinds.get, _values(shapes, 'category_id'), repeat(-1)), np.int32, len(shapes))
        place = np.lexsort((order, kind, image))
        place = place[(image[place] >= 0) & (kind[place] >= 0)]
        group = image[place].astype(np.int64) * len(kinds) + kind[place]
        is_kept = np.arange(len(place)) - np.searchsorted(group, group) < most
        starts = np.searchsorted(group[is_kept], np.arange(len(rows) * len(kinds) + 1))
        place = place[is_kept]
        return Columns(place, image[place], kind[place], starts)

    def group(self, image_id: int, category_id: int) -> int:
        """The number of an image's and class's group."""
        row = int(np.searchsorted(self.image_ids, image_id))
        return row * len(self.classes) + self.category_ids.index(category_id)

    @functools.cached_property
    def orders(self) -> list[np.ndarray]:
        """For each class its rows of ``found``, by falling score; equal scores by image."""
        own = [np.flatnonzero(self.found.kind == kind) for kind in range(len(self.classes))]
        return [rows[np.argsort(-self.scores[rows], kind='stable')] for rows in own]

    @functools.cached_property
    def common(self) -> Common:
        """What detections have in common with annotations of their image and class."""
        if not self.is_across:
            return self._common_by(1)
        wide, found, truth = self.across, self.found.starts, self.truth.starts
        starts = np.concatenate([[0], np.cumsum(np.diff(found) * np.diff(truth))])
        common = Common(found, truth, starts, np.empty(starts[-1]), wide.found_sizes, wide.truth_sizes)
        _take_own(wide, common, len(self.classes))
        return common

    @functools.cached_property
    def across(self) -> Common:
        """What detections have in common with annotations of their image, in groups of an image."""
        return self._common_by(len(self.classes))

    def _common_by(self, classes: int) -> Common:
        found_starts, truth_starts = self.found.starts[::classes], self.truth.starts[::classes]
        blocks = np.diff(found_starts) * np.diff(truth_starts)
        starts = np.concatenate([[0], np.cumsum(blocks)])
        sizes = np.zeros(len(self.found.place)), np.zeros(len(self.truth.place))
        common = Common(found_starts, truth_starts, starts, np.zeros(starts[-1]), *sizes)
        if self.iou_type == 'bbox':
            self._fill_boxes(common)
        else:
            map_threads(lambda ends: self._fill_masks(common, *ends), parts_of(found_starts + truth_starts))
        return common

    def _fill_boxes(self, common: Common) -> None:
        both = []
        for shapes, columns in ((self.detections, self.found), (self.annotations, self.truth)):
            sides = np.fromiter(chain.from_iterable(_values(shapes, 'bbox')), np.float64, 4 * len(shapes))
            both.append(sides.reshape(-1, 4)[columns.place])
        for sizes, boxes in zip((common.found_sizes, common.truth_sizes), both, strict=True):
            sizes[:] = boxes[:, 2] * boxes[:, 3]
        _common_boxes(*both, common.found_starts, common.truth_starts, common.values)

    def _fill_masks(self, common: Common, first: int, last: int) -> None:
        """Find the common pixels of the groups from ``first`` on, up to ``last``."""
        values = common.values[common.starts[first] : common.starts[last]]
        both, starts = [], []
        for shapes, columns, bounds, sizes in (
            (self.detections, self.found, common.found_starts[first : last + 1], common.found_sizes),
            (self.annotations, self.truth, common.truth_starts[first : last + 1], common.truth_sizes),
        ):
            own = slice(bounds[0], bounds[-1])
            both.append(self.runs(shapes, columns, own))
            sizes[own] = both[-1].areas
            starts.append(bounds - bounds[0])
        found, truth = both
        _common_masks(found, truth, *starts, values)

    def runs(self, shapes: Sequence[Shape], columns: Columns, rows: np.ndarray | slice) -> Runs:
        """The masks of some rows of ``found``, which are detections, or of ``truth``, which are annotations."""
        segmentations = [shapes[place]['segmentation'] for place in columns.place[rows].tolist()]
        return runs_of(segmentations, [self.sizes[row] for row in columns.image[rows].tolist()])


def parts_of(shapes: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last of the groups that are worked on at once, of shapes that begin in each; ``(K + 1,) int64``."""
    firsts = np.searchsorted(shapes, np.arange(0, shapes[-1], SHAPES_AT_ONCE)).tolist()
    return pairwise([*firsts, len(shapes) - 1])


def _values(shapes: Sequence[Shape], key: str) -> Iterator[Any]:
    return map(itemgetter(key), shapes)


@compiled
def _take_own(wide: Common, common: Common, classes: int) -> None:
    """Take the blocks of each class from those of the images."""
    for group in range(len(common.starts) - 1):
        image, at = group // classes, common.starts[group]
        head, tail = wide.truth_starts[image], wide.truth_starts[image + 1]
        first, last = common.truth_starts[group] - head, common.truth_starts[group + 1] - head
        for d in range(common.found_starts[group], common.found_starts[group + 1]):
            row = wide.starts[image] + (d - wide.found_starts[image]) * (tail - head)
            common.values[at : at + last - first] = wide.values[row + first : row + last]
            at += last - first


@compiled
def _common_boxes(
    found: np.ndarray, truth: np.ndarray, found_starts: np.ndarray, truth_starts: np.ndarray, values: np.ndarray
) -> None:
    """Write the common areas of boxes xywh, ``(D, 4)`` and ``(G, 4)`` float64, group after group."""
    at = 0
    for group in range(len(found_starts) - 1):
        for d in range(found_starts[group], found_starts[group + 1]):
            for g in range(truth_starts[group], truth_starts[group + 1]):
                wide = min(found[d, 0] + found[d, 2], truth[g, 0] + truth[g, 2]) - max(found[d, 0], truth[g, 0])
                high = min(found[d, 1] + found[d, 3], truth[g, 1] + truth[g, 3]) - max(found[d, 1], truth[g, 1])
                if wide > 0 and high > 0:
                    values[at] = wide * high
                at += 1


@compiled
def _common_masks(
    found: Runs, truth: Runs, found_starts: np.ndarray, truth_starts: np.ndarray, values: np.ndarray
) -> None:
    """Write the pixels that masks have in common, group after group."""
    at = 0
    for group in range(len(found_starts) - 1):
        for d in range(found_starts[group], found_starts[group + 1]):
            for g in range(truth_starts[group], truth_starts[group + 1]):
                values[at] = shared_pixels(found, d, truth, g)
                at += 1
