"""Multi-scale deformable attention against mmcv's own PyTorch path."""

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from torch import Tensor

from armbench_mmdet.ops.deform_attn import ms_deform_attn_forward

SHAPES = torch.tensor([[5, 7], [3, 4], [1, 2]])
STARTS = torch.tensor([0, 35, 47])
KEYS = 49


def inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, KEYS, 2, 4, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 6, 2, 3, 4, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(2, 6, 2, 3, 4, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (value, locations, weights)]


def extension(value: Tensor, locations: Tensor, weights: Tensor, step: int = 64) -> Tensor:
    return MultiScaleDeformableAttnFunction.apply(value, SHAPES, STARTS, locations, weights, step)


@pytest.mark.parametrize('step', [1, 64])
def test_agrees_with_mmcv(step: int, backend: str) -> None:
    results = []
    for function in (extension, lambda v, x, w, _: multi_scale_deformable_attn_pytorch(v, SHAPES, x, w)):
        arguments = inputs()
        output = function(*arguments, step)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
        results.append((output.detach(), *(argument.grad for argument in arguments)))
    assert results[0][0].shape == (2, 6, 8)
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_precision_is_that_of_float32_under_autocast_too(dtype: torch.dtype, backend: str) -> None:
    arguments = inputs(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = extension(*arguments)
    output.sum().backward()
    assert output.dtype == dtype
    assert all(argument.grad.dtype == dtype for argument in arguments)
    torch.testing.assert_close(output, extension(*(a.float() for a in arguments)).to(dtype))


def test_levels_may_lie_anywhere(backend: str) -> None:
    value, locations, weights = (tensor.detach() for tensor in inputs())
    moved = torch.cat((value[:, 35:], value[:, :35]), 1)
    found = ms_deform_attn_forward(moved, SHAPES, torch.tensor([14, 0, 12]), locations, weights)
    torch.testing.assert_close(found, extension(value, locations, weights))
