"""The scene from farther away."""

import dataclasses

import cv2
import numpy as np
from mmdet.registry import TRANSFORMS

from armbench_mmdet.transforms.sample import SeededTransform, limited, replace_masks


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class ZoomOutTote(SeededTransform):
    """Shrink the scene within its canvas, before a dark or blurred surround, as the zoomed-out set looks.

    The canvas keeps its size, so it belongs after the image is rendered. Instances that shrink to nothing are removed.

    - Required Keys: img, gt_bboxes_labels, gt_masks (Polygons or BitmapMasks); optional: gt_ignore_flags
    - Modified Keys: img, gt_bboxes (tight), gt_bboxes_labels, gt_masks, gt_ignore_flags, homography_matrix

    Args:
        prob: Probability of doing anything.
        scale_range: Smallest and largest size of the scene, as a fraction of the canvas.
        blurred_prob: Probability of a blurred, darkened copy of the scene as surround; otherwise it is dark.
        dark_range: Grey levels of a dark surround.
    """

    scale_range: tuple[float, float] = limited((0.3, 0.8), 0.01, 1)
    blurred_prob: float = limited(0.5)
    dark_range: tuple[float, float] = limited((5.0, 60.0), 0, 255)

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Shrink ``results``."""
        scale = rng.uniform(*self.scale_range)
        image = results['img']
        height, width = image.shape[:2]
        new_width, new_height = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (np.array([width - new_width + 1, height - new_height + 1]) * rng.random(2)).astype(int).tolist()
        blurred, level = rng.random() < self.blurred_prob, rng.uniform(*self.dark_range)
        canvas = _blurred(image) if blurred else _dark(image, level, rng)
        small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
        canvas[top : top + new_height, left : left + new_width] = small
        results['img'] = canvas
        masks = results['gt_masks'].resize((new_height, new_width)).expand(height, width, top, left)
        matrix = np.array([[new_width / width, 0, left], [0, new_height / height, top], [0, 0, 1]])
        return replace_masks(results, masks, matrix)


def _blurred(image: np.ndarray) -> np.ndarray:
    """A copy of the image that keeps only its coarsest structure, at half its brightness."""
    height, width = image.shape[:2]
    coarse = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.convertScaleAbs(smooth, alpha=0.5).astype(image.dtype)


def _dark(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A dark surface of the image's size, its grey level varying slowly."""
    height, width = image.shape[:2]
    coarse = np.repeat(np.clip(level * rng.uniform(0.6, 1.4, (4, 4, 1)), 0, 255).astype(np.uint8), 3, axis=2)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(image.dtype)
