"""Mask2Former end to end: a step, a prediction, and what the head of this project adds to mmdet's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from armbench_mmdet.masks.encode import RleMasks

MODEL_FILES = Path(__file__).resolve().parents[2] / 'configs/_base_/models'
SMALL = 'mask2former_r18-w32_q30.py'
FULL = 'mask2former_swin-b-p4-w12-384.py'
SIDE_PX = 64


def build(name: str, **changes: Any) -> nn.Module:
    """The model of a file, without pretrained weights and padding, every weight moved off its initial zero."""
    init_default_scope('mmdet')
    config = Config.fromfile(MODEL_FILES / name)
    config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    config.model.backbone.pop('init_cfg', None)
    config.model.data_preprocessor.batch_augments = None
    torch.manual_seed(0)
    built = MODELS.build(config.model)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return built


def batch(images: int = 1) -> dict[str, Any]:
    """Random images of three instances."""
    shapes = [(3, SIDE_PX, SIDE_PX)] * images
    return demo_mm_inputs(images, image_shapes=shapes, num_items=[3] * images, num_classes=2, with_mask=True)


def losses(model: nn.Module, data: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(1)  # the points
    return model(**model.data_preprocessor(data, True), mode='loss')


def check_step_and_prediction(model: nn.Module) -> None:
    found = losses(model.train(), batch())
    assert all(value.isfinite() for value in found.values())
    sum(found.values()).backward()
    still = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    data = batch()
    data['data_samples'][0].set_metainfo({'ori_shape': (2 * SIDE_PX,) * 2, 'scale_factor': (0.5, 0.5)})
    with torch.no_grad():
        (sample,) = model.eval()(**model.data_preprocessor(data, False), mode='predict')
    instances = sample.pred_instances
    assert isinstance(instances.masks, RleMasks)
    assert instances.masks.shape == (model.test_cfg.max_per_image, 2 * SIDE_PX, 2 * SIDE_PX)
    assert set(instances.labels.tolist()) <= {0, 1}
    assert ((instances.scores >= 0) & (instances.scores <= 1)).all()


def test_small_model_learns_everywhere_and_predicts() -> None:
    model = build(SMALL)
    assert sum(p.numel() for p in model.parameters()) < 3.5e6
    check_step_and_prediction(model)


@pytest.mark.slow
@pytest.mark.parametrize('with_cp', [False, True])
def test_full_model_learns_everywhere_and_predicts(with_cp: bool) -> None:
    # Stochastic depth would leave blocks out of the one step.
    changes = {'backbone.drop_path_rate': 0.0, 'backbone.with_cp': with_cp, 'train_cfg.num_points': 256}
    model = build(FULL, **changes)
    assert sum(p.numel() for p in model.parameters()) > 1e8
    check_step_and_prediction(model)


def test_outputs_losses_and_gradients_are_the_stock_heads() -> None:
    ours, stock = build(SMALL), build(SMALL, **{'panoptic_head.type': 'Mask2FormerHead'})
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict())
    image = torch.randn(2, 3, SIDE_PX, 96)
    with torch.no_grad():
        outputs = [model.eval()(image, [None] * 2, mode='tensor') for model in (ours, stock)]
    for mine, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    found, expected = losses(ours.train(), batch(images=2)), losses(stock.train(), batch(images=2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one in (found, expected):
        sum(one.values()).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-4 * scale, msg=lambda m, n=name: f'{n}: {m}')


def test_matching_survives_mixed_precision_where_the_stock_head_does_not() -> None:
    model = build(SMALL, **{'train_cfg.num_points': 12544})
    data = model.data_preprocessor(batch(), True)
    metas = [sample.metainfo for sample in data['data_samples']]
    instances = model.panoptic_head.preprocess_gt([s.gt_instances for s in data['data_samples']], [None])
    queries = model.panoptic_head.num_queries
    scores, masks = torch.zeros(1, queries, 3, dtype=torch.half), torch.full((1, queries, 16, 16), 9.0).half()
    arguments = ([scores], [masks], instances, metas)
    with torch.autocast('cpu', torch.float16):
        with pytest.raises(ValueError, match=r'infeasible|invalid numeric'):
            Mask2FormerHead.loss_by_feat(model.panoptic_head, *arguments)
        found = model.panoptic_head.loss_by_feat(*arguments)
    assert all(value.isfinite() and value.dtype == torch.float32 for value in found.values())
