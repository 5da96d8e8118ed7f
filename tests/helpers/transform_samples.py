"""Annotated pictures for the transform tests: every instance painted in its own colour."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.structures.mask import PolygonMasks

PALETTE = np.array([[40, 40, 200], [40, 200, 40], [200, 40, 40], [200, 200, 40], [40, 200, 200], [200, 40, 200]])
BACKGROUND = 0


def smooth_picture(width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8, colours that change over some eight pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def star(rng: np.random.Generator, centre: tuple[float, float], radius: float, points: int = 24) -> list[float]:
    """A random star-shaped polygon."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, points))
    reach = radius * rng.uniform(0.6, 1.0, points)
    return (np.array(centre) + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).reshape(-1).tolist()


def disc(centre: tuple[float, float], radius: float, points: int = 40) -> list[float]:
    """A regular polygon."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return (np.array(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], 1)).reshape(-1).tolist()


def instance(parts: list[list[float]] | dict, label: int, box: list[float] | None = None) -> dict[str, Any]:
    """One entry of ``instances``."""
    if box is None:
        xy = np.concatenate([np.array(part).reshape(-1, 2) for part in parts])
        box = [*xy.min(0).tolist(), *xy.max(0).tolist()]
    return {'bbox': box, 'bbox_label': label, 'ignore_flag': 0, 'mask': parts}


def random_info(seed: int, width: int, height: int, count: int = 6, path: Path | str = '') -> dict[str, Any]:
    """A tote and objects anywhere, some of them in two parts."""
    rng = np.random.default_rng(seed)
    items = [instance([star(rng, (width / 2, height / 2), 0.45 * min(width, height), 30)], 0)]
    for index in range(count - 1):
        centre = (rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height)
        parts = [star(rng, centre, rng.uniform(0.05, 0.25) * min(width, height))]
        if index % 3 == 0:
            parts.append(star(rng, (centre[0] + 0.1 * width, centre[1]), 0.1 * height))
        items.append(instance([np.clip(part, 0, max(width, height)).tolist() for part in parts], 1))
    return {'img_path': str(path), 'img_id': seed, 'height': height, 'width': width, 'instances': items}


def painted_info(path: Path, width: int = 320, height: int = 256) -> dict[str, Any]:
    """A tote and four disjoint objects, saved without loss, each in its own flat colour."""
    discs = ((160, 128), 120), ((110, 100), 26), ((200, 90), 22), ((130, 180), 24), ((215, 165), 30)
    shapes = [disc(centre, radius) for centre, radius in discs]
    bitmaps = PolygonMasks([[np.array(shape)] for shape in shapes], height, width).to_ndarray()
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    for bitmap, colour in zip(bitmaps, PALETTE, strict=False):
        image[bitmap] = colour
    cv2.imwrite(str(path), image)
    items = [instance([shape], int(index > 0)) for index, shape in enumerate(shapes)]
    return {'img_path': str(path), 'img_id': 0, 'height': height, 'width': width, 'instances': items}


def covered(points: np.ndarray, height: int, width: int, fine: int = 8) -> np.ndarray:
    """(H, W) bool, the pixels of which a polygon (V, 2) covers at least half, even-odd, from ``fine``² points."""
    y, x = ((np.arange(size * fine) + 0.5) / fine for size in (height, width))
    inside = np.zeros((len(y), len(x)), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crossed = (y >= min(y0, y1)) & (y < max(y0, y1))
        inside[crossed] ^= (x0 + (y[crossed] - y0) * (x1 - x0) / (y1 - y0))[:, None] < x
    return inside.reshape(height, fine, width, fine).mean((1, 3)) >= 0.5


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0
