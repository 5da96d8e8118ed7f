"""Weights of other projects: what fits is converted bit by bit, what does not is named."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_models import Attack

from armbench_mmdet.convert import weights
from armbench_mmdet.convert.weights import FAMILIES, Family, State, convert_weights, our_tensors
from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.errors import InputError

FAMILY_NAMES = [name for name in FAMILIES if name != 'amazon']


@functools.cache
def thin_tensors(family: Family, num_classes: int | None = None) -> State:
    """A model's tensors without most of their columns: names and rows are what a conversion is about."""
    full = our_tensors(family, num_classes)
    return {
        name: value[:, :8].clone() if value.is_floating_point() and value.dim() > 1 else value
        for name, value in full.items()
    }


@pytest.fixture(scope='module', autouse=True)
def thin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, 'our_tensors', thin_tensors)
        yield


@pytest.fixture(scope='module', params=FAMILY_NAMES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A family's name, a file of ours, and the same weights in a file of theirs."""
    folder = tmp_path_factory.mktemp(request.param)
    state = thin_tensors(FAMILIES[request.param])
    torch.save({'state_dict': state}, folder / 'ours.pth')
    convert_weights(request.param, folder / 'ours.pth', folder / 'theirs.pth', reverse=True)
    return request.param, folder / 'ours.pth', folder / 'theirs.pth'


def test_there_and_back_is_bit_equal(family: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, ours, theirs = family
    convert_weights(name, theirs, tmp_path / 'back.pth')
    before, after = read_checkpoint(ours)['state_dict'], read_checkpoint(tmp_path / 'back.pth')
    assert after['meta']['dataset_meta']['classes'] == ['tote', 'object']
    torch.testing.assert_close(after['state_dict'], before, rtol=0, atol=0)


def test_what_does_not_fit_is_named(family: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, _, theirs = family
    state = dict(read_checkpoint(theirs))
    gone, cut = [key for key in state if key.endswith('.weight')][:2]
    state['surplus.weight'] = state.pop(gone)
    state[cut] = state[cut][1:]
    torch.save(state, tmp_path / 'other.pth')
    pattern = rf'{re.escape(cut)} .* ≠ .*{re.escape(gone)} is missing.*surplus\.weight is not in the model'
    with pytest.raises(InputError, match=pattern):
        convert_weights(name, tmp_path / 'other.pth', tmp_path / 'out.pth')


def test_names_of_old_versions_and_other_classes(tmp_path: Path) -> None:
    """As COCO's weights have them, in a file such as Amazon's."""
    family = FAMILIES['torchvision']
    ours, old = thin_tensors(family, 90), {'backbone.body.bn1.num_batches_tracked': torch.tensor(7)}
    for key, value in family.from_ours(ours).items():
        key = re.sub(r'(inner_blocks|layer_blocks)\.(\d)\.0', r'\1.\2', key).replace('head.conv.0.0', 'head.conv')
        old[re.sub(r'mask_head\.(\d)\.0', lambda match: f'mask_head.mask_fcn{int(match[1]) + 1}', key)] = value
    assert len(old.keys() - family.from_ours(ours).keys()) == 1 + 2 * (8 + 1 + 4)
    torch.save({'epoch': 9, 'model_state_dict': old, 'optimizer_state_dict': {'state': {}}}, tmp_path / 'latest.pt')
    with pytest.raises(InputError, match=r'cls_score\.weight \(91, 8\) ≠ \(3, 8\).*give --num-classes'):
        convert_weights('amazon', tmp_path / 'latest.pt', tmp_path / 'out.pth')
    convert_weights('amazon', tmp_path / 'latest.pt', tmp_path / 'out.pth', num_classes=90)
    converted = read_checkpoint(tmp_path / 'out.pth')
    assert len(converted['meta']['dataset_meta']['classes']) == 90
    torch.testing.assert_close(converted['state_dict'], ours, rtol=0, atol=0)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    torch.save({'model_state_dict': Attack(tmp_path / 'harmed')}, tmp_path / 'latest.pt')
    with pytest.raises(InputError, match='could run code'):
        convert_weights('amazon', tmp_path / 'latest.pt', tmp_path / 'out.pth')
    assert not (tmp_path / 'harmed').exists()


@pytest.mark.parametrize(
    ('names', 'order'),
    [
        ({'0': 'Object', '1': 'tote'}, [1, 0, 2]),
        ({'0': 'tote', '1': 'object'}, [0, 1, 2]),
        ({'0': 'LABEL_0', '1': 'LABEL_1'}, [0, 1, 2]),
        ({'1': 'box'}, [0, 1, 2]),
        ({}, [0, 1, 2]),
        ({'0': 'cat', '1': 'dog'}, None),
    ],
)
def test_classes_of_hugging_face_are_ours_by_name(names: dict, order: list[int] | None, tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text(json.dumps({'id2label': names}))
    given = {'class_predictor.bias': torch.arange(3)}, tmp_path / 'model.safetensors'
    if order is None:
        with pytest.raises(InputError, match=r'tote and object, got cat and dog.*config\.json'):
            FAMILIES['hf-mask2former'].current(*given)
    else:
        assert FAMILIES['hf-mask2former'].current(*given)['class_predictor.bias'].tolist() == order
