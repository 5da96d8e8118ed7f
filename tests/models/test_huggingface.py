"""Our Mask2Former with Hugging Face's weights computes what transformers computes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_peer import (
    FAMILY,
    FIXTURE,
    FIXTURE_SIZE,
    Logits,
    our_instances,
    our_model,
    ours,
    peer_model,
    pixels,
    their_instances,
    theirs,
)
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from peer_weights import made_objects
from torch import nn

TOLERANCE = 1e-4
"""Of the range of the logits; of scores; and the share of pixels that may differ."""


@pytest.fixture(scope='module')
def models() -> tuple[nn.Module, nn.Module | None]:
    """Our model and that of transformers, small, with the same weights."""
    model, weights = our_model()
    return model, peer_model(weights) if importlib.util.find_spec('transformers') else None


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
    optimizers = [torch.optim.SGD(one.parameters(), 1e-5) for one in (model, peer)]
    expected = []
    for _ in range(3):
        losses = (
            sum(model.panoptic_head.loss(model.extract_feat(image), [sample]).values()),
            peer(image, mask_labels=[masks.float()], class_labels=[labels]).loss,
        )
        expected.append(losses[1].item())
        print('losses', *losses)
        assert losses[0].item() == pytest.approx(expected[-1], rel=TOLERANCE)
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert expected[-1] < 0.8 * expected[0]


@pytest.mark.peers
def test_a_saved_model_is_ours_and_ours_is_found_by_from_pretrained(
    models: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    mine, peer = models
    peer.save_pretrained(tmp_path)
    file = tmp_path / 'model.safetensors'
    state = FAMILY.current(load_file(file), tmp_path / 'elsewhere' / file.name)
    converted = FAMILY.to_ours(state, mine.state_dict())
    assert converted.keys() == mine.state_dict().keys()
    assert all(torch.equal(value, converted[name]) for name, value in mine.state_dict().items())
    file.unlink()
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
    assert_close(ours(models[0], pixels(*FIXTURE_SIZE)), peer)
