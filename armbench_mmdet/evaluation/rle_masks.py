"""Masks of an image as run lengths, in the place where mmdet expects a tensor of bitmaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from pycocotools import mask as mask_api

from armbench_mmdet.errors import InputError


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
