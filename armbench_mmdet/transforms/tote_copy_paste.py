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
        bitmaps = np.ascontiguousarray(results['gt_masks'].to_ndarray(), np.uint8)
        is_tote = results['gt_bboxes_labels'] == TOTE
        donors = [piece for source in [results, *results.get('mix_results', [])] for piece in self._pieces(source)]
        if not donors or not bitmaps[is_tote].any():
            return results
        tote = bitmaps[is_tote].max(axis=0)
        below = ~is_tote | (not _includes(tote, bitmaps[~is_tote]))
        before = bitmaps.sum(axis=(1, 2), dtype=np.int64)
        region = _hull(tote)
        count = int(rng.integers(1, max(self.max_pastes, 1) + 1))
        chosen = rng.integers(len(donors), size=1 if rng.random() < self.same_object_prob else count)
        image, planes, areas = results['img'].copy(), list(bitmaps.copy()), list(before)
        labels: list[int] = []
        for index in np.resize(chosen, count):
            pixels, mask, label = self._turned(donors[index], rng)
            place = _place(mask, region, rng)
            if place is None:
                continue
            window, kept = self._paste(image, pixels, mask, region, place)
            for lower, cut in zip(planes, [*below, *[True] * len(labels)], strict=True):
                if cut:
                    lower[window] &= 1 - kept
            planes.append(np.zeros(region.shape, np.uint8))
            planes[-1][window] = kept
            labels.append(label)
            areas.append(int(kept.sum(dtype=np.int64)))
        if labels:
            results['img'] = image
            self._store(results, np.stack(planes), labels, np.array(areas))
        return results

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

    @staticmethod
    def _paste(
        image: np.ndarray, pixels: np.ndarray, mask: np.ndarray, region: np.ndarray, place: tuple[int, int]
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Blend an object into the image, in place; return its window and its uint8 mask there, cut to the region."""
        x, y = place
        height, width = region.shape
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + mask.shape[1], width), min(y + mask.shape[0], height)
        inner = (slice(y1 - y, y2 - y), slice(x1 - x, x2 - x))
        window = (slice(y1, y2), slice(x1, x2))
        kept = mask[inner] & region[window]
        alpha = cv2.GaussianBlur(kept.astype(np.float32), (0, 0), _EDGE_SOFTNESS_PX)[..., None]
        image[window] = np.rint(alpha * pixels[inner] + (1 - alpha) * image[window]).astype(image.dtype)
        return window, kept

    def _store(self, results: dict, bitmaps: np.ndarray, labels: list[int], before: np.ndarray) -> None:
        """Add the pasted instances, cut the masks below them, and remove what is hidden."""
        results['gt_bboxes_labels'] = np.append(results['gt_bboxes_labels'], np.array(labels, np.int64))
        if 'gt_ignore_flags' in results:
            results['gt_ignore_flags'] = np.append(results['gt_ignore_flags'], np.zeros(len(labels), bool))
        is_hidden = bitmaps.sum(axis=(1, 2), dtype=np.int64) < self.min_visible_frac * before
        bitmaps[is_hidden & (results['gt_bboxes_labels'] != TOTE)] = 0
        replace_masks(results, Polygons.from_bitmaps(bitmaps))


def _includes(tote: np.ndarray, objects: np.ndarray) -> bool:
    """Whether the tote's mask covers most of the objects' pixels, as an outline would."""
    total = objects.sum(dtype=np.int64)
    return bool(total) and bool((objects & tote).sum(dtype=np.int64) > total / 2)


def _hull(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8, the convex hull of a mask that is not empty."""
    points = np.concatenate(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
    hull = np.zeros(mask.shape, np.uint8)
    return cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)


def _place(mask: np.ndarray, region: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """A left and top at which most of an object lies in the region, None when no try finds one."""
    left, top, width, height = cv2.boundingRect(region)
    area = mask.sum(dtype=np.int64)
    padded = np.pad(region, ((mask.shape[0],) * 2, (mask.shape[1],) * 2))
    for _ in range(_TRIES if area else 0):
        x = int(rng.integers(left, left + width)) - mask.shape[1] // 2
        y = int(rng.integers(top, top + height)) - mask.shape[0] // 2
        window = padded[y + mask.shape[0] :, x + mask.shape[1] :][: mask.shape[0], : mask.shape[1]]
        if (mask & window).sum(dtype=np.int64) >= _INSIDE_FRAC * area:
            return x, y
    return None
