"""Polygons under an affine map, drawn once at the final size."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import get_box_type
from mmdet.structures.bbox.base_boxes import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from pycocotools import mask as coco_mask

from armbench_mmdet.masks.encode import decode_mask

# pycocotools rounds vertices to fifths of a pixel: enough for a box of this side, and smaller ones are drawn larger.
_FINE_PX = 64
_FINEST = 9

Patch = tuple[int, int, np.ndarray]
"""The pixels of one instance: left, top, and a bitmap (h, w) uint8."""


class Polygons(PolygonMasks):
    """Polygon masks that flip, resize and crop as vertices and become pixels once, when they are asked for.

    A canvas that was never moved is drawn as pycocotools draws it, so the ground truth is the evaluation's bit for
    bit. On any other, a pixel belongs to an instance that covers at least half of it. What was cropped away stays
    away when the canvas grows again.

    ``areas`` and ``get_bboxes`` speak of covered pixels, as :class:`mmdet.structures.mask.BitmapMasks` does.
    Every operation returns a new object; the vertices are shared and never change.

    Args:
        masks: One list of parts for each instance; a part is a flat array x1, y1, x2, y2, … in pixels.
        height: Height of the canvas in pixels.
        width: Width of the canvas in pixels.
    """

    def __init__(self, masks: Sequence[Sequence[np.ndarray]], height: int, width: int) -> None:
        self._source = [[np.asarray(part, np.float64).reshape(-1, 2) for part in parts] for parts in masks]
        self.height, self.width = height, width
        self._scale: np.ndarray = np.ones(2)
        self._shift: np.ndarray = np.zeros(2)
        self._window = np.array([[0, 0], [width, height]], np.float64)
        self._patches: list[Patch] | None = None

    @classmethod
    def from_bitmaps(cls, bitmaps: np.ndarray) -> Polygons:
        """Polygons that draw exactly the given bitmaps, (N, H, W) uint8 or bool."""
        return cls([trace_bitmap(bitmap) for bitmap in bitmaps], *bitmaps.shape[1:])

    def _moved(self, height: int, width: int, factor: Sequence[float] = (1, 1), offset: Sequence = (0, 0)) -> Polygons:
        """The same instances on a canvas of this size, coordinates times ``factor`` plus ``offset``, (x, y) each."""
        new = copy.copy(self)
        new.height, new.width, new._patches = height, width, None
        new._scale, new._shift = self._scale * factor, self._shift * factor + offset
        new._window = np.sort(self._window * factor + offset, axis=0).clip(0, (width, height))
        return new

    def _parts(self, index: int) -> list[np.ndarray]:
        """The parts of one instance, (V, 2) in pixels of the canvas; they may lie outside it."""
        return [part * self._scale + self._shift for part in self._source[index]]

    @property
    def masks(self) -> list[list[np.ndarray]]:
        """The polygons as mmdet's nested lists; they may reach beyond the canvas."""
        return [[part.reshape(-1) for part in self._parts(index)] for index in range(len(self))]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self._source)

    def __getitem__(self, index: int | slice | Sequence | np.ndarray | torch.Tensor) -> Polygons:
        """Some of the instances, chosen as NumPy would choose them."""
        chosen = np.atleast_1d(np.arange(len(self))[index]).tolist()
        new = copy.copy(self)
        new._source = [self._source[i] for i in chosen]
        new._patches = self._patches and [self._patches[i] for i in chosen]
        return new

    def resize(self, out_shape: tuple[int, int], interpolation: str = 'nearest') -> Polygons:
        """Scale to ``out_shape`` (h, w)."""
        return self._moved(*out_shape, (out_shape[1] / self.width, out_shape[0] / self.height))

    def rescale(self, scale: float | tuple[int, int], interpolation: str = 'nearest') -> Polygons:
        """Scale as large as possible within ``scale``, keeping the aspect ratio."""
        return self.resize(mmcv.rescale_size((self.width, self.height), scale)[::-1])

    def flip(self, flip_direction: str = 'horizontal') -> Polygons:
        """Mirror horizontally, vertically or (``'diagonal'``) both."""
        x, y = flip_direction in ('horizontal', 'diagonal'), flip_direction in ('vertical', 'diagonal')
        return self._moved(self.height, self.width, (1 - 2 * x, 1 - 2 * y), (x * self.width, y * self.height))

    def crop(self, bbox: np.ndarray) -> Polygons:
        """Keep the integer box x1, y1, x2, y2 of the canvas, at least one pixel of it."""
        limits = np.array([self.width, self.height] * 2)
        x1, y1, x2, y2 = np.clip(np.asarray(bbox).astype(int), 0, limits).tolist()
        return self._moved(max(y2 - y1, 1), max(x2 - x1, 1), offset=(-x1, -y1))

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> Polygons:
        """Enlarge the canvas to the right and below; nothing appears there."""
        new = self._moved(*out_shape)
        new._patches = self._patches
        return new

    def expand(self, expanded_h: int, expanded_w: int, top: int, left: int) -> Polygons:
        """Place the canvas into a larger one, with its corner at ``left``, ``top``; nothing appears around it."""
        return self._moved(expanded_h, expanded_w, offset=(left, top))

    def crop_and_resize(
        self, bboxes: np.ndarray, out_shape: tuple[int, int], inds: np.ndarray, *_: object, **__: object
    ) -> BitmapMasks:
        """Training targets of a mask head: instance ``inds[r]`` within box ``r``, at ``out_shape`` (h, w)."""
        height, width = out_shape
        boxes = np.asarray(bboxes, np.float32)
        factors = np.array([width, height], np.float32) / np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
        parts = [self._parts(index) for index in range(len(self))]
        targets = [(r, part) for r, index in enumerate(np.asarray(inds).tolist()) for part in parts[index]]
        out = np.zeros((len(boxes), height, width), np.uint8)
        if targets:
            moved = [((part - boxes[r, :2]) * factors[r]).reshape(-1) for r, part in targets]
            drawn = coco_mask.decode(coco_mask.frPyObjects(moved, height, width))
            for (r, _), plane in zip(targets, np.moveaxis(drawn, 2, 0), strict=True):
                out[r] |= plane
        return BitmapMasks(out, height, width)

    def patches(self) -> list[Patch]:
        """The pixels of each instance, drawn on the first call and kept, on the way to another process too."""
        if self._patches is None:
            self._patches = [self._drawn(self._parts(index)) for index in range(len(self))]
        return self._patches

    def _drawn(self, parts: list[np.ndarray]) -> Patch:
        """The union of polygons, (V, 2) each, within the window.

        pycocotools places an outline up to a fifth of a pixel off. Of a canvas that was moved a small instance is
        therefore drawn at an odd multiple of its size, and keeps the pixels of which it covers at least half.
        """
        low, high = np.round(self._window).astype(int)
        was_moved = bool((self._scale != 1).any() or self._shift.any())
        if was_moved and parts:
            points = np.concatenate(parts)
            low = np.maximum(low, np.floor(points.min(axis=0)).astype(int))
            high = np.minimum(high, np.ceil(points.max(axis=0)).astype(int))
        width, height = (high - low).tolist()
        if not parts or width <= 0 or height <= 0:
            return 0, 0, np.zeros((0, 0), np.uint8)
        factor = min(2 * (_FINE_PX // max(width, height)) + 1, _FINEST) if was_moved else 1
        polygons = [((part - low) * factor).reshape(-1) for part in parts]
        bitmap = decode_mask(coco_mask.merge(coco_mask.frPyObjects(polygons, height * factor, width * factor)))
        if factor > 1:
            share = cv2.resize(bitmap * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
            bitmap = (share > 127).astype(np.uint8)
        return int(low[0]), int(low[1]), bitmap

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64, covered pixels on the canvas."""
        return np.array([np.count_nonzero(bitmap) for _, _, bitmap in self.patches()], np.int64)

    def get_bboxes(self, dst_type: str | type[BaseBoxes] = 'hbox') -> BaseBoxes:
        """Tight boxes of the covered pixels; zeros for an instance that covers none."""
        boxes = np.zeros((len(self), 4), np.float32)
        for box, (left, top, bitmap) in zip(boxes, self.patches(), strict=True):
            x, y, width, height = cv2.boundingRect(bitmap) if bitmap.size else (0, 0, 0, 0)
            if width:
                box[:] = left + x, top + y, left + x + width, top + y + height
        return get_box_type(dst_type)[1](torch.from_numpy(boxes))

    def to_ndarray(self) -> np.ndarray:
        """All instances as bitmaps, (N, H, W) uint8."""
        out = np.zeros((len(self), self.height, self.width), np.uint8)
        for plane, (left, top, bitmap) in zip(out, self.patches(), strict=True):
            plane[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
        return out


def trace_bitmap(bitmap: np.ndarray) -> list[np.ndarray]:
    """One flat polygon that draws exactly the pixels of a bitmap (H, W); no polygon when none is set.

    It joins all outlines, holes and islands, by bridges that are walked twice and so draw nothing.
    """
    covered = np.asarray(bitmap, np.uint8)
    x, y, width, height = cv2.boundingRect(covered)
    if not width:
        return []
    # OpenCV's outlines pass the centres of the border's pixels. In a picture three times as large these lie next to the
    # pixel's corners, and rounding moves them there.
    large = cv2.resize(covered[y : y + height, x : x + width], None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    rings = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    corners = [(ring[:, 0] + 1) // 3 + (x, y) for ring in rings]
    anchor = corners[0][:1]
    visits = [point for ring in corners for point in (ring, ring[:1], anchor)]
    return [np.concatenate([anchor, *visits]).astype(np.float64).reshape(-1)]
