"""RTMDet-Ins's head beside the stock head."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from small_models import tiny_config

from armbench_mmdet import configs
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.engine.checkpoints import find_checkpoint
from armbench_mmdet.launch import evaluate, train
from armbench_mmdet.masks.encode import RleMasks

LEAF = Path(__file__).resolve().parents[2] / 'configs/rtmdet_ins/rtmdet-ins_w16_minibench.py'
META = {'img_shape': (96, 128), 'ori_shape': (191, 255), 'scale_factor': (128 / 255, 96 / 191)}


@pytest.fixture(scope='module')
def heads():
    init_default_scope('mmdet')
    settings = configs.load_config(LEAF).model.bbox_head
    torch.manual_seed(0)
    ours = MODELS.build(settings).eval()
    stock = MODELS.build({**settings, 'type': 'RTMDetInsSepBNHead'}).eval()
    with torch.no_grad():
        for layer in (*ours.rtm_cls, *ours.rtm_reg, *ours.rtm_kernel):
            layer.weight *= 20
            if layer.bias is not None:
                layer.bias.zero_()
    stock.load_state_dict(ours.state_dict())
    return stock, ours


@pytest.mark.parametrize('rescale', [True, False])
@pytest.mark.parametrize('threshold', [0.5, 0.7])
@pytest.mark.parametrize('score_thr', [0.05, 1.0])
def test_predictions_are_those_of_the_stock_head(heads, rescale, threshold, score_thr) -> None:
    generator = torch.Generator().manual_seed(1)
    features = tuple(torch.randn(1, 64, 96 // s, 128 // s, generator=generator) for s in (8, 16, 32))
    nms = {'type': 'nms', 'iou_threshold': 0.6}
    settings = {'nms_pre': 100, 'min_bbox_size': 0, 'score_thr': score_thr, 'nms': nms, 'max_per_img': 50}
    cfg = ConfigDict(settings, mask_thr_binary=threshold)
    with torch.no_grad():
        stock, ours = (
            head.predict_by_feat(*head(features), batch_img_metas=[copy.deepcopy(META)], cfg=cfg, rescale=rescale)[0]
            for head in heads
        )
    assert len(ours) == len(stock) == (50 if score_thr < 1 else 0)
    assert isinstance(ours.masks, RleMasks)
    for key in ('bboxes', 'scores', 'labels'):
        torch.testing.assert_close(ours[key], stock[key])
    if len(ours):
        a, b = torch.from_numpy(ours.masks.numpy()), stock.masks
        assert a.shape == b.shape
        assert 0.1 < b.float().mean() < 0.9
        # The stock head stretches to the next whole pixel, then crops; ours to the photo itself.
        assert (a != b).float().mean() < (2e-4 if rescale else 1e-5)


def test_it_trains_and_is_evaluated_on_every_subset(minibench_root: Path, tmp_path: Path) -> None:
    config = tiny_config(minibench_root, tmp_path, model=LEAF)
    train(config)
    results = evaluate(config, find_checkpoint(tmp_path), SUBSETS, 'test', tmp_path)
    assert list(results) == list(SUBSETS)
