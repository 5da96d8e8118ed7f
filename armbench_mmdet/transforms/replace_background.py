"""Objects on another surface."""

import dataclasses

import cv2
import numpy as np
from mmdet.registry import TRANSFORMS

from armbench_mmdet.transforms.sample import TOTE, SeededTransform, limited, replace_masks

_EDGE_SOFTNESS_PX = 0.8
_SHADOW_FRAC = 0.02
_NOISE_LEVELS = 6


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class ReplaceBackground(SeededTransform):
    """Leave the objects where they lie, and put a plain surface for everything else, the tote included.

    The same-object set shows objects without a tote, often on a white table, where a model that knows dark totes alone
    takes dark objects for the background. The surface has one grey level that varies slowly, noise, and the objects'
    soft shadow; the tote is no longer an instance. A sample without objects passes unchanged. It belongs after
    ``RenderImage``. Cut-outs before other backgrounds are a known way to new scenes (Dwibedi et al. 2017).

    - Required Keys: img, gt_bboxes_labels, gt_masks (Polygons or BitmapMasks); optional: gt_ignore_flags
    - Modified Keys: img, gt_bboxes (tight), gt_bboxes_labels, gt_masks, gt_ignore_flags

    Args:
        prob: Probability of doing anything.
        grey_range: Grey levels of the surface.
        shadow: Most light that the shadow takes, as a fraction.
    """

    grey_range: tuple[float, float] = limited((100.0, 250.0), 0, 255)
    shadow: float = limited(0.6)

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Change the background of ``results``."""
        is_object = results['gt_bboxes_labels'] != TOTE
        image, masks = results['img'], results['gt_masks'][is_object]
        if not is_object.any():
            return results
        height, width = image.shape[:2]
        coarse = rng.uniform(*self.grey_range) * rng.uniform(0.85, 1.15, (5, 6, 1)) * rng.uniform(0.97, 1.03, 3)
        smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, rng.uniform(0, _NOISE_LEVELS), (height, width, 1)).astype(np.float32)
        covered = masks.to_ndarray().any(axis=0).astype(np.float32)
        shade = cv2.GaussianBlur(covered, (0, 0), _SHADOW_FRAC * width)[..., None]
        alpha = cv2.GaussianBlur(covered, (0, 0), _EDGE_SOFTNESS_PX)[..., None]
        surface = (smooth + noise) * (1 - rng.uniform(0, self.shadow) * shade)
        mixed = alpha * image + (1 - alpha) * surface
        results['img'] = np.clip(np.rint(mixed), 0, 255).astype(image.dtype)
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][is_object]
        return replace_masks(results, masks)
