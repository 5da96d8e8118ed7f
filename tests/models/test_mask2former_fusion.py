"""The bounded-memory head against mmdet's own: same labels and order, same masks but for pixels on the threshold."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from armbench_mmdet.errors import InputError


def head(kind: str, max_per_image: int = 20, **kwargs: Any) -> Any:
    test_cfg = ConfigDict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=max_per_image)
    config = {'type': kind, 'num_things_classes': 2, 'num_stuff_classes': 0, 'test_cfg': test_cfg, **kwargs}
    return MODELS.build(config)


def logits(kind: str, seed: int, queries: int, height: int, width: int) -> torch.Tensor:
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


def sample(image_px: tuple[int, int], original_px: tuple[int, int]) -> DetDataSample:
    return DetDataSample(metainfo={'img_shape': image_px, 'ori_shape': original_px})


def run(kind: str, classes: torch.Tensor, masks: torch.Tensor, one: DetDataSample, **kwargs: Any) -> InstanceData:
    rescale = kwargs.pop('rescale', True)
    return head(kind, **kwargs).predict(classes, masks, [one], rescale=rescale)[0]['ins_results']


def assert_same(ours: InstanceData, stock: InstanceData, classes: torch.Tensor, masks: torch.Tensor) -> None:
    """Equal, or different in pixels whose probability, from logits (1, Q, h, w), is within 1e-4 of a half."""
    assert torch.equal(ours.labels, stock.labels)
    bitmaps = torch.from_numpy(ours.masks.numpy())
    assert torch.equal(ours.bboxes, mask2bbox(bitmaps))
    assert ours.bboxes.dtype == stock.bboxes.dtype
    top = classes[0].softmax(-1)[:, :-1].flatten().topk(len(ours), sorted=False).indices
    values = F.interpolate(masks, bitmaps.shape[1:], mode='bilinear', align_corners=False)[0, top // 2]
    differ = bitmaps != stock.masks
    assert ((values[differ].sigmoid() - 0.5).abs() <= 1e-4).all()
    alike = ~differ.flatten(1).any(1)
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
def test_equals_stock(kind: str, sizes: tuple[tuple[int, int], ...], rescale: bool) -> None:
    padded, image, original = sizes
    for seed in range(3):
        classes = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(seed)) * 3
        masks = logits(kind, seed, 12, *padded)
        arguments = (classes, masks, sample(image, original))
        stock = run('MaskFormerFusionHead', *arguments, rescale=rescale)
        ours = run('BoundedMaskFormerFusionHead', *arguments, rescale=rescale)
        assert_same(ours, stock, classes, masks[..., : image[0], : image[1]])


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_other_number_types_equal_stock(dtype: torch.dtype) -> None:
    masks = logits('upsampled', 0, 6, 64, 64).to(dtype)
    arguments = (torch.randn(1, 6, 3), masks, sample((60, 64), (120, 128)))
    stock = run('MaskFormerFusionHead', *arguments, max_per_image=9)
    ours = run('BoundedMaskFormerFusionHead', *arguments, max_per_image=9)
    stock.scores = ours.scores  # the stock sums in the narrow type
    assert_same(ours, stock, arguments[0], masks[..., :60, :64])


def test_panoptic_results_are_the_stock_heads() -> None:
    ours, stock = head('BoundedMaskFormerFusionHead'), head('MaskFormerFusionHead')
    ours.test_cfg = stock.test_cfg = ConfigDict(panoptic_on=True, instance_on=True, max_per_image=5)
    arguments = (torch.randn(1, 6, 3), torch.randn(1, 6, 32, 32), [sample((32, 32), (64, 64))])
    ours_result, stock_result = ours.predict(*arguments, rescale=True)[0], stock.predict(*arguments, rescale=True)[0]
    assert torch.equal(ours_result['pan_results'].sem_seg, stock_result['pan_results'].sem_seg)
    assert torch.equal(ours_result['ins_results'].masks, stock_result['ins_results'].masks)


def test_what_cannot_be_is_one_clear_error() -> None:
    one = sample((8, 8), (8, 8))
    with pytest.raises(InputError, match=r'max_per_image must be at most queries × classes = 6 × 2, got 13'):
        run('BoundedMaskFormerFusionHead', torch.randn(1, 6, 3), torch.randn(1, 6, 8, 8), one, max_per_image=13)
    for value, dtype in ((float('nan'), torch.float32), (float('inf'), torch.float32), (-float('inf'), torch.float64)):
        masks = torch.full((1, 2, 8, 8), -1.0, dtype=dtype)
        masks[0, 1, 3, 3] = value
        with pytest.raises(InputError, match='mask logits must be finite'):
            run('BoundedMaskFormerFusionHead', torch.ones(1, 2, 3), masks, one, max_per_image=4)
