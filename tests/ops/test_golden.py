"""Reference values of the compiled operators, on every backend."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, roi_align

REFERENCE = dict(np.load(Path(__file__).parents[1] / 'fixtures' / 'mmcv_ops_reference.npz'))
KEYS = {
    'nms': sorted(k[: -len('_keep')] for k in REFERENCE if k.endswith('_keep') and '_off1' not in k),
    'roi_align': sorted(k for k in REFERENCE if '_avg_' in k and not k.endswith('_grad')),
}


@pytest.mark.parametrize('key', KEYS['nms'])
def test_nms(key: str, backend: str) -> None:
    boxes, scores, indices = (torch.from_numpy(REFERENCE[k]) for k in ('boxes', 'scores', 'idxs'))
    if key.startswith('batched_nms'):
        dets, keep = batched_nms(boxes, scores, indices, dict(type='nms', iou_threshold=0.5))
    elif key.startswith('nms_scorethr'):
        dets, keep = nms(boxes, scores, 0.5, score_threshold=0.3, max_num=20)
    else:
        dets, keep = nms(boxes, scores, float(re.fullmatch(r'nms_thr([\d.]+)_off0', key).group(1)))
    np.testing.assert_array_equal(keep.numpy(), REFERENCE[f'{key}_keep'])
    np.testing.assert_array_equal(dets.numpy(), REFERENCE[f'{key}_dets'])


@pytest.mark.parametrize('key', KEYS['roi_align'])
def test_roi_align(key: str, backend: str) -> None:
    pattern = r'roi_align_(\d+)_scale([\d.]+)_sr(\d)_(avg)_aligned(\d)'
    size, scale, ratio, mode, aligned = re.fullmatch(pattern, key).groups()
    features = torch.from_numpy(REFERENCE['feat']).requires_grad_()
    rois = torch.from_numpy(REFERENCE['rois'])
    output = roi_align(features, rois, (int(size), int(size)), float(scale), int(ratio), mode, bool(int(aligned)))
    output.backward(torch.linspace(-1, 1, output.numel()).view_as(output))
    # The backends sum in other orders, and the empty RoI sums 784 float32 terms to 169 in a single cell: there the
    # reference itself is 1.5e-4 off the exact sum.
    tolerance = dict(rtol=1e-6, atol=5e-5)
    np.testing.assert_allclose(output.detach().numpy(), REFERENCE[key], **tolerance)
    np.testing.assert_allclose(features.grad.numpy(), REFERENCE[f'{key}_grad'], **tolerance)


def test_every_key_of_what_is_provided_is_tested() -> None:
    tested = {f'{key}_{suffix}' for key in KEYS['nms'] for suffix in ('keep', 'dets')}
    tested |= {name for key in KEYS['roi_align'] for name in (key, f'{key}_grad')}
    left = {key for key in REFERENCE if '_max_' not in key and '_off1' not in key}
    assert left - tested == {'boxes', 'scores', 'idxs', 'feat', 'rois'}
    assert (len(KEYS['nms']), len(KEYS['roi_align'])) == (5, 8)
