"""Views of an image merged into one answer."""

import numpy as np
import pytest
import torch
from coco_random import random_mask
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import RleMasks, encode_masks
from armbench_mmdet.masks.runs import runs_of
from armbench_mmdet.models.tta import MaskTTAModel

SIZE = (37, 53)
AXES = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}


def blobs(count: int, seed: int = 0) -> np.ndarray:
    """(N, H, W) bool: ellipses that may touch every border, with holes."""
    rng = np.random.default_rng(seed)
    return np.array([random_mask(rng, *SIZE) & (rng.random(SIZE) > 0.2) for _ in range(count)])


def view(masks: np.ndarray, scores, labels, direction: str | None = None) -> DetDataSample:
    """What a model says of a view in which everything is flipped."""
    flipped = np.flip(masks, tuple(1 + axis for axis in AXES[direction])) if direction else masks
    rles = encode_masks(torch.from_numpy(flipped.copy()))
    boxes = torch.from_numpy(runs_of(rles, [SIZE] * len(masks)).boxes).float()
    scores, labels = torch.tensor(scores), torch.tensor(labels)
    found = InstanceData(bboxes=boxes, scores=scores, labels=labels, masks=RleMasks(rles, *SIZE))
    meta = {'ori_shape': SIZE, 'flip': direction is not None, 'flip_direction': direction}
    return DetDataSample(pred_instances=found, metainfo=meta)


class Answers(torch.nn.Module):
    """A model that was already asked."""

    def test_step(self, data: dict) -> list[DetDataSample]:
        return data['data_samples']


def merged(*views: DetDataSample, **settings) -> InstanceData:
    model = MaskTTAModel(module=Answers(), **settings)
    return model.test_step({'data_samples': [[one] for one in views]})[0].pred_instances


@pytest.mark.parametrize('directions', [[None], *([direction] for direction in AXES), [None, *AXES]], ids=str)
def test_a_model_that_sees_the_same_in_flipped_views_is_unchanged(directions: list[str | None]) -> None:
    masks, scores, labels = blobs(8, seed=1), np.linspace(0.2, 0.9, 8).tolist(), [0, 1, 1, 0, 0, 1, 0, 1]
    masks[0] = True
    found = merged(*[view(masks, scores, labels, direction) for direction in directions], iou_threshold=0.9)
    expected = view(masks[::-1], scores[::-1], labels[::-1]).pred_instances
    assert np.array_equal(found.masks.numpy(), masks[::-1])
    for key in ('bboxes', 'scores', 'labels'):
        torch.testing.assert_close(found[key], expected[key])
    assert not merged(view(masks[:1] & False, [0.5], [0], directions[-1])).masks.numpy().any()


def test_masks_are_what_most_of_the_score_agrees_on() -> None:
    masks, scores = np.repeat(blobs(1, seed=3), 3, axis=0), [0.9, 0.5, 0.7]
    masks ^= np.random.default_rng(2).random(masks.shape) < 0.1
    views = [view(one[None], [score], [1]) for one, score in zip(masks, scores, strict=True)]
    found = merged(*views, iou_threshold=0.1)
    votes = np.tensordot(scores, masks, axes=1)
    assert np.array_equal(found.masks.numpy()[0].astype(bool), votes > sum(scores) / 2)
    assert found.scores.tolist() == pytest.approx([sum(scores) / 3])


def test_other_classes_and_distant_masks_stay_apart_at_a_lower_score() -> None:
    masks = blobs(2, seed=3)
    found = merged(view(masks[:1], [0.8], [0]), view(masks[:1], [0.6], [1]), view(masks[1:], [0.4], [0]))
    assert found.scores.tolist() == pytest.approx([0.8 / 3, 0.6 / 3, 0.4 / 3])
    assert found.labels.tolist() == [0, 1, 0]
    assert len(merged(view(masks, [0.5, 0.4], [1, 1]), max_per_img=1)) == 1
    nothing = view(masks[:0], [], [])
    assert len(merged(nothing, nothing)) == 0
    nothing.pred_instances.masks = torch.zeros(0, *SIZE, dtype=torch.bool)  # as mmdet's empty answers have it
    assert len(merged(nothing, nothing)) == 0
    assert merged(nothing, view(masks, [0.5, 0.4], [1, 1])).scores.tolist() == pytest.approx([0.25, 0.2])
    with pytest.raises(InputError, match='iou_threshold'):
        MaskTTAModel(module=Answers(), iou_threshold=0)
