"""Image files as the model sees them, and the size at which it does."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from armbench_runtime.errors import UnreadableImageError

_DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error)
_BITS = 11  # of the weights with which OpenCV resizes 8-bit images


def read_image(path: Path, scale: Mapping[str, Any] | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """An image, upright, RGB, ``(H, W, 3) uint8``, and its height and width in the file.

    Grey values are in all channels, transparency is left out, and of 16 bits the upper 8 are taken.

    Args:
        path: The file.
        scale: As :func:`network_size` takes it; a JPEG that ends up at no more than half, a quarter or an eighth of its
            size is decoded at that fraction, if ``reduced_decoding`` is on.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            is_turned = image.getexif().get(0x112, 1) >= 5
            size = image.size if is_turned else image.size[::-1]
            if scale and scale['reduced_decoding']:
                network = network_size(scale, *size)
                image.draft('RGB', network if is_turned else network[::-1])
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith('I;16'):
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return np.asarray(turned.convert('RGB')), size
    except _DECODE_ERRORS as error:
        raise UnreadableImageError(f'image must be readable, got {error} (in {path})') from error


def network_size(scale: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """Height and width at which a network sees an image of these, as ``mmcv.rescale_size`` has them, but never 0.

    Args:
        scale: ``width``, ``height`` and ``keep_ratio``: with it, the longer and the shorter side end up within the
            longer and the shorter of the two; else the image takes exactly this size.
        height: Of the image.
        width: Of the image.
    """
    if not scale['keep_ratio']:
        return scale['height'], scale['width']
    shorter, longer = sorted((scale['width'], scale['height']))
    factor = min(longer / max(height, width), shorter / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image ``(h, w, 3) uint8`` at another size, bilinearly: bit for bit as OpenCV's ``INTER_LINEAR``."""
    if image.shape[:2] == (height, width):
        return image
    (top, bottom, upper, lower), (left, right, before, after) = (
        _taps(cells, pixels) for cells, pixels in zip(image.shape[:2], (height, width), strict=True)
    )
    pixels = image.astype(np.int32)
    across = pixels[:, left] * before[:, None] + pixels[:, right] * after[:, None]
    across >>= 4
    total = (across[top] * upper[:, None, None] >> 16) + (across[bottom] * lower[:, None, None] >> 16)
    return ((total + 2) >> 2).astype(np.uint8)


def _taps(cells: int, pixels: int) -> tuple[np.ndarray, ...]:
    """The two cells of each pixel, and their weights."""
    position = ((np.arange(pixels) + 0.5) * (1 / (pixels / cells)) - 0.5).astype(np.float32)
    low = np.floor(position)
    share = position - low
    weights = (np.rint(part * np.float32(1 << _BITS)).astype(np.int32) for part in (1 - share, share))
    cell = low.astype(np.int64)
    return np.clip(cell, 0, cells - 1), np.clip(cell + 1, 0, cells - 1), *weights
