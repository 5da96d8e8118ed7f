"""The custom augmentations."""

import dataclasses
from collections.abc import Sized

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.polygons import Polygons

TOTE = 0
"""The label of the tote; every other one is an object."""
_SMALLEST_CROP_PX = 32
_SMALLEST_PIECE_PX2 = 64
_PASTED_SOFTNESS_PX = 1.0
_TRIES = 10
_INSIDE_FRAC = 0.8
_EDGE_SOFTNESS_PX = 0.8
_SHADOW_FRAC = 0.02
_SURFACE_NOISE_LEVELS = 6
_PATCH_PX = 384
_NOISE_STEP = 32.0

Piece = tuple[np.ndarray, np.ndarray, int]
"""An object by itself: (h, w, 3) pixels, (h, w) uint8 mask, label."""
Window = tuple[slice, slice]


def replace_masks(results: dict, masks: BitmapMasks | Polygons, matrix: np.ndarray | None = None) -> dict:
    """Give a sample the masks of its instances after a change, and tight boxes; drop those with no pixel left.

    Args:
        results: The sample, changed in place and returned.
        masks: One mask for each instance it has.
        matrix: ``(3, 3)``, how the pixels moved.
    """
    visible = masks.areas > 0
    results['gt_masks'] = masks[visible]
    results['gt_bboxes'] = HorizontalBoxes(masks.get_bboxes('hbox').tensor[visible])
    for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
        if key in results:
            results[key] = results[key][visible]
    if matrix is not None:
        earlier = results.get('homography_matrix', np.eye(3, dtype=np.float32))
        results['homography_matrix'] = matrix.astype(np.float32) @ earlier
    return results


@dataclasses.dataclass(eq=False)
class SeededTransform(BaseTransform):
    """A transform that acts with probability ``prob``, from one number drawn of NumPy's global state.

    Training seeds that state for every sample, and mmcv's ``cache_random_params`` repeats the number; all else follows
    from it. When the transform does not act, the results pass untouched.

    Args:
        prob: Probability of acting.
    """

    prob: float = 0.5

    def __post_init__(self) -> None:  # noqa: D105
        if not 0 <= self.prob <= 1:
            raise InputError(f'prob must be from 0 to 1, got {self.prob!r}')

    @cache_randomness
    def _seed(self) -> int:
        return int(np.random.randint(2**31 - 1))  # noqa: NPY002

    def transform(self, results: dict) -> dict:
        """Change ``results`` with probability ``prob``."""
        rng = np.random.default_rng(self._seed())
        return self.apply(results, rng) if rng.random() < self.prob else results

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Change ``results``; every random choice comes from ``rng``."""
        raise NotImplementedError


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
    jitter_frac: float = 0.1

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
        if min(x2 - x1, y2 - y1) < _SMALLEST_CROP_PX:
            return results
        if 'img' in results:
            results['img'] = results['img'][y1:y2, x1:x2]
        results['img_shape'] = (y2 - y1, x2 - x1)
        return replace_masks(results, results['gt_masks'].crop(window), np.array([[1, 0, -x1], [0, 1, -y1], [0, 0, 1]]))


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

    scale_range: tuple[float, float] = (0.3, 0.8)
    blurred_prob: float = 0.5
    dark_range: tuple[float, float] = (5.0, 60.0)

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Shrink ``results``."""
        scale = rng.uniform(*self.scale_range)
        image = results['img']
        height, width = image.shape[:2]
        new_width, new_height = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (np.array([width - new_width + 1, height - new_height + 1]) * rng.random(2)).astype(int).tolist()
        is_blurred, level = rng.random() < self.blurred_prob, rng.uniform(*self.dark_range)
        if is_blurred:  # only the coarsest structure, at half its brightness
            coarse = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)
            smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            canvas = cv2.convertScaleAbs(smooth, alpha=0.5).astype(image.dtype)
        else:  # a grey level that varies slowly
            coarse = np.repeat(np.clip(level * rng.uniform(0.6, 1.4, (4, 4, 1)), 0, 255).astype(np.uint8), 3, axis=2)
            canvas = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(image.dtype)
        small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
        canvas[top : top + new_height, left : left + new_width] = small
        results['img'] = canvas
        masks = results['gt_masks'].resize((new_height, new_width)).expand(height, width, top, left)
        matrix = np.array([[new_width / width, 0, left], [0, new_height / height, top], [0, 0, 1]])
        return replace_masks(results, masks, matrix)


