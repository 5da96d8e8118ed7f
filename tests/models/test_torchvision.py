"""Our Mask R-CNN with torchvision's weights computes what torchvision computes.

``PYTHONPATH=tests/helpers python tests/models/test_torchvision.py`` writes what torchvision says of a small image, for
where it is not installed: ``tests/fixtures/torchvision_reference.npz``.
"""

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from peer_weights import made_image, made_objects, made_weights, train_both
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert.weights import TORCHVISION_MASK_RCNN as FAMILY
from armbench_mmdet.masks.encode import encode_masks
from armbench_mmdet.models import BestMatchAssigner, TorchvisionBBoxHead

FIXTURE = Path(__file__).parents[1] / 'fixtures/torchvision_reference.npz'
SMALL = {'size': (150, 200), 'scale': (333, 200)}
SIZES = {'portrait': (1000, 640), 'landscape': (480, 640), 'ARMBench': (2048, 2448)}
"""Height and width of the pictures compared where torchvision is installed."""
GAINS = {
    0.2: ['rpn.head.bbox_pred'],
    0.5: ['rpn.head.cls_logits', 'box_predictor.bbox_pred'],
    1.5: ['box_predictor.cls_score', 'mask_fcn_logits'],
}
"""So that proposals and detections are many, of both classes, and of every size."""


def our_model() -> tuple[nn.Module, dict[str, Tensor]]:
    """Our model, and its weights as torchvision has them."""
    init_default_scope('mmdet')
    model = MODELS.build(load_config(FAMILY.config).model).eval()
    theirs = made_weights(FAMILY.from_ours(model.state_dict()), GAINS)
    model.load_state_dict(FAMILY.to_ours(theirs, model.state_dict()))
    return model, theirs


def peer_model(weights: dict[str, Tensor], scale: tuple[int, int] = (1333, 800)) -> nn.Module:
    """torchvision's model as it is when it starts from COCO's weights, which is not downloaded for it."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import resnet50
    from torchvision.ops.misc import FrozenBatchNorm2d

    backbone = _resnet_fpn_extractor(resnet50(norm_layer=FrozenBatchNorm2d), 3)
    model = MaskRCNN(backbone, num_classes=3, min_size=min(scale), max_size=max(scale)).eval()
    overwrite_eps(model, 0.0)
    model.load_state_dict(weights)
    return model


def write_image(folder: Path, height: int, width: int) -> Path:
    """A made-up picture in a file that keeps its pixels."""
    path = folder / f'{height}x{width}.png'
    cv2.imwrite(str(path), made_image(height, width))
    return path


@torch.no_grad()
def ours(model: nn.Module, path: Path, scale: tuple[int, int] = (1333, 800)) -> dict[str, Any]:
    """What our model says: its ``input``, ``features``, ``proposals`` and ``scores`` of them, and ``result``."""
    pipeline = load_config(FAMILY.config).test_pipeline
    pipeline[1].scale = scale
    height, width = cv2.imread(str(path)).shape[:2]
    packed = Compose(pipeline)({'img_path': str(path), 'img_id': 1, 'height': height, 'width': width})
    data = model.data_preprocessor({'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]})
    features = model.extract_feat(data['inputs'])
    (proposals,) = model.rpn_head.predict(features, data['data_samples'], rescale=False)
    (result,) = model.roi_head.predict(features, [proposals], data['data_samples'], rescale=True)
    return {
        'input': data['inputs'][0],
        'features': features,
        'proposals': proposals.bboxes,
        'boxes': result.bboxes,
        'scores': result.scores,
        'labels': result.labels,
        'masks': result.masks.rles,
    }


@torch.no_grad()
def theirs(model: nn.Module, path: Path) -> dict[str, Any]:
    """The same of torchvision's, with labels from 0 on and masks as run lengths."""
    image = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1) / 255
    batch, _ = model.transform([image])
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    results, _ = model.roi_heads(features, proposals, batch.image_sizes)
    (result,) = model.transform.postprocess(results, batch.image_sizes, [image.shape[1:]])
    return {
        'input': batch.tensors[0],
        'features': tuple(features.values()),
        'proposals': proposals[0],
        'boxes': result['boxes'],
        'scores': result['scores'],
        'labels': result['labels'] - 1,
        'masks': encode_masks(result['masks'][:, 0] > 0.5),
    }


