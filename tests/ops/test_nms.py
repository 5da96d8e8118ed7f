"""Non-maximum suppression against the greedy rule and against soft NMS, both spelled out."""

import math

import mmcv.ops
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, soft_nms
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.ops import nms as module
from armbench_mmdet.ops.backend import BACKEND_VARIABLE, BACKENDS, torchvision_problem
from armbench_mmdet.ops.nms import nms

CORNERS = st.integers(-6, 6)  # few values: many duplicates, empty boxes and negative sizes
BOXES = st.lists(st.tuples(CORNERS, CORNERS, CORNERS, CORNERS, st.integers(0, 4)), max_size=40)


def overlap(one: Tensor, other: Tensor) -> np.float32:
    """IoU in single precision; NaN where both are empty."""
    x1, y1, x2, y2 = one.numpy()
    ox1, oy1, ox2, oy2 = other.numpy()
    inner = max(min(x2, ox2) - max(x1, ox1), np.float32(0)) * max(min(y2, oy2) - max(y1, oy1), np.float32(0))
    with np.errstate(divide='ignore', invalid='ignore'):
        return inner / ((ox2 - ox1) * (oy2 - oy1) + (x2 - x1) * (y2 - y1) - inner)


def greedy(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in scores.sort(descending=True).indices.tolist():
        if not any(overlap(boxes[index], boxes[other]) > np.float32(threshold) for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize('name', BACKENDS[1:] if torchvision_problem() else BACKENDS)
@settings(max_examples=60, deadline=None)
@given(rows=BOXES, threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_agrees_with_greedy_rule(name: str, rows: list[tuple[int, ...]], threshold: float) -> None:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    boxes, scores = table[:, :4] / 2, table[:, 4] / 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BACKEND_VARIABLE, name)
        patch.setattr(module, 'BLOCK', 16)  # suppression across blocks
        kept = nms(boxes, scores, threshold)
    assert kept.tolist() == greedy(boxes, scores, threshold)


def random_boxes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) * 20), 1)
    return boxes, torch.rand(count, generator=generator)


def soft(boxes: Tensor, scores: Tensor, method: str, threshold: float, sigma: float, least: float) -> dict[int, float]:
    """Figure 2 of arXiv 1704.04503, one pair of boxes after another."""
    left, taken = {i: float(score) for i, score in enumerate(scores)}, {}
    while left:
        best = max(left, key=lambda index: left[index])
        taken[best] = left.pop(best)
        for index in list(left):
            iou = float(overlap(boxes[best], boxes[index]))
            if method == 'gaussian':
                left[index] *= math.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                left[index] *= 1 - iou if method == 'linear' else 0
            if left[index] < least:
                del left[index]
    return taken


@pytest.mark.parametrize('method', ['linear', 'gaussian', 'naive'])
@pytest.mark.parametrize('least', [1e-3, 0.2])
def test_soft_nms_agrees_with_the_published_algorithm(method: str, least: float) -> None:
    for seed in range(5):
        boxes, scores = random_boxes(40, seed)
        expected = soft(boxes, scores, method, 0.3, 0.5, least)
        dets, kept = soft_nms(boxes, scores, 0.3, 0.5, least, method)
        assert kept.tolist() == list(expected)
        assert torch.equal(dets[:, :4], boxes[kept])
        torch.testing.assert_close(dets[:, 4], torch.tensor(list(expected.values())))


def test_soft_nms_in_a_config_keeps_classes_apart() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10.0]])
    config = dict(type='soft_nms', iou_threshold=0.5, min_score=0.05)
    dets, kept = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), config)
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7, 0.8 * 0.2]))
    assert [len(part) for part in soft_nms(boxes[:0], torch.zeros(0))] == [0, 0]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_smallest_inputs(dtype: torch.dtype, backend: str) -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [1, 1, 8, 8], [20, 20, 30, 30]], dtype=dtype)
    scores = torch.tensor([0.25, 0.75, 0.5], dtype=dtype)
    for count, expected in ((0, []), (1, [0]), (3, [1, 2])):
        kept = nms(boxes[:count], scores[:count], 0.5)
        assert (kept.dtype, kept.tolist()) == (torch.int64, expected)


def test_bad_input() -> None:
    ok = torch.tensor([[0.0, 0, 1, 1]])
    with pytest.raises(InputError, match='boxes and scores must be free of NaN, got 4 and 0'):
        nms(ok * float('nan'), torch.ones(1), 0.5)
    with pytest.raises(InputError, match='boxes and scores must be free of NaN, got 0 and 1'):
        nms(ok, torch.tensor([float('nan')]), 0.5)
    for operator in (mmcv.ops.nms, soft_nms):
        with pytest.raises(InputError, match=r'offset must be 0, got 1 \(in (soft)?nms\).* not provided without'):
            operator(ok, torch.ones(1), 0.5, offset=1)
