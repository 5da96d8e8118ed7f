"""Masks to run lengths, and a tensor-like container of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor
from torch.nn.functional import grid_sample

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import map_threads
from armbench_mmdet.masks.kernels import boxed_switches, compressed, differences, source_positions

ROUNDING_PER_CELL = 1e-6
"""Bound on the difference in value, per mask cell, that float32 positions and another order of operations make.

Positions carry an error of a few float32 roundings (6e-8) times the mask's size, and the value changes by at most 1 a
cell on each axis.
"""


def encode_boxed_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Paste masks into their boxes and encode them, computing nothing outside the boxes.

    Equal to ``mmdet.models.roi_heads.mask_heads.fcn_mask_head._do_paste_mask`` followed by ``>= threshold`` and
    ``pycocotools.mask.encode``, on the CPU and, from a threshold of 0.5 up, on CUDA.

    Args:
        masks: ``(N, h, w)`` float probabilities from 0 to 1.
        boxes: ``(N, 4)`` float xyxy in image pixels.
        height: Of the image.
        width: Of the image.
        threshold: A pixel is on from this value up; at least 0.

    Returns:
        N COCO RLE dicts with ``counts`` as str.

    Raises:
        InputError: Shapes that do not fit, a negative threshold, or boxes that are not finite.
    """
    if masks.ndim != 3 or boxes.shape != (len(masks), 4):
        shapes = f'{tuple(masks.shape)} and {tuple(boxes.shape)}'
        raise InputError(f'masks and boxes must be (N, h, w) and (N, 4), got {shapes}')
    if threshold < 0:
        raise InputError(f'threshold must be at least 0, got {threshold!r}')
    values = masks.detach().to('cpu', torch.float32).contiguous().numpy()
    corners = boxes.detach().to('cpu', torch.float32).numpy()
    if not np.isfinite(corners).all():
        raise InputError('boxes must be finite, got NaN or infinity')
    return [
        _encode_one(values[i], corners[i], masks[i], boxes[i], (height, width), threshold) for i in range(len(values))
    ]


def _encode_one(
    values: np.ndarray, corners: np.ndarray, mask: Tensor, box: Tensor, size: tuple[int, int], threshold: float
) -> dict[str, Any]:
    height, width = size
    x0, y0, x1, y1 = (float(corner) for corner in corners)
    # Stock's region on the CPU: the box with a pixel to spare.
    left, top = (int(max(np.floor(low) - 1, 0)) for low in (x0, y0))
    right, bottom = (int(min(np.ceil(high) + 1, limit)) for high, limit in ((x1, width), (y1, height)))
    columns = source_positions(x0, x1, left, right, values.shape[1])
    rows = source_positions(y0, y1, top, bottom, values.shape[0])
    if not (columns.size and rows.size):
        return _rle(np.empty(0, np.int64), size)
    tolerance = ROUNDING_PER_CELL * max(values.shape)
    limits = (threshold - tolerance, threshold + tolerance)
    doubts, answers = np.empty((64, 2), np.int64), np.empty(0, bool)
    switches = np.empty(8 * columns.size + 8, np.int64)
    while True:
        count, doubt = boxed_switches(values, columns, rows, (left, top), size, limits, doubts, answers, switches)
        if doubt > len(doubts):
            doubts = np.empty((doubt, 2), np.int64)
        elif doubt > len(answers):
            answers = _stock_bits(mask, box, doubts[:doubt], threshold)
        elif count > len(switches):
            switches = np.empty(count, np.int64)
        else:
            return _rle(switches[:count], size)


def _stock_bits(mask: Tensor, box: Tensor, pixels: np.ndarray, threshold: float) -> np.ndarray:
    """What stock pasting makes of single pixels ``(K, 2)`` (y, x): the same operations in the same order and type."""
    yx = torch.from_numpy(pixels).to(box.device, torch.float32) + 0.5
    low, high = box[[1, 0]], box[[3, 2]]
    grid = (yx - low) / (high - low) * 2 - 1
    grid[torch.isinf(grid)] = 0
    values = grid_sample(mask[None, None].to(torch.float32), grid.flip(1)[None, None], align_corners=False)
    return (values[0, 0, 0] >= threshold).cpu().numpy()


def encode_masks(masks: np.ndarray | Tensor) -> list[dict[str, Any]]:
    """Encode full-size bitmaps; from a CUDA tensor only the run boundaries are copied.

    Args:
        masks: ``(N, H, W)`` bool, or integers where anything but 0 is on.

    Returns:
        N COCO RLE dicts with ``counts`` as str, equal to pycocotools'.
    """
    if masks.ndim != 3:
        raise InputError(f'masks must be (N, H, W), got shape {tuple(masks.shape)}')
    size = (int(masks.shape[1]), int(masks.shape[2]))
    if isinstance(masks, Tensor) and masks.device.type != 'cpu':
        return [_rle(_device_switches(mask), size) for mask in masks.bool()]
    array = masks.detach().numpy() if isinstance(masks, Tensor) else masks
    return map_threads(lambda mask: _rle(_bitmap_switches(np.ascontiguousarray(mask, dtype=bool)), size), array)


