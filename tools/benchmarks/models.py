"""Whole models against those of torchvision and Hugging Face, with the same weights, in one process and in turn.

Mask R-CNN predicts from pixels to masks at the image's size; Mask2Former's forward pass ends with the logits of its
last layer, and post-processing has a benchmark of its own. A training step is forward, backward and optimizer step of
one image with ten instances. ``equal`` compares predictions in single precision; both sides draw their training
samples at random. On a machine with a GPU both are there; where it has bfloat16, each has rows in mixed precision, too.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarks._sample import instances, sample
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert.weights import FAMILIES, Family
from armbench_mmdet.engine.levers import has_bfloat16

ROUNDS = 5
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
Step = Callable[[], Any]


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Yield rows of seconds, each side's fastest of some rounds after one that warms up."""
    cases = {
        'torchvision': ('Mask R-CNN R50 {}, predict', _mask_rcnn, (128, 160) if small else (800, 1088)),
        'transformers': ('Mask2Former Swin-B {}, forward', _mask2former, (128, 128) if small else (512, 512)),
    }
    for peer, (case, build, size) in cases.items():
        if importlib.util.find_spec(peer) is None:
            print(
                f'models: {peer} is not installed, so there is nothing to compare with (`make test-peers` installs it)'
            )
            continue
        name, (predictions, steps, agree) = case.format('×'.join(map(str, size))), build(*size)
        with torch.no_grad():
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                equal = agree(*(predict() for predict in predictions))
            yield _row(f'{name} ({peer})', predictions, equal, small)
        training = f'{name.rpartition(",")[0]}, training step'
        yield _row(f'{training} ({peer})', steps, None, small)
        if DEVICE == 'cuda' or has_bfloat16():
            with torch.autocast(DEVICE, torch.bfloat16):
                with torch.no_grad():
                    yield _row(f'{name}, bfloat16 ({peer})', predictions, None, small)
                yield _row(f'{training}, bfloat16 ({peer})', steps, None, small)


def _row(case: str, sides: tuple[Step, Step], equal: bool | None, small: bool) -> dict[str, Any]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 if small else 1 + ROUNDS):
        for side, seconds in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            if DEVICE == 'cuda':
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    ours, peer = (min(seconds[1:]) for seconds in times)
    return {
        'name': 'models',
        'case': case,
        'ours': ours,
        'peer': peer,
        'unit': 's',
        'ratio': peer / ours,
        'equal': equal,
    }


def _ours(family: Family) -> tuple[nn.Module, dict[str, Tensor]]:
    """Our model with random weights, and the weights as the peer has them."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    config = load_config(family.config).model
    config.backbone.init_cfg = None
    config.data_preprocessor.batch_augments = None
    model = MODELS.build(config)
    weights = family.from_ours(model.state_dict())
    return model.eval().to(DEVICE), weights


def _trained(model: nn.Module, loss_of: Callable[[], Tensor]) -> Step:
    """A training step of the model, which predicts again after it."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1e-6)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
        model.eval()

    return step


def _mask_rcnn(height: int, width: int) -> tuple[tuple[Step, Step], tuple[Step, Step], Callable[..., bool]]:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import resnet50
    from torchvision.ops import FrozenBatchNorm2d

    mine, weights = _ours(FAMILIES['torchvision'])
    # As a model that starts from COCO's weights, which is not downloaded for it: three stages trained, norms frozen.
    backbone = _resnet_fpn_extractor(resnet50(norm_layer=FrozenBatchNorm2d), 3)
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    peer = MaskRCNN(backbone, num_classes=3, min_size=min(height, width), max_size=max(height, width))
    peer.load_state_dict(weights)
    peer.eval().to(DEVICE)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    normal = peer.transform([image])[0].tensors
    boxes, labels, masks = instances(height, width)
    truth = {'boxes': boxes, 'labels': labels + 1, 'masks': torch.from_numpy(masks)}
    target = {name: value.to(DEVICE) for name, value in truth.items()}

    def agree(ours: Any, theirs: Any) -> bool:
        found, expected = ours[0].pred_instances.scores, theirs[0]['scores']
        return len(found) == len(expected) > 0 and torch.allclose(found, expected, rtol=0, atol=1e-4)

    return (
        (lambda: mine.predict(normal, [sample(height, width).to(DEVICE)]), lambda: peer([image])),
        (
            _trained(mine, lambda: mine.parse_losses(mine.loss(normal, [sample(height, width).to(DEVICE)]))[0]),
            _trained(peer, lambda: sum(peer([image], [target]).values())),
        ),
        agree,
    )


def _mask2former(height: int, width: int) -> tuple[tuple[Step, Step], tuple[Step, Step], Callable[..., bool]]:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    mine, weights = _ours(FAMILIES['hf-mask2former'])
    stages = [f'stage{number}' for number in range(1, 5)]
    swin = SwinConfig(
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=12,
        drop_path_rate=0.3,
        out_features=stages,
    )
    config = Mask2FormerConfig(backbone_config=swin, num_labels=2)
    peer = (
        Mask2FormerForUniversalSegmentation.from_pretrained(None, config=config, state_dict=weights).eval().to(DEVICE)
    )
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    _, labels, masks = instances(height, width)
    truth = {'mask_labels': [torch.from_numpy(masks).float().to(DEVICE)], 'class_labels': [labels.to(DEVICE)]}

    def agree(ours: Any, theirs: Any) -> bool:
        pairs = ((ours[0][-1], theirs.class_queries_logits), (ours[1][-1], theirs.masks_queries_logits))
        return all(bool((one - other).abs().mean() < 1e-4 * (other.max() - other.min())) for one, other in pairs)

    return (
        (lambda: mine(image, [sample(height, width).to(DEVICE)], mode='tensor'), lambda: peer(image)),
        (
            _trained(mine, lambda: mine.parse_losses(mine.loss(image, [sample(height, width).to(DEVICE)]))[0]),
            _trained(peer, lambda: peer(image, **truth).loss),
        ),
        agree,
    )
