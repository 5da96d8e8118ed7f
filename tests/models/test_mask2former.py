"""Mask2Former end to end: a step, a prediction, and what the head of this project adds to mmdet's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mask2former import batch, build
from mmdet.models.dense_heads import Mask2FormerHead
from torch import nn

from armbench_mmdet.masks.encode import RleMasks

SMALL = 'mask2former_r18-w32_q30.py'
FULL = 'mask2former_swin-b-p4-w12-384.py'


def losses(model: nn.Module, data: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(1)  # the points
    return model(**model.data_preprocessor(data, True), mode='loss')


def check_step_and_prediction(model: nn.Module, side_px: int) -> None:
    found = losses(model.train(), batch(side_px))
    assert all(value.isfinite() for value in found.values())
    sum(found.values()).backward()
    still = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        (sample,) = model.eval()(**model.data_preprocessor(batch(side_px), False), mode='predict')
    instances = sample.pred_instances
    assert len(instances) == model.test_cfg.max_per_image
    assert isinstance(instances.masks, RleMasks)
    assert instances.masks.shape[1:] == (2 * side_px, 2 * side_px)
    assert set(instances.labels.tolist()) <= {0, 1}
    assert ((instances.scores >= 0) & (instances.scores <= 1)).all()


def test_small_model_learns_everywhere_and_predicts() -> None:
    model = build(SMALL)
    assert sum(p.numel() for p in model.parameters()) < 3.5e6
    check_step_and_prediction(model, 64)


@pytest.mark.slow
@pytest.mark.parametrize('with_cp', [False, True])
def test_full_model_learns_everywhere_and_predicts(with_cp: bool) -> None:
    # Stochastic depth would leave blocks out of the one step.
    changes = {'backbone.drop_path_rate': 0.0, 'backbone.with_cp': with_cp, 'train_cfg.num_points': 256}
    model = build(FULL, **changes)
    assert sum(p.numel() for p in model.parameters()) > 1e8
    check_step_and_prediction(model, 64)


def test_losses_in_full_precision_are_the_stock_heads() -> None:
    ours, stock = build(SMALL), build(SMALL, **{'panoptic_head.type': 'Mask2FormerHead'})
    stock.load_state_dict(ours.state_dict())
    mine, theirs = losses(ours, batch(64, images=2)), losses(stock, batch(64, images=2))
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


def test_matching_survives_mixed_precision_where_the_stock_head_does_not() -> None:
    model = build(SMALL, **{'train_cfg.num_points': 12544})
    data = model.data_preprocessor(batch(64), True)
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
