"""Non-maximum suppression against the greedy rule, spelled out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.ops import backend as backends
from armbench_mmdet.ops import nms as module
from armbench_mmdet.ops.nms import nms

CORNERS = st.integers(-6, 6)  # few values: many duplicates, empty boxes and negative sizes
BOXES = st.lists(st.tuples(CORNERS, CORNERS, CORNERS, CORNERS, st.integers(0, 4)), max_size=40)


def greedy(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    one, zero = np.float32(offset), np.float32(0)
    kept: list[int] = []
    for index in scores.sort(descending=True).indices.tolist():
        x1, y1, x2, y2 = boxes[index].numpy()
        area = (x2 - x1 + one) * (y2 - y1 + one)
        for other in kept:
            ox1, oy1, ox2, oy2 = boxes[other].numpy()
            width = max(min(x2, ox2) - max(x1, ox1) + one, zero)
            height = max(min(y2, oy2) - max(y1, oy1) + one, zero)
            inner = width * height
            with np.errstate(divide='ignore', invalid='ignore'):
                if inner / ((ox2 - ox1 + one) * (oy2 - oy1 + one) + area - inner) > np.float32(threshold):
                    break
        else:
            kept.append(index)
    return kept


@pytest.mark.parametrize('name', [name for name in backends.BACKENDS if name not in backends.unavailable_backends()])
@pytest.mark.parametrize('offset', [0, 1])
@settings(max_examples=60, deadline=None)
@given(rows=BOXES, threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_agrees_with_greedy_rule(name: str, offset: int, rows: list[tuple[int, ...]], threshold: float) -> None:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    boxes, scores = table[:, :4] / 2, table[:, 4] / 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(backends.BACKEND_VARIABLE, name)
        kept = nms(boxes, scores, threshold, offset)
    assert kept.tolist() == greedy(boxes, scores, threshold, offset)


def test_many_boxes(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'BLOCK', 16)  # suppression across blocks
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + torch.rand(300, 2, generator=generator) * 20), 1)
    scores = torch.rand(300, generator=generator).round(decimals=1)
    assert nms(boxes, scores, 0.4).tolist() == greedy(boxes, scores, 0.4, 0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype, backend: str) -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [1, 1, 8, 8], [20, 20, 30, 30]], dtype=dtype)
    assert nms(boxes, torch.tensor([0.25, 0.75, 0.5], dtype=dtype), 0.5).tolist() == [1, 2]


@pytest.mark.parametrize(('boxes', 'expected'), [(torch.zeros(0, 4), []), (torch.ones(1, 4), [0])])
def test_smallest_inputs(boxes: Tensor, expected: list[int], backend: str) -> None:
    kept = nms(boxes, torch.zeros(len(boxes)), 0.5)
    assert kept.dtype == torch.int64
    assert kept.tolist() == expected


@pytest.mark.parametrize(
    ('boxes', 'scores', 'message'),
    [
        ([[0, 0, 1, float('nan')]], [0.5], 'boxes must be free of NaN, got 1 NaN of 4'),
        ([[0, 0, 1, 1]], [float('nan')], 'scores must be free of NaN, got 1 NaN of 1'),
        ([[0, 0, 1]], [0.5], r'boxes and scores must be \(N, 4\) and \(N,\)'),
        ([[0, 0, 1, 1]], [0.5, 0.5], r'boxes and scores must be \(N, 4\) and \(N,\)'),
    ],
)
def test_bad_input(boxes: list[list[float]], scores: list[float], message: str, backend: str) -> None:
    with pytest.raises(InputError, match=message):
        nms(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), 0.5)
