"""Corrupted photos, for measuring what a model loses by them: ImageNet-C's fifteen, and three of a warehouse."""

import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecorruptions
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from armbench_mmdet.errors import InputError

SEVERITIES = (1, 2, 3, 4, 5)


def arm_motion(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The arm sweeps through the view: a dark bar from one side to the other, its edges blurred by the motion.

    Half its width, and the blur of each edge, are 4 % of the image's longer side for each degree of severity; more of
    it hides the scene the severer it is.
    """
    height, width = image.shape[:2]
    reach, angle = max(height, width), rng.uniform(0, np.pi)
    across = np.array([-np.sin(angle), np.cos(angle)])
    centre = np.array([width, height]) * rng.uniform(0.25, 0.75, 2)
    y, x = np.mgrid[:height, :width]
    distance = np.abs((x - centre[0]) * across[0] + (y - centre[1]) * across[1]) / (0.04 * severity * reach)
    cover = np.clip(1.5 - distance, 0, 1)[..., None] * (0.5 + 0.08 * severity)
    arm = rng.uniform(20, 60)
    return image * (1 - cover) + arm * cover


def exposure_flicker(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Lamps flicker while a rolling shutter reads the rows: bands of light, and a wrong exposure of the whole."""
    gain = 2.0 ** (rng.choice([-1, 1]) * 0.35 * severity)
    rows = np.arange(image.shape[0]) / image.shape[0]
    bands = 1 + 0.1 * severity * np.sin(2 * np.pi * (rng.uniform(2, 5) * rows + rng.random()))
    return image * (gain * bands[:, None, None])


def lens_smear(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Grease on the lens: blurred and veiled in up to five round patches, one more for each degree of severity."""
    height, width = image.shape[:2]
    reach = max(height, width)
    y, x = np.mgrid[:height, :width]
    cover = np.zeros((height, width))
    for cx, cy, size in rng.uniform((0, 0, 0.1), (width, height, 0.25), (severity, 3)):
        cover = np.maximum(cover, np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / (size * reach) ** 2)))
    blurred = cv2.GaussianBlur(image, (0, 0), 0.006 * severity * reach)
    return image * (1 - cover[..., None]) + (blurred * 0.85 + 30.0) * cover[..., None]


WAREHOUSE = {one.__name__: one for one in (arm_motion, exposure_flicker, lens_smear)}
CORRUPTIONS = (*imagecorruptions.get_corruption_names('common'), *WAREHOUSE)


@TRANSFORMS.register_module()
class CorruptImage(BaseTransform):
    """Corrupt a photo, as ImageNet-C does (arXiv 1903.12261) or as a warehouse does.

    It belongs after ``RenderImage``: the severities are made for images of the network's size. The same photo is
    corrupted in the same way each time, whichever process loads it.

    - Required Keys: img, img_path
    - Modified Keys: img

    Args:
        corruption: One of ``CORRUPTIONS``.
        severity: From 1 to 5; 0 leaves the photo as it is.

    Raises:
        InputError: There is no such corruption or severity.
    """

    def __init__(self, corruption: str, severity: int) -> None:
        if corruption not in CORRUPTIONS:
            raise InputError(f'corruption must be one of {", ".join(CORRUPTIONS)}, got {corruption!r}')
        if severity not in (0, *SEVERITIES):
            raise InputError(f'severity must be a whole number from 0 to 5, got {severity!r}')
        self.corruption = corruption
        self.severity = severity

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Corrupt ``results['img']``, (H, W, 3) BGR."""
        if not self.severity:
            return results
        image = np.clip(results['img'], 0, 255).astype(np.uint8)
        seed = zlib.crc32(f'{Path(results["img_path"]).name} {self.corruption}'.encode())
        if self.corruption in WAREHOUSE:
            changed = WAREHOUSE[self.corruption](image, self.severity, np.random.default_rng(seed))
        else:
            state = np.random.get_state()  # noqa: NPY002 - what the library draws from
            np.random.seed(seed)  # noqa: NPY002
            rgb = np.ascontiguousarray(image[..., ::-1])
            own = {'seed': seed} if self.corruption in ('impulse_noise', 'glass_blur') else {}  # a generator of theirs
            changed = imagecorruptions.corrupt(rgb, self.severity, self.corruption, **own)[..., ::-1]
            np.random.set_state(state)  # noqa: NPY002
        results['img'] = np.clip(changed, 0, 255).round().astype(results['img'].dtype)
        return results
