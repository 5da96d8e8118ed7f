"""What is predicted in one image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The N instances predicted in an image.

    Attributes:
        image_id: Place of the image among those asked for, from 1, broken ones counted; or its id in a COCO file.
        path: The image file; an empty path for an array.
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

    def for_evaluation(self) -> dict[str, Any]:
        """The prediction as ``armbench_mmdet.evaluation.metric`` has it."""
        arrays = {'bboxes': self.boxes, 'scores': self.scores, 'labels': self.labels, 'masks': self.masks}
        return {'img_id': self.image_id, **arrays}

    def overlay(self) -> np.ndarray:
        """The image with all N drawn on it by armbench-mmdet, (H, W, 3) uint8, BGR; small images are enlarged.

        Raises:
            InputError: The image file is gone.
        """
        from armbench_mmdet.datasets.images import read_image
        from armbench_mmdet.visualization.instances import Instance, draw_overlay

        rows = zip(self.masks, self.labels.tolist(), self.scores.tolist(), strict=True)
        instances = [Instance(mask, self.classes[label], score) for mask, label, score in rows]
        return draw_overlay(read_image(self.path), instances)
