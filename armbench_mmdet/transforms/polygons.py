"""Instance masks that stay polygons through the pipeline and are drawn once, at the final size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import get_box_type
from mmdet.structures.bbox.base_boxes import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from armbench_mmdet.transforms.bitmap_trace import trace_bitmap
from armbench_mmdet.transforms.raster import (
    draw_instances,
    draw_rois,
    first_wanted,
    measure_instances,
    to_lattice,
)


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
