"""The heads of Mask R-CNN beside the stock's: the RPN in training, the mask head in mmdet's own prediction path."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import DumpDetResults
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from armbench_mmdet.configs import load_config
from armbench_mmdet.masks.encode import RleMasks, encode_masks
from armbench_mmdet.masks.runs import mask_nms
from armbench_mmdet.models import RleFCNMaskHead

HEAD: dict[str, Any] = {'num_convs': 1, 'in_channels': 8, 'conv_out_channels': 8, 'num_classes': 2}
META = {'ori_shape': (97, 131), 'scale_factor': (1.7, 1.69), 'img_shape': (164, 223)}


@pytest.fixture
def heads():
    torch.manual_seed(0)
    stock = MODELS.build({'type': 'FCNMaskHead', **HEAD}).eval()
    ours = MODELS.build({'type': 'RleFCNMaskHead', **HEAD}).eval()
    assert isinstance(ours, RleFCNMaskHead)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def detections(count: int) -> InstanceData:
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([223.0, 164.0])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    labels = torch.randint(0, 2, (count,), generator=generator)
    return InstanceData(bboxes=boxes, labels=labels, scores=torch.rand(count, generator=generator))


@pytest.mark.parametrize('rescale', [True, False])
def test_masks_and_boxes_are_those_of_the_stock_head(heads, rescale):
    logits = [torch.randn(n, 2, 28, 28, generator=torch.Generator().manual_seed(9)) * 3 for n in (7, 0, 3)]
    results = []
    for head in heads:
        instances = [detections(n) for n in (7, 0, 3)]
        test_cfg = ConfigDict(mask_thr_binary=0.5)
        results.append(head.predict_by_feat(logits, instances, [META] * 3, test_cfg, rescale=rescale))
    for stock, ours in zip(*results, strict=True):
        torch.testing.assert_close(stock.bboxes, ours.bboxes, rtol=0, atol=0)
        assert len(ours) == len(stock)
        if len(stock):
            assert isinstance(ours.masks, RleMasks)
            # Random logits have next to no pixel within 1e-4 of the threshold.
            assert (ours.masks.numpy() != stock.masks.numpy()).sum() <= 1


def test_mask_nms_leaves_out_masks_with_their_boxes_scores_and_labels(heads):
    logits = [torch.full((n, 2, 28, 28), 5.0) for n in (20, 0)]
    every, some = (
        heads[1].predict_by_feat(logits, [detections(n) for n in (20, 0)], [META] * 2, ConfigDict(settings))
        for settings in ({'mask_thr_binary': 0.5}, {'mask_thr_binary': 0.5, 'mask_nms': 0.05})
    )
    assert [len(result) for result in every] == [20, 0]
    kept = mask_nms(every[0].masks.rles, every[0].masks.shape[1:], every[0].scores, every[0].labels, 0.05)
    assert len(kept) < 20
    assert some[0].masks.rles == [every[0].masks.rles[i] for i in kept]
    for key in ('bboxes', 'scores', 'labels'):
        torch.testing.assert_close(some[0][key], every[0][key][torch.from_numpy(kept)], rtol=0, atol=0)


def test_grey_masks_are_left_to_the_stock_head(heads):
    logits = [torch.randn(2, 2, 28, 28)]
    test_cfg = ConfigDict(mask_thr_binary=-1)
    masks = [h.predict_by_feat(logits, [detections(2)], [META], test_cfg, rescale=True)[0].masks for h in heads]
    assert masks[1].dtype == torch.uint8
    assert torch.equal(*masks)


def test_data_samples_mmdets_visualizer_and_result_dump_are_as_with_tensors(heads, tmp_path):
    pictures, dumps, kept = [], [], []
    logits = [torch.randn(6, 2, 28, 28, generator=torch.Generator().manual_seed(9)) * 3]
    for head in heads:
        (found,) = head.predict_by_feat(logits, [detections(6)], [META], ConfigDict(mask_thr_binary=0.5), rescale=True)
        sample = DetDataSample(metainfo={**META, 'img_id': 1}, pred_instances=found)
        kept.append(sample.cpu().pred_instances[sample.pred_instances.scores > 0.4].masks)
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = {'classes': ('tote', 'object'), 'palette': [(0, 0, 200), (200, 0, 0)]}
        np.random.seed(0)  # noqa: NPY002 - the visualizer jitters its colours with it
        image = np.full((97, 131, 3), 90, np.uint8)
        visualizer.add_datasample('x', image, sample, draw_gt=False, pred_score_thr=0.2)
        pictures.append(visualizer.get_image())
        metric = DumpDetResults(out_file_path=str(tmp_path / 'dump.pkl'))
        metric.process({}, [copy.deepcopy(sample).to_dict()])
        dumps.append(metric.results[0]['pred_instances']['masks'])
    assert (pictures[0] != 90).any()
    np.testing.assert_array_equal(*pictures)
    assert dumps[0] == dumps[1]
    assert 0 < len(kept[1]) < 6
    assert kept[1].rles == encode_masks(kept[0])


PLACE = {'img_shape': (160, 224), 'pad_shape': (160, 224), 'batch_input_shape': (160, 224)}
BOXES = torch.tensor([[0.0, 0.0, 30.0, 40.0], [150.0, 100.0, 224.0, 160.0], [60.0, 50.0, 100.0, 120.0]])


def losses_and_gradients(mixed: bool, objects: int, **changes: Any) -> list[Tensor]:
    """Losses of two images, and their gradients at the features and all weights."""
    init_default_scope('mmdet')
    model = load_config('configs/_base_/models/mask-rcnn_r50_fpn.py').model
    torch.manual_seed(0)
    head = MODELS.build(
        model.rpn_head
        | {'in_channels': 32, 'feat_channels': 16, 'train_cfg': model.train_cfg.rpn, 'test_cfg': None, **changes}
    )
    for weight in head.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    features = [torch.randn(2, 32, 160 // step, 224 // step, requires_grad=True) for step in (4, 8, 16, 32, 64)]
    truth = [InstanceData(bboxes=BOXES[:count], labels=torch.zeros(count, dtype=torch.long)) for count in (objects, 1)]
    samples = [DetDataSample(metainfo=PLACE, gt_instances=one) for one in truth]
    with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
        losses = head.loss(features, samples)
    values = [torch.as_tensor(sum(one) if isinstance(one, list) else one) for one in losses.values()]
    torch.stack(values).sum().backward()
    found = [*values, *(one.grad for one in features), *(weight.grad for weight in head.parameters())]
    assert all(one is not None for one in found)
    return found


@pytest.mark.parametrize(('mixed', 'tolerance'), [(False, 1e-5), (True, 2e-2)])
@pytest.mark.parametrize('objects', [3, 0])
@pytest.mark.parametrize('changes', [{}, {'reg_decoded_bbox': True, 'loss_bbox': {'type': 'GIoULoss'}}], ids=len)
def test_losses_and_gradients_are_the_stocks(objects: int, mixed: bool, tolerance: float, changes: dict) -> None:
    stock, ours = (losses_and_gradients(mixed, objects, type=kind, **changes) for kind in ('RPNHead', 'SparseRPNHead'))
    for one, other in zip(ours, stock, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))
    assert any(one.count_nonzero() for one in stock[2:7])
