"""Polygons as instance masks, and their rasterisation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import get_box_type
from mmdet.structures.bbox.base_boxes import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from armbench_mmdet.jit import compiled


class Polygons(PolygonMasks):
    """Polygon masks in flat arrays, with the rows and columns at which a bitmap of them would have been read.

    mmdet turns polygons into bitmaps first and resizes, flips and crops those. Each of these steps only picks
    rows and columns of the first bitmap, so it is enough to remember which: ``columns`` and ``rows`` hold the
    source index of each column and row of the canvas, −1 where there is none. Drawing at the end gives exactly
    the bits of the stock path without its large bitmaps, and what was cropped away stays away.

    ``areas`` and ``get_bboxes`` speak of covered pixels, as :class:`mmdet.structures.mask.BitmapMasks` does.
    Every operation returns a new object; the vertices are shared and never change.

    Args:
        masks: One list of parts for each instance; a part is a flat array x1, y1, x2, y2, … in pixels.
        height: Height of the canvas in pixels.
        width: Width of the canvas in pixels.
        centred: Which source pixel resizing picks: False the one at the upper left corner of the target pixel, as
            OpenCV's nearest neighbour (what stock mmdet trains on, up to half a target pixel off the image); True
            the one at its centre, where the image is read.
    """

    def __init__(self, masks: Sequence[Sequence[np.ndarray]], height: int, width: int, centred: bool = False) -> None:
        rings = [np.asarray(part, np.float64).reshape(-1, 2) for instance in masks for part in instance]
        self.source = np.concatenate(rings) if rings else np.empty((0, 2))
        self.parts = np.cumsum([0, *map(len, rings)], dtype=np.int64)
        self.instances = np.cumsum([0, *map(len, masks)], dtype=np.int64)
        self.source_shape = (height, width)
        self.columns, self.rows = np.arange(width), np.arange(height)
        self.scale, self.shift = np.ones(2), np.zeros(2)
        self.centred = centred
        self._stats: np.ndarray | None = None

    @classmethod
    def from_bitmaps(cls, bitmaps: np.ndarray, centred: bool = False) -> Polygons:
        """Polygons that draw exactly the given bitmaps.

        Args:
            bitmaps: (N, H, W) uint8 or bool.
            centred: See the class.
        """
        height, width = bitmaps.shape[1:]
        return cls([trace_bitmap(bitmap) for bitmap in bitmaps], height, width, centred)

    @classmethod
    def cat(cls, masks: Sequence[PolygonMasks]) -> Polygons:
        """Instances of several masks that share one canvas, geometry included."""
        first = masks[0]
        for other in masks[1:]:
            if other.source_shape != first.source_shape or not np.array_equal(other.columns, first.columns):
                raise ValueError('masks must share one canvas and one geometry to be joined')
        new = copy.copy(first)
        new._take([part for group in masks for part in group._source_parts()])
        return new

    def _moved(self, columns: np.ndarray, rows: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> Polygons:
        """The same instances, seen through other columns and rows."""
        new = copy.copy(self)
        new.columns, new.rows, new.scale, new.shift, new._stats = columns, rows, scale, shift, None
        return new

    def _source_parts(self) -> list[list[np.ndarray]]:
        """Each instance's parts, (V, 2) in source pixels."""
        rings = [self.source[a:b] for a, b in zip(self.parts[:-1], self.parts[1:], strict=True)]
        return [rings[a:b] for a, b in zip(self.instances[:-1], self.instances[1:], strict=True)]

    def _take(self, nested: list[list[np.ndarray]]) -> None:
        """Hold these instances instead, in place."""
        plain = Polygons(nested, 0, 0)
        self.source, self.parts, self.instances, self._stats = plain.source, plain.parts, plain.instances, None

    @property
    def coords(self) -> np.ndarray:
        """(V, 2) float64, all vertices in pixels of the canvas; they may lie outside it."""
        return self.source * self.scale + self.shift

    @property
    def height(self) -> int:
        """Height of the canvas in pixels."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """Width of the canvas in pixels."""
        return len(self.columns)

    @property
    def masks(self) -> list[list[np.ndarray]]:
        """The polygons as mmdet's nested lists; they may reach beyond the canvas."""
        return [[(part * self.scale + self.shift).reshape(-1) for part in parts] for parts in self._source_parts()]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.instances) - 1

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Iterate over the instances' lists of parts."""
        return iter(self.masks)

    def __getitem__(self, index: int | slice | Sequence | np.ndarray | torch.Tensor) -> Polygons:
        """Some of the instances, chosen as NumPy would choose them."""
        chosen = np.atleast_1d(np.arange(len(self))[np.asarray(index) if not isinstance(index, slice) else index])
        if len(chosen) == len(self) and (chosen == np.arange(len(self))).all():
            return self
        nested, new = self._source_parts(), copy.copy(self)
        new._take([nested[i] for i in chosen])
        return new

    def resize(self, out_shape: tuple[int, int], interpolation: str = 'nearest') -> Polygons:
        """Scale to ``out_shape`` (h, w)."""
        factor = np.array([out_shape[1] / self.width, out_shape[0] / self.height])
        columns = pick(self.columns, out_shape[1], self.centred)
        rows = pick(self.rows, out_shape[0], self.centred)
        return self._moved(columns, rows, self.scale * factor, self.shift * factor)

    def rescale(self, scale: float | tuple[int, int], interpolation: str = 'nearest') -> Polygons:
        """Scale as large as possible within ``scale``, keeping the aspect ratio."""
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize((height, width))

    def flip(self, flip_direction: str = 'horizontal') -> Polygons:
        """Mirror horizontally, vertically or (``'diagonal'``) both."""
        across = np.array([flip_direction in ('horizontal', 'diagonal'), flip_direction in ('vertical', 'diagonal')])
        columns = self.columns[::-1] if across[0] else self.columns
        rows = self.rows[::-1] if across[1] else self.rows
        size = np.array([self.width, self.height])
        scale, shift = np.where(across, -self.scale, self.scale), np.where(across, size - self.shift, self.shift)
        return self._moved(columns, rows, scale, shift)

    def crop(self, bbox: np.ndarray) -> Polygons:
        """Keep the integer box x1, y1, x2, y2 of the canvas, at least one pixel of it."""
        limits = np.array([self.width, self.height] * 2)
        x1, y1, x2, y2 = np.clip(np.asarray(bbox).astype(int), 0, limits).tolist()
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        return self._moved(self.columns[x1:x2], self.rows[y1:y2], self.scale, self.shift - np.array([x1, y1]))

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> Polygons:
        """Enlarge the canvas to the right and below; nothing appears there."""
        return self.expand(*out_shape, 0, 0)

    def expand(self, expanded_h: int, expanded_w: int, top: int, left: int) -> Polygons:
        """Place the canvas into a larger one, with its corner at ``left``, ``top``; nothing appears around it."""
        grown = []
        for old, size, before in ((self.columns, expanded_w, left), (self.rows, expanded_h, top)):
            grown.append(np.pad(old, (before, max(size - before - len(old), 0)), constant_values=-1))
        return self._moved(grown[0], grown[1], self.scale, self.shift + np.array([left, top]))

    def crop_and_resize(
        self,
        bboxes: np.ndarray,
        out_shape: tuple[int, int],
        inds: np.ndarray,
        device: str = 'cpu',
        interpolation: str = 'bilinear',
        binarize: bool = True,
    ) -> BitmapMasks:
        """Training targets of a mask head: instance ``inds[r]`` within box ``r``, at ``out_shape`` (h, w)."""
        out = np.zeros((len(bboxes), *out_shape), np.uint8)
        boxes, indices = np.asarray(bboxes, np.float32), np.asarray(inds, np.int64)
        draw_rois(self.coords, self.parts, self.instances, boxes, indices, out)
        return BitmapMasks(out, *out_shape)

    def _wanted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The two tables :mod:`raster` reads, and where on the canvas its rows and columns belong."""
        first_x, x, x_step = _lookup(self.columns, self.source_shape[1])
        first_y, y, y_step = _lookup(self.rows, self.source_shape[0])
        return first_x, first_y, np.array([y, y_step, x, x_step])

    def measure(self) -> np.ndarray:
        """(N, 5) int64: covered pixels, then x1, y1, x2, y2 of their extent with exclusive ends; 0 where none."""
        if self._stats is None:
            first_x, first_y, places = self._wanted()
            stats = measure_instances(to_lattice(self.source), self.parts, self.instances, first_x, first_y)
            covered = stats[:, 0] > 0
            for axis, (start, step) in enumerate((places[2:], places[:2])):
                ends = start + step * np.stack([stats[covered, 1 + axis], stats[covered, 3 + axis] - 1])
                stats[covered, 1 + axis], stats[covered, 3 + axis] = ends.min(axis=0), ends.max(axis=0) + 1
            self._stats = stats
        return self._stats

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64, covered pixels on the canvas."""
        return self.measure()[:, 0]

    def get_bboxes(self, dst_type: str | type[BaseBoxes] = 'hbox') -> BaseBoxes:
        """Tight boxes of the covered pixels; zeros for an instance that covers none."""
        box_type = get_box_type(dst_type)[1]
        return box_type(torch.from_numpy(self.measure()[:, 1:].astype(np.float32)))

    def to_ndarray(self) -> np.ndarray:
        """Draw all instances, (N, H, W) uint8."""
        out = np.zeros((len(self), self.height, self.width), np.uint8)
        first_x, first_y, places = self._wanted()
        draw_instances(to_lattice(self.source), self.parts, self.instances, first_x, first_y, places, out)
        return out

    def to_tensor(self, dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
        """Draw all instances into a tensor (N, H, W)."""
        return torch.from_numpy(self.to_ndarray()).to(device=device, dtype=dtype)


def _lookup(picked: np.ndarray, size: int) -> tuple[np.ndarray, int, int]:
    """:func:`first_wanted` of the canvas' source indices, the place of the first wanted one, and the way they run."""
    inside = np.flatnonzero(picked >= 0)
    if not len(inside):
        return first_wanted(picked[:0], size), 0, 1
    wanted = picked[inside]
    if wanted[0] > wanted[-1]:
        return first_wanted(wanted[::-1], size), int(inside[-1]), -1
    return first_wanted(wanted, size), int(inside[0]), 1


def pick(indices: np.ndarray, size: int, centred: bool) -> np.ndarray:
    """Source indices after nearest-neighbour resizing to ``size``.

    Pixel i reads old pixel ⌊i · old / new⌋, OpenCV's rule, or, centred, ⌊(i + ½) · old / new⌋.
    """
    positions = np.floor((np.arange(size) + 0.5 * centred) * (1.0 / (size / len(indices)))).astype(np.int64)
    return indices[np.minimum(positions, len(indices) - 1)]


STEPS = 5
_HALF = STEPS // 2


def to_lattice(coords: np.ndarray) -> np.ndarray:
    """Vertices (V, 2) in pixels as int64 in fifths of a pixel, rounded as C does it."""
    return (coords * STEPS + 0.5).astype(np.int64)


def first_wanted(wanted: np.ndarray, size: int) -> np.ndarray:
    """(size + 1,) int64: how many of the ascending source indices ``wanted`` lie before each source index."""
    return np.searchsorted(wanted, np.arange(size + 1)).astype(np.int64)


@compiled
def _toggle(x: int, y: int, first_x: np.ndarray, first_y: np.ndarray, left: int, top: int, out: np.ndarray) -> None:
    """Toggle the wanted copies of source column ``x`` from lattice height ``y`` on downwards."""
    row = min(max(-((_HALF - y) // STEPS), 0), len(first_y) - 1)
    target = first_y[row] - top
    for column in range(first_x[x] - left, first_x[x + 1] - left):
        out[target, column] ^= 1


@compiled
def _toggle_edge(
    x0: int, y0: int, x1: int, y1: int, first_x: np.ndarray, first_y: np.ndarray, left: int, top: int, out: np.ndarray
) -> None:
    """Toggle every wanted column whose centre one edge passes."""
    if x0 == x1:
        return
    dx, dy = abs(x1 - x0), abs(y1 - y0)
    width = len(first_x) - 1
    if dx >= dy:
        if x0 > x1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        slope = (y1 - y0) / dx
        for x in range(max(-((_HALF - x0) // STEPS), 0), min((x1 - 1 - _HALF) // STEPS + 1, width)):
            if first_x[x + 1] > first_x[x]:
                step = x * STEPS + _HALF - x0
                here, there = int(y0 + slope * step + 0.5), int(y0 + slope * (step + 1) + 0.5)
                _toggle(x, min(here, there), first_x, first_y, left, top, out)
        return
    if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
    slope = (x1 - x0) / dy
    before = x0
    for step in range(1, dy + 1):
        after = int(x0 + slope * step + 0.5)
        lower = min(before, after)
        if after != before and lower >= 0 and lower % STEPS == _HALF and lower // STEPS < width:
            _toggle(lower // STEPS, y0 + step - 1, first_x, first_y, left, top, out)
        before = after


@compiled
def _window(lattice: np.ndarray, first: np.ndarray) -> tuple[int, int]:
    """Range of wanted indices that vertices along one axis, (V,) int64, can reach."""
    size = len(first) - 1
    low = min(max(lattice.min() // STEPS - 1, 0), size)
    high = min(max(lattice.max() // STEPS + 2, 0), size)
    return first[low], first[high]


@compiled
def _draw_part(lattice: np.ndarray, first_x: np.ndarray, first_y: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Draw one part within its own window; return the (h + 1, w) uint8 bitmap and its left and top."""
    left, right = _window(lattice[:, 0], first_x)
    top, bottom = _window(lattice[:, 1], first_y)
    out = np.zeros((bottom - top + 1, right - left), np.uint8)
    if right > left and bottom > top:
        for v in range(len(lattice)):
            w = v + 1 if v + 1 < len(lattice) else 0
            x0, y0, x1, y1 = lattice[v, 0], lattice[v, 1], lattice[w, 0], lattice[w, 1]
            _toggle_edge(x0, y0, x1, y1, first_x, first_y, left, top, out)
        for row in range(1, bottom - top):
            for column in range(right - left):
                out[row, column] ^= out[row - 1, column]
    return out[: bottom - top], left, top


@compiled
def draw_instances(
    lattice: np.ndarray,
    parts: np.ndarray,
    instances: np.ndarray,
    first_x: np.ndarray,
    first_y: np.ndarray,
    places: np.ndarray,
    out: np.ndarray,
) -> None:
    """Draw every instance into its own plane, wanted rows and columns only.

    Args:
        lattice: See the module.
        parts: See the module.
        instances: See the module.
        first_x: See the module.
        first_y: See the module.
        places: (4,) int64: row of the first wanted row and step to the next (1 or -1), then column and step.
        out: (N, H, W) uint8 zeros, written in place.
    """
    y, y_step, x, x_step = places
    for n in range(len(instances) - 1):
        for m in range(instances[n], instances[n + 1]):
            local, left, top = _draw_part(lattice[parts[m] : parts[m + 1]], first_x, first_y)
            for row in range(local.shape[0]):
                target = out[n, y + y_step * (top + row)]
                if x_step == 1:
                    for column in range(local.shape[1]):
                        target[x + left + column] |= local[row, column]
                else:
                    for column in range(local.shape[1]):
                        target[x - left - column] |= local[row, column]


@compiled
def measure_instances(
    lattice: np.ndarray, parts: np.ndarray, instances: np.ndarray, first_x: np.ndarray, first_y: np.ndarray
) -> np.ndarray:
    """Area and extent of each instance in wanted pixels, without drawing more than its own box.

    Returns:
        (N, 5) int64: area in pixels, then x1, y1, x2, y2 with exclusive ends; all 0 where no pixel is covered.
    """
    stats = np.zeros((len(instances) - 1, 5), np.int64)
    for n in range(len(instances) - 1):
        if instances[n] == instances[n + 1]:
            continue
        vertices = lattice[parts[instances[n]] : parts[instances[n + 1]]]
        x_first, x_last = _window(vertices[:, 0], first_x)
        y_first, y_last = _window(vertices[:, 1], first_y)
        union = np.zeros((y_last - y_first, x_last - x_first), np.uint8)
        for m in range(instances[n], instances[n + 1]):
            local, left, top = _draw_part(lattice[parts[m] : parts[m + 1]], first_x, first_y)
            for row in range(local.shape[0]):
                for column in range(local.shape[1]):
                    union[top - y_first + row, left - x_first + column] |= local[row, column]
        area, x1, y1, x2, y2 = 0, x_last, y_last, 0, 0
        for row in range(union.shape[0]):
            for column in range(union.shape[1]):
                if union[row, column]:
                    area += 1
                    x1, x2 = min(x1, x_first + column), max(x2, x_first + column + 1)
                    y1, y2 = min(y1, y_first + row), max(y2, y_first + row + 1)
        if area:
            stats[n] = (area, x1, y1, x2, y2)
    return stats


@compiled
def draw_rois(
    coords: np.ndarray,
    parts: np.ndarray,
    instances: np.ndarray,
    boxes: np.ndarray,
    indices: np.ndarray,
    out: np.ndarray,
) -> None:
    """Draw instance ``indices[r]``, cropped to box ``r`` and resized, into ``out[r]``.

    Args:
        coords: (V, 2) float64, vertices in pixels.
        parts: See the module.
        instances: See the module.
        boxes: (R, 4) float32, x1, y1, x2, y2; sides under one pixel count as one, as in mmdet.
        indices: (R,) int64, the instance of each box.
        out: (R, h, w) uint8 zeros, written in place.
    """
    first_x, first_y = np.arange(out.shape[2] + 1), np.arange(out.shape[1] + 1)
    one = np.float32(1)
    for r in range(len(boxes)):
        x1, y1, x2, y2 = boxes[r]
        x_scale = np.float32(out.shape[2]) / max(x2 - x1, one)
        y_scale = np.float32(out.shape[1]) / max(y2 - y1, one)
        n = indices[r]
        for m in range(instances[n], instances[n + 1]):
            part = coords[parts[m] : parts[m + 1]]
            lattice = np.empty(part.shape, np.int64)
            for v in range(len(part)):
                lattice[v, 0] = int((part[v, 0] - x1) * x_scale * STEPS + 0.5)
                lattice[v, 1] = int((part[v, 1] - y1) * y_scale * STEPS + 0.5)
            local, left, top = _draw_part(lattice, first_x, first_y)
            for row in range(local.shape[0]):
                for column in range(local.shape[1]):
                    out[r, top + row, left + column] |= local[row, column]


def trace_bitmap(bitmap: np.ndarray) -> list[np.ndarray]:
    """The polygon of a bitmap (H, W): one flat array that draws exactly its pixels, or no array when none is set.

    The set pixels are cut into rectangles (equal runs in consecutive columns make one). From a line along the top the
    polygon visits one after the other, from left to right, and returns along that line. What it walks twice
    cancels out, so holes and islands need no special case.
    """
    sides = [np.flatnonzero(np.asarray(bitmap).any(axis=axis)) for axis in (0, 1)]
    if not len(sides[0]):
        return []
    left, top = sides[0][0], sides[1][0]
    inner = np.asarray(bitmap[top : sides[1][-1] + 1, left : sides[0][-1] + 1], bool).T
    padded = np.pad(inner, ((0, 0), (1, 1)))
    columns, ends = np.nonzero(padded[:, 1:] != padded[:, :-1])
    columns, starts, stops = columns[::2] + left, ends[::2] + top, ends[1::2] + top
    order = np.lexsort((columns, stops, starts))
    columns, starts, stops = columns[order], starts[order], stops[order]
    fresh = np.ones(len(columns), bool)
    fresh[1:] = (np.diff(columns) != 1) | (np.diff(starts) != 0) | (np.diff(stops) != 0)
    heads = np.flatnonzero(fresh)
    x1, x2 = columns[heads], columns[np.append(heads[1:], len(columns)) - 1] + 1
    y0, y1, y2 = np.full(len(heads), top), starts[heads], stops[heads]
    visits = np.stack([x1, y0, x1, y1, x2, y1, x2, y2, x1, y2, x1, y0], axis=1)
    return [visits[np.argsort(x1, kind='stable')].reshape(-1).astype(np.float64)]