def _bitmap_switches(bitmap: np.ndarray) -> np.ndarray:
    """Switches of a contiguous bitmap ``(H, W)`` bool."""
    height, width = bitmap.shape
    if not bitmap.size:
        return np.empty(0, np.int64)
    pixels = bitmap.view(np.uint8).reshape(-1)
    above, below = pixels[:-width], pixels[width:]
    whole = above.size // 8 * 8
    words = above[:whole].view(np.uint64), below[:whole].view(np.uint64)
    places = np.empty(8 * (height + width), np.int64)
    count = differences(words[0], words[1], above, below, places)
    if count > len(places):
        places = np.empty(count, np.int64)
        differences(words[0], words[1], above, below, places)
    y, x = np.divmod(places[:count], width)
    # A column follows on the foot of the one to its left.
    foot = np.concatenate([[False], bitmap[-1, :-1]])
    return np.sort(np.concatenate([x * height + y + 1, np.flatnonzero(bitmap[0] != foot) * height]))


def _device_switches(mask: Tensor) -> np.ndarray:
    height, _ = mask.shape
    above = torch.cat([torch.cat([mask.new_zeros(1), mask[-1, :-1]])[None], mask[:-1]])
    y, x = (mask != above).nonzero(as_tuple=True)
    return np.sort((x * height + y).cpu().numpy())


def _rle(switches: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    text = np.empty(7 * (len(switches) + 1), np.uint8)
    length = compressed(switches, size[0] * size[1], text)
    return {'size': list(size), 'counts': text[:length].tobytes().decode('ascii')}


class RleMasks(Sequence[dict[str, Any]]):
    """N masks of one image, as COCO RLE dicts.

    It goes where ``pred_instances.masks`` is a tensor: it has a length, takes indices, slices, integer and boolean
    arrays, concatenates as :class:`mmengine.structures.InstanceData` wants, and turns into bitmaps for what needs
    pixels, such as mmdet's visualizer and ``DumpDetResults``.

    Args:
        rles: COCO RLE dicts with ``size`` and ``counts``.
        height: Of the image, also for no masks at all.
        width: Of the image.
    """

    def __init__(self, rles: Sequence[dict[str, Any]], height: int, width: int) -> None:
        self.rles = list(rles)
        self.height = int(height)
        self.width = int(width)
        for rle in self.rles:
            if list(rle['size']) != [self.height, self.width]:
                raise InputError(f'RLE size must be {[self.height, self.width]}, got {list(rle["size"])}')

    def __len__(self) -> int:
        """N."""
        return len(self.rles)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The RLE dicts."""
        return iter(self.rles)

    def __repr__(self) -> str:
        """Number and size; the strings would fill the screen."""
        return f'RleMasks({len(self)} masks, {self.height}×{self.width})'

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray | torch.Tensor | list) -> RleMasks: ...

    def __getitem__(self, index: Any) -> Any:
        """One RLE dict for an integer, else the chosen masks."""
        if isinstance(index, int | np.integer):
            return self.rles[index]
        if isinstance(index, slice):
            return RleMasks(self.rles[index], self.height, self.width)
        if isinstance(index, torch.Tensor):
            index = index.detach().cpu().numpy()
        chosen = np.arange(len(self))[np.asarray(index, dtype=None if len(index) else np.int64)]
        return RleMasks([self.rles[i] for i in chosen], self.height, self.width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(N, H, W)``, as the bitmaps would have."""
        return len(self), self.height, self.width

    @staticmethod
    def cat(parts: Sequence[RleMasks]) -> RleMasks:
        """The masks of several parts of one image, one after another."""
        return RleMasks([rle for part in parts for rle in part], parts[0].height, parts[0].width)

    def numpy(self) -> np.ndarray:
        """Bitmaps, ``(N, H, W)`` bool."""
        bitmaps = np.zeros(self.shape, bool)
        for bitmap, rle in zip(bitmaps, self.rles, strict=True):
            bitmap[:] = mask_api.decode(rle)
        return bitmaps

    def astype(self, dtype: Any) -> np.ndarray:
        """Bitmaps of a type, ``(N, H, W)``; what mmdet's visualizer asks for."""
        return self.numpy().astype(dtype, copy=False)

    def to_ndarray(self) -> np.ndarray:
        """Bitmaps, ``(N, H, W)`` uint8, under the name that mmdet's mask structures use."""
        return self.numpy().astype(np.uint8)

    def to_tensor(self) -> torch.Tensor:
        """Bitmaps as a tensor on the CPU, ``(N, H, W)`` bool."""
        return torch.from_numpy(self.numpy())
