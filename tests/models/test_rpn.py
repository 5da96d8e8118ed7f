"""The RPN head with sparse gradients computes what mmdet's does."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from armbench_mmdet.configs import load_config

META = {'img_shape': (160, 224), 'pad_shape': (160, 224), 'batch_input_shape': (160, 224)}
BOXES = torch.tensor([[0.0, 0.0, 30.0, 40.0], [150.0, 100.0, 224.0, 160.0], [60.0, 50.0, 100.0, 120.0]])


def losses_and_gradients(kind: str, mixed: bool, objects: int) -> list[Tensor]:
    """Losses of two images, and their gradients at the features and all weights."""
    init_default_scope('mmdet')
    model = load_config('configs/_base_/models/mask-rcnn_r50_fpn.py').model
    torch.manual_seed(0)
    head = MODELS.build(
        model.rpn_head
        | {'type': kind, 'in_channels': 32, 'feat_channels': 16, 'train_cfg': model.train_cfg.rpn, 'test_cfg': None}
    )
    for weight in head.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    features = [torch.randn(2, 32, 160 // step, 224 // step, requires_grad=True) for step in (4, 8, 16, 32, 64)]
    truth = [InstanceData(bboxes=BOXES[:count], labels=torch.zeros(count, dtype=torch.long)) for count in (objects, 1)]
    samples = [DetDataSample(metainfo=META, gt_instances=one) for one in truth]
    with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
        losses = head.loss(features, samples)
    values = [torch.stack(one) for one in losses.values()]
    torch.cat(values).sum().backward()
    found = [*values, *(one.grad for one in features), *(weight.grad for weight in head.parameters())]
    assert all(one is not None for one in found)
    return found


@pytest.mark.parametrize(('mixed', 'tolerance'), [(False, 1e-5), (True, 2e-2)])
@pytest.mark.parametrize('objects', [3, 0])
def test_losses_and_gradients_are_the_stocks(objects: int, mixed: bool, tolerance: float) -> None:
    stock, ours = (losses_and_gradients(kind, mixed, objects) for kind in ('RPNHead', 'SparseRPNHead'))
    for one, other in zip(ours, stock, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))
    assert any(one.count_nonzero() for one in stock[2:7])
