from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from armbench_mmdet.engine.weights import compare_weights, load_weights
from armbench_mmdet.errors import InputError


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class Getattr:
    """Reaches for an attribute of a type that is allowed by itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (np.ndarray, 'tofile'))


def test_mmengine_checkpoint_is_read_without_its_prefix(tmp_path: Path) -> None:
    buffer = HistoryBuffer()
    buffer.update(1.0)
    meta = {'hub': buffer, 'scalar': np.float64(3), 'array': np.zeros(2)}
    torch.save({'state_dict': {'module.a': torch.ones(2)}, 'message_hub': meta}, tmp_path / 'a.pth')
    assert list(load_weights(tmp_path / 'a.pth')) == ['a']


def test_checkpoint_runs_no_code(tmp_path: Path) -> None:
    made = tmp_path / 'made'
    torch.save({'state_dict': {'a': torch.ones(2)}, 'extra': Attack(made)}, tmp_path / 'evil.pth')
    with pytest.raises(InputError, match=r'evil\.pth.*could run code'):
        load_weights(tmp_path / 'evil.pth')
    assert not made.exists()


def test_getattr_of_anything_but_a_history_buffer_is_refused(tmp_path: Path) -> None:
    torch.save({'state_dict': {'a': torch.ones(2)}, 'extra': Getattr()}, tmp_path / 'evil.pth')
    with pytest.raises(InputError, match=r'evil\.pth'):
        load_weights(tmp_path / 'evil.pth')


@pytest.mark.parametrize(
    'content', [b'', b'not a checkpoint', pickle.dumps({'a': 1}), None], ids=['empty', 'text', 'no tensors', 'missing']
)
def test_bad_checkpoint_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / 'bad.pth'
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r'checkpoint must .*bad\.pth'):
        load_weights(file)


def test_comparison_names_what_differs() -> None:
    ours = {'same': torch.ones(2), 'head': torch.ones(2, 3), 'new': torch.ones(1)}
    theirs = {'same': torch.ones(2), 'head': torch.ones(80, 3), 'old': torch.ones(1)}
    comparison = compare_weights(theirs, ours)
    assert comparison.matched == ['same']
    assert (comparison.missing, comparison.unexpected) == (['new'], ['old'])
    assert comparison.mismatched == {'head': ((80, 3), (2, 3))}
    assert not comparison.is_exact
    assert 'head (80, 3) ≠ (2, 3)' in comparison.describe()
    assert compare_weights(ours, ours).is_exact
