"""Views of an image merged into one answer."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import RleMasks, decode_mask, encode_masks, encode_switches
from armbench_mmdet.masks.runs import runs_of
from armbench_mmdet.models.tta import MaskTTAModel, flip_switches

SIZE = (37, 53)
AXES = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}


def blobs(count: int, seed: int = 0) -> np.ndarray:
    """(N, H, W) bool: rectangles that may touch every border, with holes."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        y, x = rng.integers(0, SIZE[0] - 4), rng.integers(0, SIZE[1] - 4)
        mask[y : y + rng.integers(4, 30), x : x + rng.integers(4, 40)] = True
        mask &= rng.random(SIZE) > 0.2
    return masks


def view(masks: np.ndarray, scores, labels, direction: str | None = None) -> DetDataSample:
    """What a model says of a view in which everything is flipped."""
    flipped = np.flip(masks, tuple(1 + axis for axis in AXES[direction])) if direction else masks
    boxes = runs_of(encode_masks(torch.from_numpy(flipped.copy())), [SIZE] * len(masks)).boxes
    found = InstanceData(
        bboxes=torch.from_numpy(boxes).float(),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels),
        masks=RleMasks(encode_masks(torch.from_numpy(flipped.copy())), *SIZE),
    )
    meta = {'ori_shape': SIZE, 'flip': direction is not None, 'flip_direction': direction}
    return DetDataSample(pred_instances=found, metainfo=meta)


class Answers(torch.nn.Module):
    """A model that was already asked."""

    def test_step(self, data: dict) -> list[DetDataSample]:
        return data['data_samples']


def merged(*views: DetDataSample, **settings) -> InstanceData:
    model = MaskTTAModel(module=Answers(), **settings)
    return model.test_step({'data_samples': [[one] for one in views]})[0].pred_instances


@pytest.mark.parametrize('direction', AXES)
def test_runs_are_flipped_as_bitmaps_are(direction: str) -> None:
    masks = np.concatenate([blobs(20), np.zeros((1, *SIZE), bool), np.ones((1, *SIZE), bool)])
    runs = runs_of(encode_masks(torch.from_numpy(masks)), [SIZE] * len(masks))
    for i, mask in enumerate(masks):
        own = runs.switches[runs.starts[i] : runs.starts[i + 1]].astype(np.int64)
        rle = encode_switches(flip_switches(own, *SIZE, direction), SIZE)
        assert np.array_equal(decode_mask(rle), np.flip(mask, AXES[direction]))


def test_a_model_that_sees_the_same_in_flipped_views_is_unchanged() -> None:
    masks, scores, labels = blobs(8, seed=1), np.linspace(0.2, 0.9, 8).tolist(), [0, 1, 1, 0, 0, 1, 0, 1]
    alone, several = (
        merged(*[view(masks, scores, labels, direction) for direction in directions], iou_threshold=0.9)
        for directions in ([None], [None, *AXES])
    )
    assert np.array_equal(alone.masks.numpy(), masks[::-1])
    assert alone.scores.tolist() == pytest.approx(scores[::-1])
    assert alone.labels.tolist() == labels[::-1]
    assert several.masks.rles == alone.masks.rles
    torch.testing.assert_close(several.bboxes, alone.bboxes)
    torch.testing.assert_close(several.scores, alone.scores)


def test_masks_are_what_most_of_the_score_agrees_on() -> None:
    masks, scores = np.repeat(blobs(1), 3, axis=0), [0.9, 0.5, 0.7]
    noise = np.random.default_rng(2).random(masks.shape) < 0.1
    masks ^= noise
    found = merged(
        *[view(one[None], [score], [1]) for one, score in zip(masks, scores, strict=True)], iou_threshold=0.1
    )
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
