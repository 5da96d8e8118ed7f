"""Run lengths: those of annotation files checked and decoded, those of masks encoded, and a container of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from armbench_mmdet.jit import compiled, map_threads


@compiled
def run_lengths(code: np.ndarray) -> np.ndarray:
    """Decode COCO's compressed run lengths.

    Five bits a character, least significant first, from character code 48; bit 6 means more follow, the last
    bit of the last one is the sign; from the third on, counts are differences to the count before the last one
    (``rleFrString`` in pycocotools' ``maskApi.c``, which reads past the end of a broken string).

    Args:
        code: ``(C,) uint8``, the characters.

    Returns:
        ``(N,) int64``; nothing when the string is not a whole code.
    """
    counts, number, value, shift = np.empty(len(code), np.int64), 0, 0, 0
    for character in code:
        bits = int(character) - 48
        if not 0 <= bits < 64 or shift > 35:
            return counts[:0]
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts[number] = value + counts[number - 2] if number > 2 else value
        number, value, shift = number + 1, 0, 0
    return counts[: 0 if shift else number]


@compiled
def fill_runs(counts: np.ndarray, pixels: np.ndarray) -> None:
    """Set the pixels ``(W * H,) uint8``, zeros before, of every second run; they go down the columns."""
    start = 0
    for number in range(len(counts)):
        if number % 2:
            pixels[start : start + counts[number]] = 1
        start += counts[number]


def decode_counts(text: str) -> list[int]:
    """The run lengths of a ``counts`` string; none when it is not a whole code."""
    return run_lengths(np.frombuffer(text.encode(), np.uint8)).tolist()


def fits_image(counts: list[int], size: tuple[int, int], height: int, width: int) -> bool:
    """Whether run lengths describe a whole mask of exactly this image."""
    return size == (height, width) and sum(counts) == height * width and min(counts) >= 0


def decode_mask(rle: Mapping[str, Any]) -> np.ndarray:
    """The bitmap of a compressed run-length mask, ``(H, W) uint8``; five times as fast as pycocotools."""
    height, width = rle['size']
    counts = rle['counts'].encode() if isinstance(rle['counts'], str) else rle['counts']
    columns = np.zeros((width, height), np.uint8)
    fill_runs(run_lengths(np.frombuffer(counts, np.uint8)), columns.reshape(-1))
    return cv2.transpose(columns)


def encode_switches(switches: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Encode a mask by the rising positions ``x · H + y`` at which it changes between off and on.

    Args:
        switches: ``(S,) int64``.
        size: Height and width.

    Returns:
        A COCO RLE dict with ``counts`` as str.
    """
    inside = switches[: np.searchsorted(switches, size[0] * size[1])]  # a last run may end with the image
    counts = np.diff(inside, prepend=0, append=size[0] * size[1])
    rle = coco_mask.frPyObjects({'counts': counts, 'size': size}, *size)
    return {'size': list(size), 'counts': rle['counts'].decode()}


def encode_masks(masks: np.ndarray | Tensor) -> list[dict[str, Any]]:
    """Encode full-size bitmaps; from a CUDA tensor only the run boundaries are copied.

    Args:
        masks: ``(N, H, W)`` bool, or integers where anything but 0 is on.

    Returns:
        N COCO RLE dicts with ``counts`` as str, equal to pycocotools'.
    """
    size = (int(masks.shape[1]), int(masks.shape[2]))
    if isinstance(masks, Tensor) and masks.device.type != 'cpu':
        return [encode_switches(device_switches(mask), size) for mask in masks.bool()]
    array = masks.detach().numpy() if isinstance(masks, Tensor) else masks
    return map_threads(lambda mask: encode_switches(_switches(np.ascontiguousarray(mask, dtype=bool)), size), array)


def _switches(bitmap: np.ndarray) -> np.ndarray:
    """The rising positions ``x · H + y`` at which a contiguous bitmap ``(H, W)`` bool changes between off and on."""
    height, width = bitmap.shape
    pixels = bitmap.reshape(-1)
    y, x = np.divmod(np.flatnonzero(pixels[:-width] != pixels[width:]), width)
    # A column follows on the foot of the one to its left.
    foot = np.concatenate([[False], bitmap[-1, :-1]])
    return np.sort(np.concatenate([x * height + y + 1, np.flatnonzero(bitmap[0] != foot) * height]))


def device_switches(mask: Tensor) -> np.ndarray:
    """The same of a bitmap ``(H, W) bool`` on any device; as many on as off."""
    edge = mask.new_zeros(1)
    pixels = torch.cat([edge, mask.T.flatten(), edge])
    return (pixels[1:] != pixels[:-1]).nonzero().squeeze(1).cpu().numpy()


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

    def __len__(self) -> int:
        """N."""
        return len(self.rles)

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
            bitmap[:] = decode_mask(rle)
        return bitmaps

    def astype(self, dtype: Any) -> np.ndarray:
        """Bitmaps of a type, ``(N, H, W)``; what mmdet's visualizer asks for."""
        return self.numpy().astype(dtype, copy=False)
