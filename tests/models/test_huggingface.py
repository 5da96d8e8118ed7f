"""Our Mask2Former with Hugging Face's weights computes what transformers computes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_peer import FAMILY, FIXTURE, FIXTURE_SIZE, our_model, ours, peer_model, pixels, theirs
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from armbench_mmdet.convert.huggingface import current

TOLERANCE = 1e-4
"""Of the range of the logits."""
SIZES = [(64, 96), (131, 97), (90, 141)]


@pytest.fixture(scope='module')
def models() -> tuple[nn.Module, nn.Module | None]:
    """Our model and that of transformers, small, with the same weights."""
    model, weights = our_model()
    return model, peer_model(weights) if importlib.util.find_spec('transformers') else None


def assert_close(mine: Tensor, peer: Tensor) -> None:
    difference = float((mine - peer).abs().max() / (peer.max() - peer.min()))
    print(tuple(peer.shape), difference)
    assert difference <= TOLERANCE


def instances(model: nn.Module, logits: tuple[Tensor, Tensor], size: tuple[int, int]) -> InstanceData:
    """What our model makes of the logits."""
    masks = F.interpolate(logits[1], size, mode='bilinear', align_corners=False)
    sample = DetDataSample(metainfo={'img_shape': size, 'ori_shape': size})
    return model.panoptic_fusion_head.predict(logits[0], masks, [sample], rescale=True)[0]['ins_results']


def compare(model: nn.Module, mine: tuple[Tensor, Tensor], peer: tuple[Tensor, Tensor], size: tuple[int, int]) -> None:
    """Logits are close, and the instances the same, in the same order but for equal scores."""
    for one, other in zip(mine, peer, strict=True):
        assert_close(one, other)
    found, expected = (instances(model, logits, size) for logits in (mine, peer))
    found, expected = (result[result.scores.argsort(descending=True)] for result in (found, expected))
    scores, labels = (found.scores, expected.scores), (found.labels, expected.labels)
    torch.testing.assert_close(*scores, rtol=0, atol=TOLERANCE)
    assert len(labels[1].unique()) == 2
    tied = F.pad(scores[1].diff().abs() < TOLERANCE, (1, 0)) | F.pad(scores[1].diff().abs() < TOLERANCE, (0, 1))
    assert tied.float().mean() < 0.2
    assert torch.equal(labels[0][~tied], labels[1][~tied])
    masks = [result.masks.to_tensor()[~tied] for result in (found, expected)]
    assert masks[1].any(2).any(1).float().mean() > 0.5
    assert (masks[0] != masks[1]).float().mean() < 1e-4


@pytest.mark.peers
@pytest.mark.parametrize('size', SIZES)
def test_logits_and_instances(models: tuple[nn.Module, nn.Module], size: tuple[int, int]) -> None:
    image = pixels(*size)
    compare(models[0], ours(models[0], image), theirs(models[1], image), size)


@pytest.mark.peers
def test_swin_b_itself() -> None:
    model, weights = our_model(small=False)
    peer = peer_model(weights, small=False)
    image = pixels(256, 256)
    compare(model, ours(model, image), theirs(peer, image), (256, 256))
    # With so many queries rounding moves a pixel across an attention mask's threshold now and then.
    image = pixels(250, 190).double()
    for one, other in zip(ours(model.double(), image), theirs(peer.double(), image), strict=True):
        assert_close(one, other)


@pytest.mark.peers
def test_a_saved_model_and_one_in_memory_are_ours(models: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    mine, peer = models
    peer.save_pretrained(tmp_path)
    for state in (load_file(tmp_path / 'model.safetensors'), peer.state_dict()):
        converted = FAMILY.to_ours(current(state, tmp_path / 'elsewhere' / 'model.safetensors'))
        assert converted.keys() == mine.state_dict().keys()
        assert all(torch.equal(value, converted[name]) for name, value in mine.state_dict().items())


@pytest.mark.peers
def test_our_weights_are_found_by_from_pretrained(models: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    mine, peer = models
    peer.config.save_pretrained(tmp_path)
    torch.save(FAMILY.from_ours(mine.state_dict()), tmp_path / 'pytorch_model.bin')
    again, info = type(peer).from_pretrained(tmp_path, output_loading_info=True)
    assert {name.rpartition('.')[0] for name in info['missing_keys']} == {
        'model.pixel_level_module.encoder.swin.layernorm'
    }
    assert not info['unexpected_keys']
    image = pixels(*FIXTURE_SIZE)
    for one, other in zip(theirs(again.eval(), image), theirs(peer, image), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_logits_are_those_that_transformers_has_written_down(models: tuple[nn.Module, nn.Module | None]) -> None:
    with np.load(FIXTURE) as stored:
        peer = torch.from_numpy(stored['classes']), torch.from_numpy(stored['masks'])
    compare(models[0], ours(models[0], pixels(*FIXTURE_SIZE)), peer, FIXTURE_SIZE)
