"""Run lengths: those of annotation files checked and decoded, those of masks encoded, and a container of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.functional import pad

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import map_threads
from armbench_mmdet.masks.kernels import fill_runs, pasted_axis, run_lengths, scan_mask


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
    counts = np.diff(switches, prepend=0, append=size[0] * size[1])
    rle = coco_mask.frPyObjects({'counts': counts, 'size': size}, *size)
    return {'size': list(size), 'counts': rle['counts'].decode()}


PastedAxis = Callable[[float, float, int, int], tuple[int, np.ndarray, np.ndarray]]
"""What one axis of a pasted mask is made of, given where its box begins and ends, the image's side and the mask's.

It answers with the first pixel of the pasted region and, for each of its pixels, the first of the two cells it lies
between, ``(pixels,) int64``, and the weights of both, ``(pixels, 2) float32``; the mask has a border of one zero cell.
"""


def pasted_pixels(low: float, high: float, side: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Mmdet's rule: each pixel is where it lies in the box, which has a pixel to spare around it."""
    first, last = int(max(np.floor(low) - 1, 0)), int(min(np.ceil(high) + 1, side))
    return first, *pasted_axis(low, high, first, max(first, last), cells)


def encode_boxed_masks(
    masks: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    threshold: float = 0.5,
    axis: PastedAxis = pasted_pixels,
) -> list[dict[str, Any]]:
    """Paste masks into their boxes and encode them, computing nothing outside the boxes.

    As ``mmdet.models.roi_heads.mask_heads.fcn_mask_head._do_paste_mask`` followed by ``>= threshold`` and
    ``pycocotools.mask.encode``, but for pixels within 1e-4 of the threshold, on which roundings decide.

    Args:
        masks: ``(N, h, w)`` float probabilities from 0 to 1.
        boxes: ``(N, 4)`` float xyxy in image pixels.
        height: Of the image.
        width: Of the image.
        threshold: A pixel is on from this value up; at least 0.
        axis: Another rule of pasting than mmdet's.

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
    corners = boxes.detach().to('cpu', torch.float32).numpy()
    if not np.isfinite(corners).all():
        raise InputError('boxes must be finite, got NaN or infinity')
    # With a border of zeros, transposed: the kernel walks down columns.
    sources = pad(masks.detach().to('cpu', torch.float32), (1, 1, 1, 1)).transpose(1, 2).contiguous().numpy()
    limit = np.nextafter(np.float32(threshold), np.float32(-1))

    def encode_one(index: int) -> dict[str, Any]:
        source, (x0, y0, x1, y1) = sources[index], corners[index].tolist()
        left, *columns = axis(x0, x1, width, source.shape[0] - 2)
        top, *rows = axis(y0, y1, height, source.shape[1] - 2)
        if not (len(columns[0]) and len(rows[0])):
            return encode_switches(np.empty(0, np.int64), (height, width))
        switches, _ = scan_mask(source, *columns, *rows, (left, top), (height, width), limit, False)
        return encode_switches(switches, (height, width))

    return map_threads(encode_one, range(len(sources)))


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
        return [encode_switches(_device_switches(mask), size) for mask in masks.bool()]
    array = masks.detach().numpy() if isinstance(masks, Tensor) else masks
    return map_threads(
        lambda mask: encode_switches(bitmap_switches(np.ascontiguousarray(mask, dtype=bool)), size), array
    )


def bitmap_switches(bitmap: np.ndarray) -> np.ndarray:
    """The rising positions ``x · H + y`` at which a contiguous bitmap ``(H, W)`` bool changes between off and on."""
    height, width = bitmap.shape
    if not bitmap.size:
        return np.empty(0, np.int64)
    pixels = bitmap.view(np.uint8).reshape(-1)
    above, below = pixels[:-width], pixels[width:]
    # Most words of eight pixels are the same in both rows, and quickly passed over.
    whole = above.size // 8 * 8
    words = np.flatnonzero(above[:whole].view(np.uint64) != below[:whole].view(np.uint64))
    places = np.append((8 * words[:, None] + np.arange(8)).ravel(), np.arange(whole, above.size))
    y, x = np.divmod(places[above[places] != below[places]], width)
    # A column follows on the foot of the one to its left.
    foot = np.concatenate([[False], bitmap[-1, :-1]])
    return np.sort(np.concatenate([x * height + y + 1, np.flatnonzero(bitmap[0] != foot) * height]))


def _device_switches(mask: Tensor) -> np.ndarray:
    height, _ = mask.shape
    above = torch.cat([torch.cat([mask.new_zeros(1), mask[-1, :-1]])[None], mask[:-1]])
    y, x = (mask != above).nonzero(as_tuple=True)
    return np.sort((x * height + y).cpu().numpy())


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
            bitmap[:] = decode_mask(rle)
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
