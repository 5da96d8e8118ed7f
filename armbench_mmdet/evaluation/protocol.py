"""COCO's protocol: its thresholds, limits and sizes, and detections held against ground truth as columns."""

import copy
import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.masks.runs import Runs, run_lengths, runs_of, shared_pixels

MAX_PER_IMAGE = 100
MAX_DETS = (1, 10, MAX_PER_IMAGE)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
IOU_TYPES = ('bbox', 'segm')
SCORE_THRESHOLD = 0.5  # from which on a detection counts, where single ones are judged

SIZES = {'s': (0.0, 32.0**2), 'm': (32.0**2, 96.0**2), 'l': (96.0**2, np.inf)}
"""COCO's small, medium and large, px² of area; both edges belong to both neighbours."""
COCO_IMAGE_AREA_PX = 640 * 480
"""COCO chose its sizes for such images; scaled with the image they keep what the words meant."""
DENSITY_STARTS = (1, 6, 11, 16, 21, 31)
DENSITY_NAMES = ('1-5', '6-10', '11-15', '16-20', '21-30', '31+')
"""Instances of an image, tote included, crowds not; images without any are in no bin."""
BAND = 0.02
"""Width of the band along the outline that boundary IoU is of, in diagonals of the image (Cheng et al., CVPR 2021)."""
SHAPES_AT_ONCE = 4096  # masks in memory as runs


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

    starts: np.ndarray  # (I * C + 1,) int64, where the groups begin
    given: Sequence[Any]  # the masks that were given, in their own order
    place: np.ndarray  # (N,) int64, where each stands there
    image: np.ndarray  # (N,) int32, row of its image among the rising image ids
    kind: np.ndarray  # (N,) int32, number of its class among the rising category ids
    scores: np.ndarray  # as of Shapes, like the boxes
    boxes: np.ndarray


class Common(NamedTuple):
    """What D detections have in common with the annotations that they are held against."""

    own: np.ndarray  # (D, 2) int64, the first annotation of each one's image and class, and the one after the last
    near: np.ndarray  # (D, 2) int64, the same of those that it is held against: of its class, or of all
    offsets: np.ndarray  # (D,) int64; the place of detection d and annotation g in the next two is offsets[d] + g
    shared: np.ndarray  # (V,) float64, the area that both have in common, px²
    ious: np.ndarray  # (V,) float64; with a crowd the share of the detection
    boundary_ious: np.ndarray  # (V,) float64, of masks that are held against all classes; else empty
    found_sizes: np.ndarray  # (D,) float64, area of each detection's box or mask
    truth_sizes: np.ndarray  # (G,) float64, the same of annotations


class Matching:
    """Detections held against ground truth under one IoU type.

    Args:
        ground_truth: What they are held against.
        detections: Those of other images and categories do not count.
        iou_type: ``bbox`` or ``segm``.
        is_across: Whether masks are held against those of other classes, too, and by their boundaries.

    Raises:
        InputError: A mask is of another size than its image.
    """

    def __init__(self, ground_truth: GroundTruth, detections: Shapes, iou_type: str, is_across: bool = False) -> None:
        self.iou_type = iou_type
        self.is_across = is_across
        self.ground_truth = ground_truth
        self.image_ids = np.array(sorted(ground_truth.images), np.int64)  # (I,)
        images = [ground_truth.images[number] for number in self.image_ids.tolist()]
        self.sizes = [(image.height, image.width) for image in images]  # px
        self.category_ids = np.array(sorted(ground_truth.categories), np.int64)  # (C,)
        self.classes = tuple(ground_truth.categories[number] for number in self.category_ids.tolist())
        places, count = (ground_truth.image_ids, ground_truth.category_ids), len(ground_truth.ids)
        shapes = Shapes(*places, np.zeros(count), ground_truth.boxes, ground_truth.masks)
        self.truth = self._columns(shapes, count)
        self.found = self._columns(detections, MAX_PER_IMAGE)
        self.crowd = ground_truth.crowds[self.truth.place]  # (G,) bool
        self.areas = ground_truth.areas[self.truth.place]  # (G,) float64, the annotations' own, px²

    def _columns(self, shapes: Shapes, most: int) -> Columns:
        """Shapes as columns, those of a group by falling score, equal scores in their order, so many at most."""
        image, kind = _places(self.image_ids, shapes.image_ids), _places(self.category_ids, shapes.category_ids)
        place = np.lexsort((-shapes.scores, kind, image))
        place = place[(image[place] >= 0) & (kind[place] >= 0)]
        group = image[place].astype(np.int64) * len(self.classes) + kind[place]
        is_kept = np.arange(len(place)) - np.searchsorted(group, group) < most
        starts = np.searchsorted(group[is_kept], np.arange(len(self.image_ids) * len(self.classes) + 1))
        place = place[is_kept]
        columns = (column[place] for column in (image, kind, shapes.scores, shapes.boxes))
        return Columns(starts, shapes.masks, place, *columns)

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
        shared, ious = np.zeros((2, counts.sum()))
        common = Common(own, near, offsets, shared, ious, np.zeros(len(ious) if self.is_across else 0), *sizes)
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
        masks = found, truth = self.runs(self.found, own), self.runs(self.truth, instances)
        common.found_sizes[own], common.truth_sizes[instances] = found.areas, truth.areas
        cores, sizes = masks, np.array(self.sizes)
        if self.is_across:
            cores = cores_of(found, sizes[self.found.image[own]]), cores_of(truth, sizes[self.truth.image[instances]])
        _common_masks(masks, cores, (own.start, instances.start), self.crowd, common)

    def of_boundaries(self) -> 'Matching':
        """The same masks, held against each other by their boundaries."""
        other = copy.copy(self)
        other.iou_type, other.common = 'boundary', self.common._replace(ious=self.common.boundary_ious)
        return other

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
    masks: tuple[Runs, Runs], cores: tuple[Runs, Runs], firsts: tuple[int, int], crowd: np.ndarray, common: Common
) -> None:
    """Write what the masks from the first detection and annotation on have in common.

    The IoU of boundaries is that of the bands where it is less, but with crowds, and where no threshold is in reach.
    """
    (found, truth), (found_cores, truth_cores) = masks, cores
    for i in range(found.areas.size):
        d = firsts[0] + i
        for g in range(common.near[d, 0], common.near[d, 1]):
            j, place = g - firsts[1], common.offsets[d] + g
            pixels = shared_pixels(found, i, truth, j)
            if not pixels:
                continue
            common.shared[place] = pixels
            common.ious[place] = iou = _iou(pixels, found.areas[i], truth.areas[j], crowd[g])
            if common.boundary_ious.size:
                if not crowd[g] and iou >= IOU_THRESHOLDS[0]:
                    pixels += shared_pixels(found_cores, i, truth_cores, j)
                    pixels -= shared_pixels(found_cores, i, truth, j) + shared_pixels(found, i, truth_cores, j)
                    bands = found.areas[i] - found_cores.areas[i], truth.areas[j] - truth_cores.areas[j]
                    iou = min(iou, _iou(pixels, *bands, False))
                common.boundary_ious[place] = iou


