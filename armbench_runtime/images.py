"""Image files as the model sees them, the size at which it does, and what is wrong with a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the value and the remedy."""


class UnreadableImageError(InputError):
    """An image file is missing, damaged, or not of the annotated size."""


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
    except Exception as error:  # on damaged files pillow raises nearly anything
        raise UnreadableImageError(f'image must be readable, got {error} (in {path})') from error


def network_size(scale: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """Height and width at which a network sees an image of these, as ``mmcv.rescale_size`` has them, but never 0.

    A ``scale`` has ``width``, ``height`` and ``keep_ratio``: with it, the longer and the shorter side end up within the
    longer and the shorter of the two; else the image takes exactly this size.
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
    (rows, down), (columns, across) = _taps(image.shape[0], height), _taps(image.shape[1], width)
    pixels = image.astype(np.int32)
    pixels = (pixels[:, columns[0]] * across[0, :, None] + pixels[:, columns[1]] * across[1, :, None]) >> 4
    upper, lower = (pixels[row] * weight[:, None, None] >> 16 for row, weight in zip(rows, down, strict=True))
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _taps(cells: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """The two cells of each pixel, and their weights in 2048ths, ``(2, pixels)``."""
    position = ((np.arange(pixels) + 0.5) * (1 / (pixels / cells)) - 0.5).astype(np.float32)
    low = np.floor(position)
    share = position - low
    weights = np.rint(np.stack([1 - share, share]) * np.float32(2048)).astype(np.int32)
    return np.clip(np.stack([low, low + 1]).astype(int), 0, cells - 1), weights
