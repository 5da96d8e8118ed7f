"""A crop around the tote."""

import dataclasses

import numpy as np
from mmdet.registry import TRANSFORMS

from armbench_mmdet.transforms.sample import TOTE, SeededTransform, limited, replace_masks

_SMALLEST_PX = 32


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class ToteCropJitter(SeededTransform):
    """Crop around the largest tote, each side moved at random, so that small objects get pixels.

    It works before ``RenderImage``, where the crop gains resolution, and on an image already loaded. A sample
    without a tote passes unchanged; so does one whose crop would be under 32 px.

    - Required Keys: img_shape, gt_bboxes, gt_bboxes_labels, gt_masks (Polygons or BitmapMasks); optional: img,
      gt_ignore_flags
    - Modified Keys: img, img_shape, gt_bboxes (tight around what is left of the masks), gt_bboxes_labels, gt_masks,
      gt_ignore_flags, homography_matrix

    Args:
        prob: Probability of doing anything.
        margin_frac: Distance of the crop's sides from the tote, as a fraction of the tote's size.
        jitter_frac: Each side moves by up to this fraction of the tote's size, in or out.
    """

    margin_frac: float = 0.05
    jitter_frac: float = limited(0.1)

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Crop ``results``."""
        totes = results['gt_bboxes'].tensor.numpy()[results['gt_bboxes_labels'] == TOTE]
        if not len(totes):
            return results
        tote = totes[np.prod(totes[:, 2:] - totes[:, :2], axis=1).argmax()]
        height, width = results['img_shape']
        size = np.tile(tote[2:] - tote[:2], 2)
        outwards = np.array([-1, -1, 1, 1]) * self.margin_frac + rng.uniform(-self.jitter_frac, self.jitter_frac, 4)
        window = np.clip(np.round(tote + size * outwards), 0, [width, height] * 2).astype(int)
        x1, y1, x2, y2 = window.tolist()
        if min(x2 - x1, y2 - y1) < _SMALLEST_PX:
            return results
        if 'img' in results:
            results['img'] = results['img'][y1:y2, x1:x2]
        results['img_shape'] = (y2 - y1, x2 - x1)
        return replace_masks(results, results['gt_masks'].crop(window), np.array([[1, 0, -x1], [0, 1, -y1], [0, 0, 1]]))
