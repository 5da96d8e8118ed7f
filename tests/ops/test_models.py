"""The zoo's Mask R-CNN and Mask2Former, unchanged, on the operators provided."""

from __future__ import annotations

import pytest
import torch
from mmcv.ops import multi_scale_deform_attn
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from torch import Tensor

from armbench_mmdet.ops import BACKEND_VARIABLE, STAND_IN_ACTIVE, unavailable_backends

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STAND_IN_ACTIVE, reason='mmcv has its compiled extension here'),
]

MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
MASK2FORMER = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'


def build(name: str) -> torch.nn.Module:
    register_all_modules()
    config = get_config(name).model
    config.backbone.init_cfg = None
    config.data_preprocessor.batch_augments = None  # Mask2Former's pads everything to 1024 x 1024
    torch.manual_seed(0)
    return MODELS.build(config)


def run(model: torch.nn.Module) -> tuple[dict[str, Tensor], list[int]]:
    """Return the losses of a step, taken backward, and the number of predictions per image."""
    inputs = demo_mm_inputs(
        2, image_shapes=[(3, 96, 128), (3, 128, 96)], num_items=[3, 5], num_classes=80, with_mask=True
    )
    data = model.data_preprocessor(inputs, training=True)
    torch.manual_seed(1)
    losses = model.train()(**data, mode='loss')
    sum(sum(loss) if isinstance(loss, list) else loss for name, loss in losses.items() if 'loss' in name).backward()
    with torch.no_grad():
        results = model.eval()(**data, mode='predict')
    assert all(sample.pred_instances.masks.shape[0] == len(sample.pred_instances.scores) for sample in results)
    flat = {name: torch.stack(loss) if isinstance(loss, list) else loss for name, loss in losses.items()}
    return flat, [len(sample.pred_instances) for sample in results]


@pytest.fixture(scope='module')
def mask_rcnn_on_torch() -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BACKEND_VARIABLE, 'torch')
        return run(build(MASK_RCNN))[0]


@pytest.mark.parametrize('name', ['torchvision', 'numba'])
def test_mask_rcnn(name: str, mask_rcnn_on_torch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    if problem := unavailable_backends().get(name):
        pytest.skip(f'{name} does not import here: {problem}')
    monkeypatch.setenv(BACKEND_VARIABLE, name)
    model = build(MASK_RCNN)
    losses, _ = run(model)
    assert model.backbone.layer2[0].conv1.weight.grad.abs().sum() > 0
    torch.testing.assert_close(losses, mask_rcnn_on_torch, rtol=1e-4, atol=1e-5)


def test_mask2former(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, counts = run(build(MASK2FORMER))
    calls = 0

    def extension(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        sizes = shapes.prod(1)
        arguments = (value, shapes, sizes.cumsum(0) - sizes, locations, weights, 64)
        return multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply(*arguments)

    # What mmcv does with a CUDA tensor, here on the CPU.
    monkeypatch.setattr(multi_scale_deform_attn, 'multi_scale_deformable_attn_pytorch', extension)
    losses, found_counts = run(build(MASK2FORMER))
    assert calls == 2 * 6
    assert found_counts == counts == [100, 100]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