@TRANSFORMS.register_module()
@dataclasses.dataclass(eq=False)
class ToteCopyPaste(SeededTransform):
    """Paste objects into the tote: turned, rescaled, with softened edges, over what lies there.

    Objects come from the sample itself and, inside mmdet's ``MultiImageMixDataset``, from one other image. With
    ``same_object_prob`` one object is pasted several times, as in the same-object set. Masks below are cut, and an
    object of which less than ``min_visible_frac`` stays visible is removed. The tote's mask is cut where this image's
    tote excludes its objects, and left whole where it includes them. A sample without tote or object passes unchanged.

    - Required Keys: img, gt_bboxes_labels, gt_masks; optional: gt_ignore_flags, mix_results
    - Modified Keys: img, gt_bboxes (tight), gt_bboxes_labels, gt_masks (Polygons), gt_ignore_flags

    Args:
        prob: Probability of doing anything.
        max_pastes: Most objects to paste.
        same_object_prob: Probability that all pastes show one object.
        scale_range: Size of a pasted object relative to its original.
        min_visible_frac: Smallest visible fraction, of what was visible before, that an object may keep.
    """

    max_pastes: int = 5
    same_object_prob: float = 0.5
    scale_range: tuple[float, float] = (0.8, 1.2)
    min_visible_frac: float = 0.3

    def get_indices(self, dataset: Sized) -> list[int]:
        """The other image to take objects from, when ``MultiImageMixDataset`` asks."""
        return [self._seed() % len(dataset)]

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Paste objects into ``results``."""
        bitmaps = np.array(results['gt_masks'].to_ndarray(), np.uint8)
        is_tote = results['gt_bboxes_labels'] == TOTE
        donors = [piece for source in [results, *results.get('mix_results', [])] for piece in self._pieces(source)]
        if not donors or not bitmaps[is_tote].any():
            return results
        tote, objects = bitmaps[is_tote].max(axis=0), bitmaps[~is_tote]
        # A tote includes its objects when its mask covers most of their pixels, as an outline would.
        includes = 2 * (objects & tote).sum(dtype=np.int64) > objects.sum(dtype=np.int64)
        outline = np.concatenate(cv2.findContours(tote, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
        region = cv2.fillConvexPoly(np.zeros_like(tote), cv2.convexHull(outline), 1)
        count = int(rng.integers(1, max(self.max_pastes, 1) + 1))
        chosen = rng.integers(len(donors), size=1 if rng.random() < self.same_object_prob else count)
        image, labels = results['img'].copy(), results['gt_bboxes_labels'].tolist()
        planes, areas = list(bitmaps), bitmaps.sum(axis=(1, 2), dtype=np.int64).tolist()
        for index in np.resize(chosen, count):
            pixels, mask, label = self._turned(donors[index], rng)
            place = _place(mask, region, rng)
            if place is None:
                continue
            window, inner, kept = place
            alpha = cv2.GaussianBlur(kept.astype(np.float32), (0, 0), _PASTED_SOFTNESS_PX)[..., None]
            image[window] = np.rint(alpha * pixels[inner] + (1 - alpha) * image[window]).astype(image.dtype)
            for plane, below in zip(planes, labels, strict=True):
                if below != TOTE or not includes:
                    plane[window] &= 1 - kept
            planes.append(np.zeros_like(tote))
            planes[-1][window] = kept
            labels.append(label)
            areas.append(int(kept.sum(dtype=np.int64)))
        pasted = len(labels) - len(is_tote)
        if not pasted:
            return results
        results['img'], results['gt_bboxes_labels'] = image, np.array(labels, np.int64)
        if 'gt_ignore_flags' in results:
            results['gt_ignore_flags'] = np.append(results['gt_ignore_flags'], np.zeros(pasted, bool))
        bitmaps = np.stack(planes)
        is_hidden = bitmaps.sum(axis=(1, 2), dtype=np.int64) < self.min_visible_frac * np.array(areas)
        bitmaps[is_hidden & (results['gt_bboxes_labels'] != TOTE)] = 0
        return replace_masks(results, Polygons.from_bitmaps(bitmaps))

    def _pieces(self, source: dict) -> list[Piece]:
        """All objects of a sample that are worth copying."""
        pieces = []
        ignored = source.get('gt_ignore_flags', np.zeros(len(source['gt_masks']), bool))
        bitmaps = np.ascontiguousarray(source['gt_masks'].to_ndarray(), np.uint8)
        for plane, label, skip in zip(bitmaps, source['gt_bboxes_labels'], ignored, strict=True):
            x, y, width, height = cv2.boundingRect(plane)
            mask = plane[y : y + height, x : x + width]
            if not skip and label != TOTE and mask.sum(dtype=np.int64) >= _SMALLEST_PIECE_PX2:
                pieces.append((source['img'][y : y + height, x : x + width], mask, int(label)))
        return pieces

    def _turned(self, piece: Piece, rng: np.random.Generator) -> Piece:
        """The object turned by any angle, mirrored or not, and rescaled."""
        pixels, mask, label = piece
        height, width = mask.shape
        scale, angle = rng.uniform(*self.scale_range), rng.uniform(0, 360)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        size = (np.ceil(np.abs(matrix[:, :2]) @ [width, height]).astype(int) + 2).tolist()
        matrix[:, 2] = matrix[:, 2] + [(size[0] - width) / 2, (size[1] - height) / 2]
        turned = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cover = cv2.warpAffine(mask * np.uint8(255), matrix, size, flags=cv2.INTER_LINEAR)
        mask = (cover >= 128).astype(np.uint8)
        if rng.random() < 0.5:
            turned, mask = turned[:, ::-1], mask[:, ::-1]
        return turned, mask, label


def _place(mask: np.ndarray, region: np.ndarray, rng: np.random.Generator) -> tuple[Window, Window, np.ndarray] | None:
    """Where most of an object lies in the region, None when no try finds such a place.

    Returns:
        The window of the image, that of the object, and its uint8 mask there, cut to the region.
    """
    left, top, width, height = cv2.boundingRect(region)
    tall, wide = mask.shape
    area = mask.sum(dtype=np.int64)
    for _ in range(_TRIES if area else 0):
        x = int(rng.integers(left, left + width)) - wide // 2
        y = int(rng.integers(top, top + height)) - tall // 2
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + wide, region.shape[1]), min(y + tall, region.shape[0])
        window, inner = (slice(y1, y2), slice(x1, x2)), (slice(y1 - y, y2 - y), slice(x1 - x, x2 - x))
        kept = mask[inner] & region[window]
        if kept.sum(dtype=np.int64) >= _INSIDE_FRAC * area:
            return window, inner, kept
    return None


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

    grey_range: tuple[float, float] = (100.0, 250.0)
    shadow: float = 0.6

    def apply(self, results: dict, rng: np.random.Generator) -> dict:
        """Change the background of ``results``."""
        is_object = results['gt_bboxes_labels'] != TOTE
        image, masks = results['img'], results['gt_masks'][is_object]
        if not is_object.any():
            return results
        height, width = image.shape[:2]
        coarse = rng.uniform(*self.grey_range) * rng.uniform(0.85, 1.15, (5, 6, 1)) * rng.uniform(0.97, 1.03, 3)
        smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, rng.uniform(0, _SURFACE_NOISE_LEVELS), (height, width, 1)).astype(np.float32)
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
    white_balance_frac: float = 0.1
    vignette_frac: float = 0.4
    glare_prob: float = 0.3
    noise_levels: tuple[float, float] = (0.0, 8.0)
    blur_prob: float = 0.2
    blur_length_px: tuple[int, int] = (3, 9)

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
