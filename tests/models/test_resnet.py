"""The folded ResNet computes what mmdet's does."""

from typing import Any

import pytest
import torch
from mmdet.models.backbones import ResNet
from test_swin import gradients
from torch import nn

from armbench_mmdet.models.resnet import FoldedResNet

GROUPS = {'norm_cfg': {'type': 'GN', 'num_groups': 2}, 'norm_eval': False}


def pair(**options: Any) -> tuple[nn.Module, nn.Module]:
    """The stock backbone and ours with the same weights and statistics."""
    torch.manual_seed(0)
    options = {'depth': 50, 'base_channels': 8, 'stem_channels': 8, 'norm_eval': True} | options
    stock, ours = ResNet(**options), FoldedResNet(**options)
    for name, tensor in stock.state_dict().items():
        if 'bn' in name and tensor.is_floating_point():
            tensor.uniform_(0.2, 0.6)
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours.load_state_dict(stock.state_dict())
    for model in (stock, ours):
        model.train()
    return stock, ours


CAFFE = {'style': 'caffe', 'with_cp': True}


@pytest.mark.parametrize('options', [{}, {'depth': 18, 'frozen_stages': 1}, CAFFE, {'norm_eval': False}, GROUPS])
def test_outputs_and_gradients_are_the_stocks(options: dict[str, Any]) -> None:
    stock, ours = (model.double() for model in pair(**options))
    image = torch.randn(2, 3, 67, 98, dtype=torch.double)
    for expected, found in zip(stock(image), ours(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    trained = [[name for name, value in model.named_parameters() if value.requires_grad] for model in (stock, ours)]
    assert trained[0] == trained[1]
    for expected, found in zip(gradients(stock, image), gradients(ours, image), strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(ours.state_dict(), stock.state_dict())
