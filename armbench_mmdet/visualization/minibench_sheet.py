"""A picture of pictures: scenes beside their masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.minibench.paint import Pixels, hsv
from armbench_mmdet.minibench.scene import MIX, SAME_OBJECT, SUBSETS, ZOOMED_OUT, Scene, render_scene

_SHOWN = (MIX,) * 8 + (ZOOMED_OUT,) * 2 + (SAME_OBJECT,) * 2
_COLUMNS = 3


def draw_masks(scene: Scene) -> Pixels:
    """The picture with every object tinted and outlined, and the tote outlined, ``(H, W, 3) uint8``."""
    image = cv2.convertScaleAbs(scene.image, alpha=0.55)
    tint = np.zeros_like(image)
    edges = []
    for item in scene.objects:
        colour = hsv(0.618 * item.id, 0.75, 1.0)
        mask = (scene.id_map == item.id).astype(np.uint8)
        tint[mask > 0] = colour
        edges.append((mask, colour))
    image = cv2.addWeighted(image, 1.0, tint, 0.45, 0)
    for mask, colour in [(scene.tote_mask.astype(np.uint8), (90, 230, 255)), *edges]:
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, colour, max(1, image.shape[0] // 256))
    return image


def write_contact_sheet(path: Path, *, width_px: int = 320, height_px: int = 256, seed: int = 0) -> None:
    """Write 12 scenes, each beside its masks: 8 of mix, 2 zoomed-out, 2 same-object.

    Args:
        path: ``.png`` or ``.jpg`` file to write.
        width_px: Width of one picture.
        height_px: Height of one picture.
        seed: Seed, as for :func:`make_minibench`; the scenes are the first of its test splits.

    Raises:
        InputError: If the file's type is another, or it cannot be written.
    """
    if path.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise InputError(f'the contact sheet must be a .png or .jpg file, got {str(path)!r}')
    cells = []
    for number, subset in enumerate(_SHOWN):
        index = number - _SHOWN.index(subset)
        rng = np.random.default_rng([seed, SUBSETS.index(subset), 2, index])
        scene = render_scene(rng, subset, width_px, height_px)
        cell = np.concatenate([scene.image, draw_masks(scene)], axis=1)
        cells.append(cv2.copyMakeBorder(cell, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
    rows = [np.concatenate(cells[i : i + _COLUMNS], axis=1) for i in range(0, len(cells), _COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 90]):
        raise InputError(f'the contact sheet must be writable, got {str(path)!r}')
