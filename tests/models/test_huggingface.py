"""Our Mask2Former with Hugging Face's weights computes what transformers computes.

``PYTHONPATH=tests/helpers python tests/models/test_huggingface.py`` writes what transformers says of a small image, for
where it is not installed: ``tests/fixtures/huggingface_reference.npz``.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from peer_weights import made_image, made_objects, made_weights, train_both
from torch import Tensor, nn

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert.weights import CLASS_WEIGHTS
from armbench_mmdet.convert.weights import HF_MASK2FORMER as FAMILY

FIXTURE = Path(__file__).parents[1] / 'fixtures/huggingface_reference.npz'
FIXTURE_SIZE = (61, 75)
GAINS = {
    0.05: ['cross_attn.out_proj.weight'],
    0.2: ['output.dense.weight', 'fc2.weight', 'out_proj.weight', 'output_proj.weight'],
    0.3: ['attention.self.query.weight', 'relative_position_bias_table'],
    2.0: ['sampling_offsets.weight', 'class_predictor.weight'],
    10.0: ['queries_'],
}
"""Residual branches are small, as after a training, so that rounding does not grow; queries are varied."""
SWIN_B = {'embed_dim': 128, 'depths': [2, 2, 18, 2], 'num_heads': [4, 8, 16, 32], 'window_size': 12}
SMALL = {'embed_dim': 32, 'depths': [2, 2, 2, 2], 'num_heads': [1, 2, 4, 8], 'window_size': 4}
TOLERANCE = 1e-4
"""Of the range of the logits; of scores; and the share of pixels that may differ."""
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
    classes, masks = model.panoptic_head(model.extract_feat(image), [])
    return classes[-1], masks[-1]


@torch.no_grad()
def theirs(model: nn.Module, image: Tensor) -> Logits:
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


def assert_close(mine: Logits, peer: Logits, tolerance: float = TOLERANCE) -> None:
    differences = [float((a - b).abs().max() / (b.max() - b.min())) for a, b in zip(mine, peer, strict=True)]
    print('classes and masks differ by', differences)
    assert max(differences) <= tolerance


def assert_same_instances(found: InstanceData, expected: InstanceData) -> None:
    """Each has its partner, of the same class, score and mask; which of equal scores is first does not matter."""
    masks, others = (one.masks.flatten(1).double() for one in (found, expected))
    differing = masks.sum(1)[:, None] + others.sum(1) - 2 * masks @ others.T
    same = (differing <= TOLERANCE * masks.shape[1]) & (found.labels[:, None] == expected.labels)
    same &= (found.scores[:, None] - expected.scores).abs() <= TOLERANCE
    assert len(found) == len(expected) > 10
    assert len(expected.labels.unique()) == 2
    assert same.any(0).all()
    assert same.any(1).all()


@pytest.mark.peers
@pytest.mark.parametrize('small', [True, False])
def test_logits_and_instances(small: bool) -> None:
    """In double precision: in single, pixels of attention masks may lie on the threshold."""
    model, weights = our_model(small)
    mine, peer = model.double(), peer_model(weights, small).double()
    for size in ((64, 96), (131, 97), (90, 141)) if small else ((256, 256), (250, 190), (384, 256)):
        image = pixels(*size).double()
        said = ours(mine, image), theirs(peer, image)
        assert_close(*said, tolerance=1e-6)
        assert_same_instances(our_instances(mine, said[0]), their_instances(said[1]))


@pytest.mark.peers
def test_losses_of_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = our_model()
    peer = peer_model(weights)
    rand, size = torch.rand, (96, 128)
    image, (_, labels, masks) = pixels(*size), made_objects(*size)
    sample = DetDataSample(metainfo={'img_shape': size, 'batch_input_shape': size})
    sample.gt_instances = InstanceData(labels=labels, masks=BitmapMasks(masks.numpy(), *size))
    # The points that losses look at are drawn; both draw the same.
    monkeypatch.setattr(torch, 'rand', lambda *shape, **_: rand(*shape, generator=torch.Generator().manual_seed(0)))

    def our_losses() -> dict[str, Tensor]:
        return {'loss': sum(model.panoptic_head.loss(model.extract_feat(image), [sample]).values())}

    def their_losses() -> dict[str, Tensor]:
        return {'loss': peer(image, mask_labels=[masks.float()], class_labels=[labels]).loss}

    parameters = [one.parameters() for one in (model, peer)]
    totals = train_both((our_losses, their_losses), parameters, steps=3, lr=1e-5, rel=TOLERANCE)
    assert totals[-1] < 0.8 * totals[0]


@pytest.mark.peers
def test_a_saved_model_is_ours_and_ours_is_found_by_from_pretrained(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    mine, weights = our_model()
    peer = peer_model(weights)
    peer.save_pretrained(tmp_path)
    file = tmp_path / 'model.safetensors'
    state = FAMILY.current(load_file(file), tmp_path / 'elsewhere' / file.name)
    converted = FAMILY.to_ours(state, mine.state_dict())
    assert converted.keys() == mine.state_dict().keys()
    assert all(torch.equal(value, converted[name]) for name, value in mine.state_dict().items())
    file.unlink()
    torch.save(FAMILY.from_ours(mine.state_dict()), tmp_path / 'pytorch_model.bin')
    again, info = type(peer).from_pretrained(tmp_path, output_loading_info=True)
    missing = {name.rpartition('.')[0] for name in info['missing_keys']}
    assert missing == {'model.pixel_level_module.encoder.swin.layernorm'}
    assert not info['unexpected_keys']
    image = pixels(*FIXTURE_SIZE)
    for one, other in zip(theirs(again.eval(), image), theirs(peer, image), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_logits_are_those_that_transformers_has_written_down() -> None:
    with np.load(FIXTURE) as stored:
        peer = torch.from_numpy(stored['classes']), torch.from_numpy(stored['masks'])
    assert_close(ours(our_model()[0], pixels(*FIXTURE_SIZE)), peer)


if __name__ == '__main__':
    import transformers

    classes, masks = (value.numpy() for value in theirs(peer_model(our_model()[1]), pixels(*FIXTURE_SIZE)))
    versions = f'torch {torch.__version__}, transformers {transformers.__version__}'
    np.savez_compressed(FIXTURE, classes=classes, masks=masks, versions=versions)
    print(f'{FIXTURE}: {FIXTURE.stat().st_size} bytes, {versions}')
