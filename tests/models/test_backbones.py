"""The folded ResNet and the windowed Swin Transformer compute what mmdet's do."""

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from armbench_mmdet.configs import load_config

RESNET = {'depth': 50, 'base_channels': 8, 'stem_channels': 8, 'norm_eval': True}
SWIN = {'embed_dims': 16, 'depths': [2, 2, 4, 2], 'num_heads': [1, 2, 4, 8], 'drop_path_rate': 0.0, 'window_size': 4}
OURS = {'ResNet': ('FoldedResNet', RESNET), 'SwinTransformer': ('WindowedSwinTransformer', SWIN)}
GROUPS = {'norm_cfg': {'type': 'GN', 'num_groups': 2}, 'norm_eval': False}
CASES = [
    *[('ResNet', options) for options in ({}, {'style': 'caffe', 'with_cp': True}, {'norm_eval': False}, GROUPS)],
    ('ResNet', {'depth': 18, 'frozen_stages': 1}),
    *[('SwinTransformer', options) for options in ({}, {'window_size': 7, 'qkv_bias': False}, {'window_size': 12})],
    ('SwinTransformer', {'with_cp': True, 'frozen_stages': 2}),
]
SIZES = [(2, 61, 75), (1, 96, 128), (3, 131, 97), (1, 17, 40)]
"""Images, height and width; only the second is a multiple of patches and windows."""


def pair(stock: str, options: dict[str, Any] | None = None) -> tuple[nn.Module, nn.Module]:
    """The stock backbone and ours in training, with the same weights and statistics."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    name, common = OURS[stock]
    models = [MODELS.build({'type': kind, **common, **(options or {})}) for kind in (stock, name)]
    for model in models:
        model.train()
    with torch.no_grad():
        for key, tensor in models[0].state_dict().items():
            if 'bn' in key and tensor.is_floating_point():
                tensor.uniform_(0.2, 0.6)
            elif tensor.is_floating_point() and stock == 'SwinTransformer':
                tensor.add_(torch.randn_like(tensor), alpha=0.05)
    assert list(models[1].state_dict()) == list(models[0].state_dict())
    models[1].load_state_dict(models[0].state_dict())
    return models[0], models[1]


def outputs_and_gradients(model: nn.Module, image: Tensor) -> list[Tensor | None]:
    """The outputs, and the gradients of a loss that each counts in, at the image, if it has one, and all weights."""
    model.zero_grad()
    image.grad = None
    outputs = model(image)
    sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outputs).backward()
    return [*outputs, image.grad, *(parameter.grad for parameter in model.parameters())]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None), 'frozen'
        if other is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.detach().abs().max().clamp(min=1)))


@pytest.mark.parametrize(('stock', 'options'), CASES)
def test_outputs_and_gradients_are_the_stocks(stock: str, options: dict[str, Any]) -> None:
    models = [model.double() for model in pair(stock, options)]
    for size in SIZES if stock == 'SwinTransformer' else SIZES[:1]:
        for has_gradient in (True, False):  # without one at the image, frozen stages have none to compute
            image = torch.randn(size[0], 3, *size[1:], dtype=torch.double, requires_grad=has_gradient)
            expected, found = (outputs_and_gradients(model, image) for model in models)
            assert_same(found, expected)
    torch.testing.assert_close(models[1].state_dict(), models[0].state_dict())


def test_what_was_cached_in_inference_serves_a_training() -> None:
    ours, image = pair('SwinTransformer')[1], torch.randn(1, 3, 68, 52, requires_grad=True)
    with torch.inference_mode():
        ours(image)
    assert all(found.isfinite().all() for found in outputs_and_gradients(ours, image))


@pytest.mark.parametrize('backend', ['eager', pytest.param('inductor', marks=pytest.mark.slow)])
def test_swin_compiles_whole(backend: str) -> None:
    plain = pair('SwinTransformer', {'depths': [2], 'num_heads': [2], 'out_indices': (0,)})[1]
    image = torch.randn(2, 3, 61, 75, requires_grad=True)
    expected = outputs_and_gradients(plain, image)
    plain.compile(backend=backend, fullgraph=True)
    assert_same(outputs_and_gradients(plain, image), expected)


def test_biases_lie_as_the_fused_attention_of_gpus_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    strides, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        strides.append(bias.stride(-1))
        return attend(q, k, v, bias, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', watched)
    pair('SwinTransformer')[1](torch.randn(1, 3, 61, 75))
    assert set(strides) == {1}


@pytest.mark.parametrize('name', ['mask-rcnn_r18-w32_fpn-64', 'mask2former_r18-w32_q30'])
def test_blocks_of_the_small_models_do_not_begin_as_nothing(name: str) -> None:
    backbone = MODELS.build(load_config(f'configs/_base_/models/{name}.py').model.backbone)
    backbone.init_weights()
    assert all(norm.weight.eq(1).all() for norm in backbone.modules() if isinstance(norm, nn.BatchNorm2d))
