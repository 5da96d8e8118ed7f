"""The zoo's Mask R-CNN, unchanged, on the operators provided."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from torch import Tensor

from armbench_mmdet.ops import BACKEND_VARIABLE, STAND_IN_ACTIVE


def losses(backend: str) -> dict[str, Tensor]:
    """Return the losses of a step, taken backward, after which the model predicts."""
    register_all_modules()
    config = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    config.backbone.init_cfg = None
    shapes = [(3, 96, 128), (3, 128, 96)]
    inputs = demo_mm_inputs(2, image_shapes=shapes, num_items=[3, 5], num_classes=80, with_mask=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BACKEND_VARIABLE, backend)
        torch.manual_seed(0)
        model = MODELS.build(config)
        data = model.data_preprocessor(inputs, training=True)
        torch.manual_seed(1)
        found = model.train()(**data, mode='loss')
        found = {name: sum(loss) if isinstance(loss, list) else loss for name, loss in found.items()}
        sum(loss for name, loss in found.items() if 'loss' in name).backward()
        assert model.backbone.layer2[0].conv1.weight.grad.abs().sum() > 0
        with torch.no_grad():
            results = model.eval()(**data, mode='predict')
    assert all(sample.pred_instances.masks.shape[0] == len(sample.pred_instances.scores) for sample in results)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not STAND_IN_ACTIVE, reason='mmcv has its compiled extension here')
def test_backends_train_alike(backend: str) -> None:
    if backend != 'torch':
        torch.testing.assert_close(losses(backend), losses('torch'), rtol=1e-4, atol=1e-5)
