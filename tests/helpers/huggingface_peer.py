"""Hugging Face's Mask2Former and ours with the same made-up weights, and what each says of an image.

``python tests/helpers/huggingface_peer.py`` writes what transformers says of a small image, for tests where it is not
installed: ``tests/fixtures/huggingface_reference.npz``.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from peer_weights import made_image, made_weights
from torch import Tensor, nn

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert.weights import CLASS_WEIGHTS
from armbench_mmdet.convert.weights import HF_MASK2FORMER as FAMILY

FIXTURE = Path(__file__).parents[1] / 'fixtures/huggingface_reference.npz'
FIXTURE_SIZE = (61, 75)
GAINS = {
    'output.dense.weight': 0.2,
    'cross_attn.out_proj.weight': 0.05,
    'fc2.weight': 0.2,
    'out_proj.weight': 0.2,
    'output_proj.weight': 0.2,
    'attention.self.query.weight': 0.3,
    'relative_position_bias_table': 0.3,
    'queries_': 10.0,
    'sampling_offsets.weight': 2.0,
    'class_predictor.weight': 2.0,
}
"""Residual branches are small, as after a training, so that rounding does not grow; queries are varied."""
SWIN_B = {'embed_dim': 128, 'depths': [2, 2, 18, 2], 'num_heads': [4, 8, 16, 32], 'window_size': 12}
SMALL = {'embed_dim': 32, 'depths': [2, 2, 2, 2], 'num_heads': [1, 2, 4, 8], 'window_size': 4}
THEIR_SIZE = (384, 384)
"""Where transformers decides about masks and their scores, whatever the image's size."""

Logits = tuple[Tensor, Tensor]
"""Of the last layer: classes ``(1, Q, classes + 1)`` and masks ``(1, Q, h, w)``."""


def our_model(small: bool = True) -> tuple[nn.Module, dict[str, Tensor]]:
    """Our model, with a small Swin or with Swin-B, and its weights as transformers has them in files."""
    init_default_scope('mmdet')
    config = load_config(FAMILY.config).model
    if small:
        swin = dict(SMALL)
        width = swin.pop('embed_dim')
        config.backbone.update(embed_dims=width, **swin)
        config.panoptic_head.in_channels = [width * 2**stage for stage in range(4)]
    model = MODELS.build(config).eval()
    like = FAMILY.from_ours(model.state_dict())
    theirs = {**made_weights(like, GAINS), CLASS_WEIGHTS: like[CLASS_WEIGHTS]}
    for name, value in theirs.items():
        if value.dim() == 1 and name.endswith('.weight'):
            theirs[name] = 1 + value
    model.load_state_dict(FAMILY.to_ours(theirs, model.state_dict()))
    return model, theirs


def peer_model(weights: dict[str, Tensor], small: bool = True) -> nn.Module:
    """The model of transformers."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    stages = [f'stage{number}' for number in range(1, 5)]
    swin = SwinConfig(out_features=stages, **(SMALL if small else SWIN_B))
    config = Mask2FormerConfig(backbone_config=swin, num_labels=2)
    return Mask2FormerForUniversalSegmentation.from_pretrained(None, config=config, state_dict=weights).eval()


def pixels(height: int, width: int) -> Tensor:
    """A picture as both models want it, ``(1, 3, H, W)``."""
    image = torch.from_numpy(made_image(height, width)[..., ::-1].copy()).permute(2, 0, 1)[None]
    return (image / 255 - 0.45) / 0.22


@torch.no_grad()
def ours(model: nn.Module, image: Tensor) -> Logits:
    """What our model says."""
    classes, masks = model.panoptic_head(model.extract_feat(image), [])
    return classes[-1], masks[-1]


@torch.no_grad()
def theirs(model: nn.Module, image: Tensor) -> Logits:
    """What the model of transformers says."""
    said = model(image)
    return said.class_queries_logits, said.masks_queries_logits


def our_instances(model: nn.Module, logits: Logits) -> InstanceData:
    """What our model makes of logits, but for empty masks, which transformers leaves out."""
    masks = F.interpolate(logits[1], THEIR_SIZE, mode='bilinear', align_corners=False)
    sample = DetDataSample(metainfo={'img_shape': THEIR_SIZE, 'ori_shape': THEIR_SIZE})
    (found,) = model.panoptic_fusion_head.predict(logits[0], masks, [sample], rescale=True)
    found = found['ins_results']
    found.masks = torch.from_numpy(found.masks.numpy())
    return found[found.masks.flatten(1).any(1)]


def their_instances(logits: Logits) -> InstanceData:
    """What transformers makes of logits."""
    from transformers import Mask2FormerImageProcessor

    said = SimpleNamespace(class_queries_logits=logits[0], masks_queries_logits=logits[1])
    decide = Mask2FormerImageProcessor().post_process_instance_segmentation
    (found,) = decide(said, threshold=0, return_binary_maps=True)
    scores, labels = (torch.tensor([row[key] for row in found['segments_info']]) for key in ('score', 'label_id'))
    return InstanceData(scores=scores, labels=labels, masks=found['segmentation'].bool())


if __name__ == '__main__':
    import transformers

    classes, masks = (value.numpy() for value in theirs(peer_model(our_model()[1]), pixels(*FIXTURE_SIZE)))
    versions = f'torch {torch.__version__}, transformers {transformers.__version__}'
    np.savez_compressed(FIXTURE, classes=classes, masks=masks, versions=versions)
    print(f'{FIXTURE}: {FIXTURE.stat().st_size} bytes, {versions}')