@compiled
def cores_of(masks: Runs, sizes: np.ndarray) -> Runs:
    """Masks without the bands along their outlines, in images of sizes ``(N, 2) int64``; boxes stay as they were.

    They are eroded by squares: down the columns, then across by what two columns, four columns, … have in common.
    """
    starts, areas = np.zeros_like(masks.starts), np.zeros_like(masks.areas)
    switches: Any = np.empty(1024, np.int32)
    for i in range(areas.size):
        reach = max(int(np.rint(BAND * np.hypot(sizes[i, 0], sizes[i, 1]))), 1)
        height, used, columns = sizes[i, 0], starts[i], masks.boxes[i, 2] - masks.boxes[i, 0]
        own = masks.switches[masks.starts[i] : masks.starts[i + 1]]
        room = 2 * columns * (height // (2 * reach + 1) + 1) if columns > 2 * reach else 0
        left, spare = np.empty(room, np.int32), np.empty(room, np.int32)
        count = _shrink(own, height, reach, left) if room else 0
        width = 1
        while count and width <= 2 * reach:
            step = min(width, 2 * reach + 1 - width)
            count = _meet(left[:count], step * height, spare)
            left, spare, width = spare, left, width + step
        if switches.size < used + count:
            switches = np.concatenate((switches, np.empty(switches.size + count, np.int32)))
        for k in range(count):
            switches[used + k] = left[k] - reach * height
            areas[i] += left[k] if k % 2 else -left[k]
        starts[i + 1] = used + count
    return Runs(switches[: starts[-1]].copy(), starts, areas, masks.boxes)


@compiled
def _shrink(switches: np.ndarray, height: int, reach: int, shrunk: np.ndarray) -> int:
    """Take so many pixels from both ends of each run of a column; return how many switches are left."""
    count = 0
    for i in range(0, switches.size, 2):
        start = switches[i]
        while start < switches[i + 1]:
            end = min(switches[i + 1], (start // height + 1) * height)
            if end - start > 2 * reach:
                shrunk[count], shrunk[count + 1] = start + reach, end - reach
                count += 2
            start = end
    return count


@compiled
def _meet(switches: np.ndarray, shift: int, met: np.ndarray) -> int:
    """Write what a mask has in common with itself moved on, and return how many switches that has."""
    count, i, j = 0, 0, 0
    while i < switches.size and j < switches.size:
        start, end = max(switches[i], switches[j] + shift), min(switches[i + 1], switches[j + 1] + shift)
        if start < end:
            met[count], met[count + 1] = start, end
            count += 2
        if switches[i + 1] < switches[j + 1] + shift:
            i += 2
        else:
            j += 2
    return count
