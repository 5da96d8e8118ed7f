"""torchvision's Mask R-CNN and ours with the same made-up weights, and what each says of an image.

``python tests/helpers/torchvision_peer.py`` writes what torchvision says of a small image, for tests where it is not
installed: ``tests/fixtures/torchvision_reference.npz``.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from peer_weights import made_image, made_weights
from torch import Tensor, nn

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert.weights import TORCHVISION_MASK_RCNN as FAMILY
from armbench_mmdet.masks.encode import encode_masks

FIXTURE = Path(__file__).parents[1] / 'fixtures/torchvision_reference.npz'
SMALL = {'size': (150, 200), 'scale': (333, 200)}
GAINS = {
    'rpn.head.cls_logits': 0.5,
    'rpn.head.bbox_pred': 0.2,
    'box_predictor.bbox_pred': 0.5,
    'box_predictor.cls_score': 1.5,
    'mask_fcn_logits': 1.5,
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


if __name__ == '__main__':
    import tempfile

    import torchvision

    with tempfile.TemporaryDirectory() as folder:
        said = theirs(peer_model(our_model()[1], SMALL['scale']), write_image(Path(folder), *SMALL['size']))
    arrays = {name: said[name].numpy() for name in ('proposals', 'boxes', 'scores', 'labels')}
    arrays |= {f'features_{level}': value[0, ::32].half().numpy() for level, value in enumerate(said['features'])}
    masks = np.array([rle['counts'] for rle in said['masks']])
    versions = f'torch {torch.__version__}, torchvision {torchvision.__version__}'
    np.savez_compressed(FIXTURE, masks=masks, versions=versions, **arrays)
    print(f'{FIXTURE}: {len(masks)} detections, {FIXTURE.stat().st_size} bytes, {versions}')