def assert_same_detections(mine: dict[str, Any], peer: dict[str, Any]) -> None:
    """Many, of both classes and all sizes; next to each has its partner, of its class and with the nearest box."""
    sides = peer['boxes'][:, 2:] - peer['boxes'][:, :2]
    areas = sides.prod(1)
    assert len(areas) >= 50
    assert len(peer['labels'].unique()) == 2
    assert areas.max() > 20 * areas.min()
    distances = (peer['boxes'][:, None] - mine['boxes']).abs().amax(2)
    distances[peer['labels'][:, None] != mine['labels']] = torch.inf
    nearest, partner = distances.min(1)
    paired = nearest <= 5e-4 * sides.amax(1).clamp(min=100)
    scores = (peer['scores'] - mine['scores'][partner]).abs()[paired]
    overlaps = coco_mask.iou(peer['masks'], mine['masks'], [0] * len(mine['masks']))
    masks = overlaps[np.arange(len(partner)), partner][paired]
    print('paired', float(paired.float().mean()), 'scores', float(scores.max()), 'masks', masks.min())
    assert paired.float().mean() >= 0.99
    assert scores.max() <= 1e-4
    assert masks.min() >= 0.995


@pytest.mark.peers
@pytest.mark.parametrize('name', SIZES)
def test_features_proposals_and_detections(name: str, tmp_path: Path) -> None:
    model, weights = our_model()
    path = write_image(tmp_path, *SIZES[name])
    mine, peer = ours(model, path), theirs(peer_model(weights), path)
    torch.testing.assert_close(mine['input'], peer['input'], rtol=0, atol=1e-5)
    for level, expected in zip(mine['features'], peer['features'], strict=True):
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert len(mine['proposals']) == len(peer['proposals'])
    distances = (peer['proposals'][:, None] - mine['proposals']).abs().amax(2).amin(1)
    assert (distances < 0.01).float().mean() >= 0.99
    assert_same_detections(mine, peer)


@pytest.mark.peers
def test_losses_of_training_steps_with_the_same_proposals() -> None:
    mine, weights = our_model()
    peer = peer_model(weights, SMALL['scale'])
    image = torch.from_numpy(made_image(480, 640)[..., ::-1].copy()).permute(2, 0, 1) / 255
    boxes, labels, masks = made_objects(480, 640)
    batch, targets = peer.transform([image], [{'boxes': boxes, 'labels': labels + 1, 'masks': masks}])
    size, padded = batch.image_sizes[0], tuple(batch.tensors.shape[2:])
    # Proposals around the objects and elsewhere; all are sampled, by both.
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 12, (200, 4))).float()
    proposals = (targets[0]['boxes'].repeat(50, 1) + noise).clamp(min=0)
    proposals[:, 2:] = proposals[:, 2:].minimum(torch.tensor(size[::-1])).maximum(proposals[:, :2] + 1)
    for part in (peer.rpn, peer.roi_heads):
        part.train()
        part.fg_bg_sampler.batch_size_per_image = 10**9
    mine.rpn_head.sampler.num = mine.roi_head.bbox_sampler.num = 10**9
    sample = DetDataSample(metainfo={'img_shape': size, 'pad_shape': padded, 'batch_input_shape': padded})
    sample.gt_instances = InstanceData(
        bboxes=targets[0]['boxes'], labels=labels, masks=BitmapMasks(targets[0]['masks'].numpy(), *size)
    )

    def our_losses() -> dict[str, Tensor]:
        features = mine.extract_feat(batch.tensors)
        rpn = mine.rpn_head.loss(features, [sample])
        heads = mine.roi_head.loss(features, [InstanceData(bboxes=proposals)], [sample])
        return {
            'loss_objectness': rpn['loss_rpn_cls'],
            'loss_rpn_box_reg': rpn['loss_rpn_bbox'],
            'loss_classifier': heads['loss_cls'],
            'loss_box_reg': heads['loss_bbox'],
            'loss_mask': heads['loss_mask'],
        }

    def their_losses() -> dict[str, Tensor]:
        features = peer.backbone(batch.tensors)
        rpn = peer.rpn(batch, features, targets)[1]
        return {**rpn, **peer.roi_heads(features, [proposals], batch.image_sizes, targets)[1]}

    trained = [{name: p for name, p in model.named_parameters() if p.requires_grad} for model in (mine, peer)]
    assert FAMILY.from_ours(trained[0]).keys() == trained[1].keys()
    parameters = [own.values() for own in trained]
    totals = train_both((our_losses, their_losses), parameters, steps=4, lr=1e-3, rel=1e-3)
    assert totals[-1] < 0.95 * totals[0]


