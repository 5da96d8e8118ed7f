"""A crop around the tote."""

import dataclasses

import numpy as np
from mmdet.registry import TRANSFORMS

from armbench_mmdet.transforms.sample import SeededTransform, crop_to, largest_tote, limited


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class ToteCropJitter(SeededTransform):
    """Crop around the largest tote, each side moved at random, so that small objects get pixels.

    It works before ``RenderImage``, where the crop gains resolution, and on an image already loaded. A sample
    without a tote passes unchanged; so does one whose crop would be under ``min_size_px``.

    - Required Keys: img or img_shape, gt_bboxes, gt_bboxes_labels; optional: gt_masks, gt_ignore_flags
    - Modified Keys: img, img_shape, gt_bboxes (tight around what is left of the masks), gt_bboxes_labels, gt_masks,
      gt_ignore_flags, homography_matrix

    Args:
        prob: Probability of doing anything.
        margin_frac: Distance of the crop's sides from the tote, as a fraction of the tote's size.
        jitter_frac: Each side moves by up to this fraction of the tote's size, in or out.
        min_size_px: Smallest side of a crop.
        tote_label: Label of the tote.
    """

    margin_frac: float = 0.05
    jitter_frac: float = limited(0.1)
    min_size_px: int = 32
    tote_label: int = 0

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Crop ``results``."""
        tote = largest_tote(results, self.tote_label)
        if tote is None:
            return results
        height, width = results['img'].shape[:2] if 'img' in results else results['img_shape']
        size = np.tile(tote[2:] - tote[:2], 2)
        outwards = np.array([-1, -1, 1, 1]) * self.margin_frac + rng.uniform(-self.jitter_frac, self.jitter_frac, 4)
        x1, y1, x2, y2 = np.clip(np.round(tote + size * outwards), 0, [width, height] * 2).astype(int).tolist()
        if min(x2 - x1, y2 - y1) < max(self.min_size_px, 1):
            return results
        return crop_to(results, x1, y1, x2, y2)
