"""More objects in the tote."""

import dataclasses
import math
from collections.abc import Sized

import cv2
import numpy as np
from mmdet.registry import TRANSFORMS

from armbench_mmdet.transforms.polygons import Polygons
from armbench_mmdet.transforms.sample import TOTE, SeededTransform, limited, replace_masks

_TRIES = 10
_INSIDE_FRAC = 0.8
_SMALLEST_PX2 = 64
_EDGE_SOFTNESS_PX = 1.0

Piece = tuple[np.ndarray, np.ndarray, int]
"""An object by itself: (h, w, 3) pixels, (h, w) uint8 mask, label."""
Window = tuple[slice, slice]


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
    same_object_prob: float = limited(0.5)
    scale_range: tuple[float, float] = limited((0.8, 1.2), 0.05, math.inf)
    min_visible_frac: float = limited(0.3)

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
            alpha = cv2.GaussianBlur(kept.astype(np.float32), (0, 0), _EDGE_SOFTNESS_PX)[..., None]
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
            if not skip and label != TOTE and mask.sum(dtype=np.int64) >= _SMALLEST_PX2:
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

    It is the window of the image, that of the object, and its uint8 mask there, cut to the region.
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
