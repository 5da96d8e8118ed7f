"""Mask2Former end to end: a step, a prediction, and what the head of this project adds to mmdet's."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import RleMasks

MODEL_FILES = Path(__file__).resolve().parents[2] / 'configs/_base_/models'
SMALL = 'mask2former_r18-w32_q30.py'
FULL = 'mask2former_swin-b-p4-w12-384.py'
SIDE_PX = 64
OURS, STOCK = 'BoundedMaskFormerFusionHead', 'MaskFormerFusionHead'
Size = tuple[int, int]


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
    """Random images, the first of three instances, the second of none."""
    shapes = [(3, SIDE_PX, SIDE_PX)] * images
    return demo_mm_inputs(images, image_shapes=shapes, num_items=[3, 0][:images], num_classes=2, with_mask=True)


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


def logits(kind: str, seed: int, queries: int, height: int, width: int) -> Tensor:
    """(1, Q, H, W): noise at this size, noise upsampled from a quarter of it, or blobs with empty and full masks."""
    draw = torch.Generator().manual_seed(seed)
    if kind == 'noise':
        return torch.randn(1, queries, height, width, generator=draw)
    if kind == 'upsampled':
        small = torch.randn(1, queries, height // 4, width // 4, generator=draw) * 3
        return F.interpolate(small, (height, width), mode='bilinear', align_corners=False)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing='ij')
    centre, radius = torch.rand(2, queries, 1, 1, generator=draw) * 2 - 1, torch.rand(queries, 1, 1, generator=draw)
    values = 20 * (radius**2 - (x - centre[0]) ** 2 - (y - centre[1]) ** 2)
    values[0], values[1] = -1.0, 2.0
    return values[None]


def predicted(kind: str, classes: Tensor, masks: Tensor, image_px: Size, original_px: Size, **options: Any) -> Any:
    """What a fusion head makes of logits; options are of its tests, or ``rescale``."""
    rescale = options.pop('rescale', True)
    test_cfg = {'panoptic_on': False, 'semantic_on': False, 'instance_on': True, 'max_per_image': 20, **options}
    head = MODELS.build({'type': kind, 'num_things_classes': 2, 'num_stuff_classes': 0, 'test_cfg': test_cfg})
    sample = DetDataSample(metainfo={'img_shape': image_px, 'ori_shape': original_px})
    return head.predict(classes, masks, [sample], rescale=rescale)[0]


def assert_equals_stock(classes: Tensor, masks: Tensor, image_px: Size, original_px: Size, **options: Any) -> None:
    """Equal, or different in pixels whose probability is within 1e-4 of a half."""
    ours, stock = (predicted(k, classes, masks, image_px, original_px, **options)['ins_results'] for k in (OURS, STOCK))
    assert torch.equal(ours.labels, stock.labels)
    bitmaps = torch.from_numpy(ours.masks.numpy())
    assert torch.equal(ours.bboxes, mask2bbox(bitmaps))
    assert ours.bboxes.dtype == stock.bboxes.dtype
    top = classes[0].softmax(-1)[:, :-1].flatten().topk(len(ours), sorted=False).indices
    masks = masks[..., : image_px[0], : image_px[1]]
    values = F.interpolate(masks, bitmaps.shape[1:], mode='bilinear', align_corners=False)[0, top // 2]
    differ = bitmaps != stock.masks
    assert ((values[differ].sigmoid() - 0.5).abs() <= 1e-4).all()
    alike = ~differ.flatten(1).any(1)
    if masks.dtype == torch.float32:  # the stock sums in the narrow type
        torch.testing.assert_close(ours.scores[alike], stock.scores[alike], rtol=0, atol=1e-6)


SIZES = {  # padded batch, network input, original image
    'up': ((128, 160), (120, 150), (307, 384)),
    'down and across': ((160, 128), (160, 111), (93, 240)),
    'same': ((96, 96), (96, 96), (96, 96)),
    'odd': ((64, 64), (37, 61), (331, 173)),
}


@pytest.mark.parametrize('kind', ['noise', 'upsampled', 'blobs'])
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('rescale', [True, False])
def test_instances_are_the_stock_heads(kind: str, sizes: tuple[Size, Size, Size], rescale: bool) -> None:
    for seed in range(3):
        classes = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(seed)) * 3
        assert_equals_stock(classes, logits(kind, seed, 12, *sizes[0]), *sizes[1:], rescale=rescale)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_instances_of_other_number_types_are_the_stock_heads(dtype: torch.dtype) -> None:
    masks = logits('upsampled', 0, 6, 64, 64).to(dtype)
    assert_equals_stock(torch.randn(1, 6, 3), masks, (60, 64), (120, 128), max_per_image=9)


def test_panoptic_results_are_the_stock_heads() -> None:
    arguments = (torch.randn(1, 6, 3), torch.randn(1, 6, 32, 32), (32, 32), (64, 64))
    ours, stock = (predicted(kind, *arguments, panoptic_on=True, max_per_image=5) for kind in (OURS, STOCK))
    assert torch.equal(ours['pan_results'].sem_seg, stock['pan_results'].sem_seg)
    assert torch.equal(ours['ins_results'].masks, stock['ins_results'].masks)


def test_what_cannot_be_is_one_clear_error() -> None:
    size = (8, 8)
    with pytest.raises(InputError, match=r'max_per_image must be at most queries × classes = 6 × 2, got 13'):
        predicted(OURS, torch.randn(1, 6, 3), torch.randn(1, 6, *size), size, size, max_per_image=13)
    for value, dtype in ((float('nan'), torch.float32), (float('inf'), torch.float32), (-float('inf'), torch.float64)):
        masks = torch.full((1, 2, *size), -1.0, dtype=dtype)
        masks[0, 1, 3, 3] = value
        with pytest.raises(InputError, match='mask logits must be finite'):
            predicted(OURS, torch.ones(1, 2, 3), masks, size, size, max_per_image=4)
