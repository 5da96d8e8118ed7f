"""RoIAlign: precisions, threads, and refused input; values and gradients are in test_backend."""

import pytest
import torch
from mmcv.ops import roi_align
from torch import Tensor

from armbench_mmdet.errors import InputError

ROIS = [[1, 0.3, 0.7, 9.1, 6.2], [0, -3.2, -2.1, 4.3, 5.9], [1, 6.1, 5.2, 14.3, 13.8], [0, 2.2, 3.1, 2.6, 3.3]]


def features_and_rois(channels: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    features = torch.randn(2, channels, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return features.to(dtype).requires_grad_(), torch.tensor(ROIS, dtype=dtype)


@pytest.mark.parametrize(('ratio', 'aligned'), [(0, True), (2, True), (0, False)])
def test_agrees_with_torch_on_any_number_of_threads(ratio: int, aligned: bool, monkeypatch, backend: str) -> None:
    results, threads = [], torch.get_num_threads()
    for name, count in (('torch', 1), (backend, 1), (backend, 4)):
        monkeypatch.setenv('ARMBENCH_OPS_BACKEND', name)
        torch.set_num_threads(count)
        features, rois = features_and_rois(channels=70)  # more than two blocks of channels
        output = roi_align(features, rois.repeat(5, 1), (3, 2), 0.5, ratio, 'avg', aligned)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
        results.append((output.detach(), features.grad))
    torch.set_num_threads(threads)
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[1], results[2])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_precision_is_that_of_float32_under_autocast_and_with_other_strides_too(dtype: torch.dtype, backend) -> None:
    features, rois = features_and_rois(dtype=dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = roi_align(features.to(memory_format=torch.channels_last), rois, (2, 2), 0.5, 2, 'avg', True)
    output.sum().backward()
    wide = features.detach().float().requires_grad_()
    expected = roi_align(wide, rois.float(), (2, 2), 0.5, 2, 'avg', True)
    expected.sum().backward()
    assert output.dtype == features.grad.dtype == dtype
    assert torch.equal(output, expected.to(dtype))
    torch.testing.assert_close(features.grad, wide.grad.to(dtype))


def test_no_rois(backend: str) -> None:
    features, rois = features_and_rois()
    output = roi_align(features, rois[:0], (2, 2), 0.5, 0, 'avg', True)
    output.sum().backward()
    assert output.shape == (0, 3, 2, 2)
    assert not features.grad.any()


BAD_ROIS = [([2, 0, 0, 1, 1], True), ([-1, 0, 0, 1, 1], True), ([0, 3, 0, 1, 1], True)]


@pytest.mark.parametrize(('roi', 'aligned'), [*BAD_ROIS, *[([0, 0, 0, float(v), 1], False) for v in ('nan', 'inf')]])
def test_what_is_refused(roi: list[float], aligned: bool) -> None:
    features, rois = features_and_rois(dtype=torch.float32)
    with pytest.raises(InputError, match=r"pool_mode must be 'avg', got 'max' \(in roi_align\).* without compiling"):
        roi_align(features, rois, (2, 2), 0.5, 2, 'max', True)
    with pytest.raises(InputError, match=r'rois must be finite, .* got \[.*\(RoI 4 of 5, in roi_align\)'):
        roi_align(features, torch.cat((rois, torch.tensor([roi]))), (2, 2), 0.5, 0, 'avg', aligned)


def test_negative_size_without_alignment_is_one_cell(backend: str) -> None:
    features, _ = features_and_rois(dtype=torch.float32)
    rois = torch.tensor([[0, 3, 2, 1, 1], [0, 3, 2, 4, 3]], dtype=torch.float32)
    turned, plain = roi_align(features, rois, (2, 2), 1.0, 0, 'avg', False)
    assert torch.equal(turned, plain)
