"""Weights of other projects: what fits is converted bit by bit, what does not is named."""

import re
from pathlib import Path

import pytest
import torch

from armbench_mmdet.convert.weights import FAMILIES, convert_weights, family_of, our_tensors
from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.errors import InputError

FAMILY_NAMES = [name for name in FAMILIES if name != 'amazon']


@pytest.fixture(scope='module', params=FAMILY_NAMES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A family's name, a file of ours, and the same weights in a file of theirs."""
    folder = tmp_path_factory.mktemp(request.param)
    state = our_tensors(family_of(request.param))
    torch.save({'state_dict': state}, folder / 'ours.pth')
    convert_weights(request.param, folder / 'ours.pth', folder / 'theirs.pth', reverse=True)
    return request.param, folder / 'ours.pth', folder / 'theirs.pth'


def test_there_and_back_is_bit_equal(family: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, ours, theirs = family
    convert_weights(name, theirs, tmp_path / 'back.pth')
    before, after = read_checkpoint(ours)['state_dict'], read_checkpoint(tmp_path / 'back.pth')
    assert after['meta']['dataset_meta']['classes'] == ['tote', 'object']
    assert before.keys() == after['state_dict'].keys()
    assert all(torch.equal(value, after['state_dict'][key]) for key, value in before.items())


def test_what_does_not_fit_is_named(family: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, _, theirs = family
    state = dict(read_checkpoint(theirs))
    gone, cut = [key for key in state if key.endswith('.weight')][:2]
    state['surplus.weight'] = state.pop(gone)
    state[cut] = state[cut][1:]
    torch.save(state, tmp_path / 'other.pth')
    pattern = rf'missing.*{re.escape(gone)}.*not in the model.*surplus\.weight.*another shape.*{re.escape(cut)}'
    with pytest.raises(InputError, match=pattern):
        convert_weights(name, tmp_path / 'other.pth', tmp_path / 'out.pth')


class Harm:
    def __reduce__(self) -> tuple:
        return Path('harmed').touch, ()


def test_a_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({'model_state_dict': Harm()}, 'latest.pt')
    with pytest.raises(InputError, match='could run code'):
        convert_weights('amazon', Path('latest.pt'), Path('out.pth'))
    assert not Path('harmed').exists()