def test_an_anchor_that_is_the_best_of_two_objects_belongs_to_the_nearer_one() -> None:
    overlaps = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.4]])
    settings = {'pos_iou_thr': 0.7, 'neg_iou_thr': 0.3, 'min_pos_iou': 0.0}
    assign = BestMatchAssigner(**settings).assign_wrt_overlaps
    assert assign(overlaps, torch.tensor([5, 6])).gt_inds.tolist() == [1, 0, -1]
    assert assign(overlaps, torch.tensor([5, 6])).labels.tolist() == [5, -1, -1]
    assert assign(overlaps[:0], torch.tensor([])).gt_inds.tolist() == [0, 0, 0]


def test_a_box_outside_the_image_is_no_detection() -> None:
    head = TorchvisionBBoxHead(in_channels=4, fc_out_channels=4, roi_feat_size=1, num_classes=2)
    rois = torch.tensor([[0, 10, 10, 30, 30], [0, 90, 10, 100, 30.0]])
    moved = torch.zeros(2, 8)
    moved[1, [0, 4]] = 1000.0  # to the right, until nothing is left inside
    meta = {'img_shape': (60, 100), 'scale_factor': (2.0, 2.0)}
    cfg = ConfigDict(score_thr=0.05, nms={'type': 'nms', 'iou_threshold': 0.5}, max_per_img=100)
    for rescale, box in ((False, [10, 10, 30, 30]), (True, [5, 5, 15, 15])):
        (found,) = head.predict_by_feat([rois], [torch.tensor([[3.0, 0, 0]] * 2)], [moved], [meta], cfg, rescale)
        assert found.bboxes[found.labels == 0].tolist() == [box]


def test_detections_are_those_that_torchvision_has_written_down(tmp_path: Path) -> None:
    with np.load(FIXTURE) as stored:
        peer = {name: torch.from_numpy(stored[name]) for name in ('proposals', 'boxes', 'scores', 'labels')}
        peer['masks'] = [{'size': list(SMALL['size']), 'counts': str(counts)} for counts in stored['masks']]
        features = [torch.from_numpy(stored[f'features_{level}']).float() for level in range(5)]
    mine = ours(our_model()[0], write_image(tmp_path, *SMALL['size']), SMALL['scale'])
    for level, expected in zip(mine['features'], features, strict=True):
        torch.testing.assert_close(level[0, ::32], expected, rtol=2e-3, atol=2e-3)
    assert_same_detections(mine, peer)


if __name__ == '__main__':
    import torchvision

    with tempfile.TemporaryDirectory() as folder:
        said = theirs(peer_model(our_model()[1], SMALL['scale']), write_image(Path(folder), *SMALL['size']))
    arrays = {name: said[name].numpy() for name in ('proposals', 'boxes', 'scores', 'labels')}
    arrays |= {f'features_{level}': value[0, ::32].half().numpy() for level, value in enumerate(said['features'])}
    masks = np.array([rle['counts'] for rle in said['masks']])
    versions = f'torch {torch.__version__}, torchvision {torchvision.__version__}'
    np.savez_compressed(FIXTURE, masks=masks, versions=versions, **arrays)
    print(f'{FIXTURE}: {len(masks)} detections, {FIXTURE.stat().st_size} bytes, {versions}')
