"""Test-time augmentation for instance masks: several views of an image, one answer."""

from typing import Any

import numpy as np
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import RleMasks, encode_switches
from armbench_mmdet.masks.runs import Runs, runs_of, shared_pixels


@MODELS.register_module()
class MaskTTAModel(BaseTTAModel):
    """Merges the instances that a model finds in flipped and scaled views of an image; stock's drops masks.

    The surest instance takes from each other view the one of its class whose mask overlaps it most, by at least
    ``iou_threshold``. The score of a merged instance is the sum of theirs over the number of views; its mask has the
    pixels that more than half of them, weighted by score, agree on, and its box is the weighted mean. Masks are flipped
    and merged as run lengths.

    Args:
        iou_threshold: Least IoU of masks that show one instance, above 0 and at most 1.
        max_per_img: Instances kept of an image.
        **kwargs: As for mmengine's ``BaseTTAModel``; ``module`` is the model.
    """

    def __init__(self, iou_threshold: float = 0.5, max_per_img: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < iou_threshold <= 1:
            raise InputError(f'iou_threshold must be above 0 and at most 1, got {iou_threshold!r} (in tta_model)')
        self.iou_threshold = iou_threshold
        self.max_per_img = max_per_img

    def merge_preds(self, data_samples_list: list[tuple[DetDataSample, ...]]) -> list[DetDataSample]:
        """Merge the views of each image; the first view carries the answer."""
        return [self._merged(views) for views in data_samples_list]

    def _merged(self, views: tuple[DetDataSample, ...]) -> DetDataSample:
        height, width = views[0].ori_shape[:2]
        seen = [view for view in views if len(view.pred_instances)] or views[:1]  # of nothing, masks are a tensor
        found = InstanceData.cat([_unflipped(view, height, width) for view in seen])
        boxes, scores, labels = (found[name].cpu().numpy() for name in ('bboxes', 'scores', 'labels'))
        view_of = np.repeat(np.arange(len(views)), [len(view.pred_instances) for view in views])
        masks = runs_of(list(found.masks), [(height, width)] * len(found))
        groups = _groups(masks, scores, labels, view_of, self.iou_threshold)
        merged_scores = np.array([scores[group].sum() / len(views) for group in groups])
        best = np.argsort(-merged_scores, kind='stable')[: self.max_per_img]
        groups = [groups[i] for i in best]
        switches = [_agreed([_switches(masks, i) for i in group], scores[group]) for group in groups]
        mean_boxes = [np.average(boxes[group], axis=0, weights=np.maximum(scores[group], 1e-9)) for group in groups]
        views[0].pred_instances = InstanceData(
            bboxes=found.bboxes.new_tensor(np.array(mean_boxes).reshape(-1, 4)),
            scores=found.scores.new_tensor(merged_scores[best]),
            labels=found.labels.new_tensor([labels[group[0]] for group in groups]),
            masks=RleMasks([encode_switches(one, (height, width)) for one in switches], height, width),
        )
        return views[0]


def _unflipped(view: DetDataSample, height: int, width: int) -> InstanceData:
    """The instances of a view as they lie in the image itself."""
    found, direction = view.pred_instances, view.get('flip_direction') if view.get('flip') else None
    if direction is None:
        return found
    sides, codes = found.bboxes.clone(), list(found.masks)
    if direction in ('horizontal', 'diagonal'):
        sides[:, [0, 2]] = width - found.bboxes[:, [2, 0]]
    if direction in ('vertical', 'diagonal'):
        sides[:, [1, 3]] = height - found.bboxes[:, [3, 1]]
    masks = runs_of(codes, [(height, width)] * len(codes))
    flipped = [flip_switches(_switches(masks, i), height, width, direction) for i in range(len(codes))]
    codes = [encode_switches(one, (height, width)) for one in flipped]
    return InstanceData(bboxes=sides, scores=found.scores, labels=found.labels, masks=RleMasks(codes, height, width))


def _switches(masks: Runs, i: int) -> np.ndarray:
    return masks.switches[masks.starts[i] : masks.starts[i + 1]].astype(np.int64)


def flip_switches(switches: np.ndarray, height: int, width: int, direction: str) -> np.ndarray:
    """Flip a mask that is given by the positions at which it changes.

    Args:
        switches: ``(S,) int64``, see :class:`~armbench_mmdet.masks.runs.Runs`.
        height: Height of the mask.
        width: Its width.
        direction: ``horizontal``, ``vertical`` or ``diagonal``, which is both.
    """
    heads = np.arange(height, height * width, height)  # of columns; runs end there, and others begin
    cuts = heads[np.searchsorted(switches, heads, 'right') % 2 == 1]
    runs = np.sort(np.concatenate([switches, cuts, cuts])).reshape(-1, 2)
    column = runs[:, :1] // height
    if direction in ('vertical', 'diagonal'):
        runs = (2 * column + 1) * height - runs
    if direction in ('horizontal', 'diagonal'):
        runs = runs + (width - 1 - 2 * column) * height
    places, counts = np.unique(runs, return_counts=True)
    return places[counts % 2 == 1]  # off and on again is no change


def _groups(
    masks: Runs, scores: np.ndarray, labels: np.ndarray, view_of: np.ndarray, iou_threshold: float
) -> list[list[int]]:
    """Instances that show the same thing, at most one of a view, the surest first."""
    free, groups = np.ones(len(scores), bool), []
    for best in np.argsort(-scores, kind='stable'):
        if not free[best]:
            continue
        free[best] = False
        chosen: dict[int, tuple[float, int]] = {}
        for other in np.flatnonzero(free & (labels == labels[best]) & (view_of != view_of[best])):
            shared = shared_pixels(masks, best, masks, other)
            iou = shared / max(masks.areas[best] + masks.areas[other] - shared, 1)
            if iou >= max(iou_threshold, chosen.get(view_of[other], (0, 0))[0]):
                chosen[view_of[other]] = iou, other
        group = [int(best), *(int(other) for _, other in chosen.values())]
        free[group] = False
        groups.append(group)
    return groups


def _agreed(masks: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The switches of the pixels that lie in more than half of the weight."""
    steps = [np.tile([weight, -weight], len(own) // 2) for own, weight in zip(masks, weights, strict=True)]
    places, place = np.unique(np.concatenate(masks), return_inverse=True)
    inside = np.cumsum(np.bincount(place, np.concatenate(steps))) > weights.sum() / 2
    return places[np.diff(inside, prepend=False)]
