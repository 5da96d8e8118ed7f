"""Image files as the model sees them, and the size at which it does."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from armbench_runtime.errors import UnreadableImageError

_DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error)
_BITS = 11  # of the weights with which OpenCV resizes 8-bit images


def read_image(path: Path, scale_of: ImageScale | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """An image, upright, RGB, ``(H, W, 3) uint8``, and its height and width in the file.

    A JPEG that ends up at no more than half, a quarter or an eighth of its size is decoded at that fraction. Grey
    values are in all channels, transparency is left out, and of 16 bits the upper 8 are taken.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            upright = _turned(image.size[::-1], image.getexif().get(0x112, 1))
            if scale_of and scale_of.reduced_decoding and image.format == 'JPEG':
                scale = max(new / old for new, old in zip(scale_of.network_size(*upright), upright, strict=True))
                reduction = max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * scale <= 1)
                image.draft('RGB', (image.width // reduction, image.height // reduction))
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith('I;16'):
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return np.asarray(turned.convert('RGB')), upright
    except _DECODE_ERRORS as error:
        raise UnreadableImageError(f'image must be readable, got {error} (in {path})') from error


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size[::-1] if orientation >= 5 else size


class ImageScale:
    """The size at which a network sees an image.

    Args:
        width: The longer and the shorter side of an image end up within the longer and the shorter of the two.
        height: See ``width``.
        keep_ratio: Else the image takes exactly this size.
        reduced_decoding: Whether JPEGs are decoded at a fraction of their size where that is enough.
    """

    def __init__(self, width: int, height: int, keep_ratio: bool = True, reduced_decoding: bool = True) -> None:
        self.width, self.height, self.keep_ratio = width, height, keep_ratio
        self.reduced_decoding = reduced_decoding

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width for the network of an image of these, as ``mmcv.rescale_size`` has them."""
        if not self.keep_ratio:
            return self.height, self.width
        longer, shorter = max(self.width, self.height), min(self.width, self.height)
        factor = min(longer / max(height, width), shorter / min(height, width))
        return int(height * factor + 0.5), int(width * factor + 0.5)


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
