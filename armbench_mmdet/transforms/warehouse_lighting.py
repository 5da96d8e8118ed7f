"""The light of a warehouse, and the camera in it."""

import dataclasses
import math

import cv2
import numpy as np
from mmdet.registry import TRANSFORMS

from armbench_mmdet.transforms.sample import SeededTransform, limited

_PATCH_PX = 384
_NOISE_STEP = 32.0


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class WarehouseLighting(SeededTransform):
    """Exposure, white balance, vignette, specular glare, sensor noise and motion blur.

    Pixels change, nothing moves. It belongs after ``RenderImage``, on the small image.

    - Required Keys: img
    - Modified Keys: img

    Args:
        prob: Probability of doing anything.
        exposure_stops: The exposure changes by up to this many stops, either way.
        white_balance_frac: Gain of each colour channel varies by up to this fraction.
        vignette_frac: Largest darkening of the corners.
        glare_prob: Probability of one to three bright spots.
        noise_levels: Range of the standard deviation of the noise at full white, in grey levels.
        blur_prob: Probability of motion blur.
        blur_length_px: Range of its length.
    """

    exposure_stops: float = 0.7
    white_balance_frac: float = limited(0.1)
    vignette_frac: float = limited(0.4)
    glare_prob: float = limited(0.3)
    noise_levels: tuple[float, float] = limited((0.0, 8.0), 0, math.inf)
    blur_prob: float = limited(0.2)
    blur_length_px: tuple[int, int] = limited((3, 9), 1, math.inf)

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Relight ``results['img']``."""
        kind = results['img'].dtype
        image = np.clip(results['img'], 0, 255).astype(np.uint8)
        image = self._balance(image, rng)
        image = self._shade(image, rng)
        if rng.random() < self.blur_prob:
            image = cv2.filter2D(image, -1, _motion(rng.uniform(*self.blur_length_px), rng.uniform(0, np.pi)))
        results['img'] = _noise(image, rng.uniform(*self.noise_levels), rng).astype(kind, copy=False)
        return results

    def _balance(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Exposure and white balance, in one look-up table for each channel."""
        gain = 2.0 ** rng.uniform(-self.exposure_stops, self.exposure_stops)
        channel = 1 + rng.uniform(-self.white_balance_frac, self.white_balance_frac, 3)
        table = np.clip(np.arange(256)[:, None] * gain * channel, 0, 255).round().astype(np.uint8)
        return cv2.LUT(image, table[None])

    def _shade(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Vignette and glare, computed coarsely since they vary slowly."""
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        corner = rng.uniform(0, self.vignette_frac)
        shade = 1 - corner * (x**2 + y**2) / 2
        glare = np.zeros_like(shade)
        if rng.random() < self.glare_prob:
            for _ in range(rng.integers(1, 4)):
                cx, cy, strength = rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9), rng.uniform(60, 220)
                wide, tall = rng.uniform(0.05, 0.3, 2)
                glare += strength * np.exp(-(((x - cx) / wide) ** 2) - ((y - cy) / tall) ** 2)
        # Eight bits throughout: OpenCV multiplies and adds them twenty times faster than mixed types.
        size = image.shape[1::-1]
        shade_8, glare_8 = (
            cv2.resize(np.repeat(np.clip(plane, 0, 255).astype(np.uint8)[..., None], 3, axis=2), size)
            for plane in (shade * 255, glare)
        )
        return cv2.add(cv2.multiply(image, shade_8, scale=1 / 255), glare_8)


def _motion(length_px: float, angle: float) -> np.ndarray:
    """Kernel of a straight, even motion of ``length_px`` at ``angle`` (radians)."""
    size = int(np.ceil(length_px)) | 1
    steps = np.linspace(-0.5, 0.5, 8 * size) * (length_px - 1)
    rows, columns = (np.round(size // 2 + steps * way).astype(int) for way in (np.sin(angle), np.cos(angle)))
    kernel = np.zeros((size, size), np.float32)
    np.add.at(kernel, (rows, columns), 1)
    return kernel / kernel.sum()


def _noise(image: np.ndarray, white_level: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose variance is a tenth read noise, the rest proportional to the light, as a sensor's is."""
    # OpenCV's generator is ten times faster than NumPy's; a repeated patch of noise looks like noise.
    cv2.setRNGSeed(int(rng.integers(2**31)))
    height, width = image.shape[:2]
    patch = np.empty((min(height, _PATCH_PX), min(width, _PATCH_PX), 3), np.int16)
    cv2.randn(patch, np.zeros(3), np.full(3, _NOISE_STEP))
    normal = np.tile(patch, (-(-height // _PATCH_PX), -(-width // _PATCH_PX), 1))[:height, :width]
    spread = white_level * _NOISE_STEP * np.sqrt(0.1 + 0.9 * np.arange(256) / 255)
    scaled = cv2.multiply(normal, cv2.LUT(image, spread.round().astype(np.int16)), scale=1 / _NOISE_STEP**2)
    return cv2.add(image, scaled, dtype=cv2.CV_8U)
