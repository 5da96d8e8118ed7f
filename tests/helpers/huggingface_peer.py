"""Hugging Face's Mask2Former and ours with the same made-up weights, and what each says of an image.

``python tests/helpers/huggingface_peer.py`` writes what transformers says of a small image, for tests where it is not
installed: ``tests/fixtures/huggingface_reference.npz``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from peer_weights import made_image, made_weights
from torch import Tensor, nn

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert.huggingface import FAMILY

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
WIDTH, QUERIES, ENCODERS, DECODERS = 64, 20, 2, 4


def our_model(small: bool = True) -> tuple[nn.Module, dict[str, Tensor]]:
    """Our model, with every part of Swin-B's or that itself, and its weights as transformers has them in files."""
    init_default_scope('mmdet')
    config = load_config(FAMILY.config)
    if small:
        attention, forward = {'embed_dims': WIDTH}, {'embed_dims': WIDTH, 'feedforward_channels': 2 * WIDTH}
        positions = {'num_feats': WIDTH // 2}
        encoder = {'num_layers': ENCODERS, 'layer_cfg': {'self_attn_cfg': attention, 'ffn_cfg': forward}}
        decoder = {'self_attn_cfg': attention, 'cross_attn_cfg': attention, 'ffn_cfg': forward}
        backbone = {'embed_dims': 32, 'depths': [2, 2, 4, 2], 'num_heads': [1, 2, 4, 8], 'window_size': 4}
        head = {
            'in_channels': [32, 64, 128, 256],
            'num_queries': QUERIES,
            'feat_channels': WIDTH,
            'out_channels': WIDTH,
            'positional_encoding': positions,
            'pixel_decoder': {'encoder': encoder, 'positional_encoding': positions},
            'transformer_decoder': {'num_layers': DECODERS - 1, 'layer_cfg': decoder},
        }
        config.merge_from_dict(
            {'model': {'backbone': backbone, 'panoptic_head': head, 'test_cfg': {'max_per_image': QUERIES}}}
        )
    model = MODELS.build(config.model).eval()
    theirs = made_weights(FAMILY.from_ours(model.state_dict()), GAINS)
    for name, value in theirs.items():
        if value.dim() == 1 and name.endswith('.weight'):
            theirs[name] = 1 + value
    model.load_state_dict(FAMILY.to_ours(theirs))
    return model, theirs


def peer_model(weights: dict[str, Tensor], small: bool = True) -> nn.Module:
    """The model of transformers."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    stages = {'drop_path_rate': 0.3, 'out_features': [f'stage{number}' for number in range(1, 5)]}
    swin: dict[str, Any] = {'embed_dim': 128, 'depths': [2, 2, 18, 2], 'num_heads': [4, 8, 16, 32], 'window_size': 12}
    sizes: dict[str, Any] = {}
    if small:
        swin = {'embed_dim': 32, 'depths': [2, 2, 4, 2], 'num_heads': [1, 2, 4, 8], 'window_size': 4}
        sizes = dict.fromkeys(('feature_size', 'mask_feature_size', 'hidden_dim'), WIDTH)
        sizes |= dict.fromkeys(('encoder_feedforward_dim', 'dim_feedforward'), 2 * WIDTH)
        sizes |= {'num_queries': QUERIES, 'encoder_layers': ENCODERS, 'decoder_layers': DECODERS}
    config = Mask2FormerConfig(backbone_config=SwinConfig(**stages, **swin), num_labels=2, **sizes)
    return Mask2FormerForUniversalSegmentation.from_pretrained(None, config=config, state_dict=weights).eval()


def pixels(height: int, width: int) -> Tensor:
    """A picture as both models want it, ``(1, 3, H, W)``."""
    image = torch.from_numpy(made_image(height, width)[..., ::-1].copy()).permute(2, 0, 1)[None]
    return (image / 255 - 0.45) / 0.22


@torch.no_grad()
def ours(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Class and mask logits of our model's last layer."""
    classes, masks = model.panoptic_head(model.extract_feat(image), [])
    return classes[-1], masks[-1]


@torch.no_grad()
def theirs(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the model of transformers."""
    said = model(image)
    return said.class_queries_logits, said.masks_queries_logits


if __name__ == '__main__':
    import transformers

    classes, masks = (value.numpy() for value in theirs(peer_model(our_model()[1]), pixels(*FIXTURE_SIZE)))
    versions = f'torch {torch.__version__}, transformers {transformers.__version__}'
    np.savez_compressed(FIXTURE, classes=classes, masks=masks, versions=versions)
    print(f'{FIXTURE}: {FIXTURE.stat().st_size} bytes, {versions}')
