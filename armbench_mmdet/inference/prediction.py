"""What the model says about one image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from armbench_mmdet.inference.image_files import read_image
from armbench_mmdet.report.overlay import Instance, draw_overlay


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The N instances predicted in an image.

    Attributes:
        image_id: Place of the image among those asked for, from 1; broken images keep theirs.
        path: The image file.
        height: In px, upright.
        width: In px, upright.
        boxes: ``(N, 4)`` float32, x1, y1, x2, y2 in px.
        scores: ``(N,)`` float32, 0 to 1.
        labels: ``(N,)`` int64, indices into ``classes``.
        masks: N compressed COCO RLE dicts; ``pycocotools.mask.decode`` gives bitmaps.
        classes: Names of the labels.
    """

    image_id: int
    path: Path
    height: int
    width: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """N."""
        return len(self.scores)

    def above(self, threshold: float) -> Prediction:
        """The instances with a score of at least ``threshold``."""
        kept = np.flatnonzero(self.scores >= threshold)
        arrays = {key: getattr(self, key)[kept] for key in ('boxes', 'scores', 'labels')}
        return dataclasses.replace(self, **arrays, masks=[self.masks[i] for i in kept])

    def overlay(self) -> np.ndarray:
        """The image with all N drawn on it, (H, W, 3) uint8, BGR; small images are enlarged.

        Raises:
            InputError: The image file is gone.
        """
        rows = zip(self.masks, self.labels.tolist(), self.scores.tolist(), strict=True)
        instances = [Instance(mask, self.classes[label], score) for mask, label, score in rows]
        return draw_overlay(read_image(self.path), instances)
