import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from armbench_mmdet.engine.checkpoints import (
    compare_weights,
    described,
    export_weights,
    load_weights,
    read_checkpoint,
)
from armbench_mmdet.errors import InputError


class Getattr:
    """Reaches for an attribute of a type that is allowed by itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (np.ndarray, 'tofile'))


def test_what_mmengines_checkpoints_hold_is_plain_data(tmp_path: Path) -> None:
    buffer = HistoryBuffer()
    buffer.update(1.0)
    meta = {
        'dataset_meta': ConfigDict(classes=('a',), nested=dict(palette=[(1, 2)])),
        'scalars': [np.float32(1), np.float64(2), np.int64(3), np.bool_(True), np.uint8(4)],
        'array': np.arange(3, dtype=np.int32),
    }
    content = {'state_dict': OrderedDict({'module.a': torch.ones(2)}), 'message_hub': buffer, 'meta': meta}
    torch.save(content, tmp_path / 'a.pth')
    assert list(load_weights(tmp_path / 'a.pth')) == ['a']
    read = read_checkpoint(tmp_path / 'a.pth')['meta']
    assert read['dataset_meta'] == meta['dataset_meta']
    assert isinstance(read['dataset_meta'].nested, ConfigDict)
    assert read['scalars'] == meta['scalars']
    assert read['array'].tolist() == [0, 1, 2]


def test_numpy_1_names_are_known(tmp_path: Path) -> None:
    torch.save({'state_dict': {'a': torch.ones(2)}, 'x': np.float64(2)}, tmp_path / 'new.pth')
    content = (tmp_path / 'new.pth').read_bytes()
    assert b'numpy._core.multiarray' in content
    with zipfile.ZipFile(tmp_path / 'new.pth') as new, zipfile.ZipFile(tmp_path / 'old.pth', 'w') as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    assert read_checkpoint(tmp_path / 'old.pth')['x'] == 2


def test_weights_are_exported(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = {'module.a': shared.reshape(2, 3).T, 'b': shared, 'n': torch.tensor(3)}
    torch.save({'state_dict': state, 'optimizer': {}}, tmp_path / 'a.pth')
    assert export_weights(tmp_path / 'a.pth', tmp_path / 'out/a.safetensors') == 3
    exported, original = load_weights(tmp_path / 'out/a.safetensors'), load_weights(tmp_path / 'a.pth')
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[name], original[name]) for name in original)
    with pytest.raises(InputError, match=r'OUT must end in \.safetensors'):
        export_weights(tmp_path / 'a.pth', tmp_path / 'a.pt')


def test_getattr_of_anything_but_a_history_buffer_is_refused(tmp_path: Path) -> None:
    torch.save({'state_dict': {'a': torch.ones(2)}, 'extra': Getattr()}, tmp_path / 'evil.pth')
    with pytest.raises(InputError, match=r'evil\.pth'):
        load_weights(tmp_path / 'evil.pth')


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('bad.pth', b''),
        ('bad.pth', b'not a checkpoint'),
        ('bad.pth', pickle.dumps({'a': 1})),
        ('bad.safetensors', b'text'),
        ('missing.pth', None),
    ],
)
def test_bad_checkpoint_is_one_clear_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f'checkpoint must .*{name}'):
        load_weights(file)


def test_comparison_names_what_differs() -> None:
    ours = {'same': torch.ones(2), 'head': torch.ones(2, 3), **{f'new{i}': torch.ones(1) for i in range(7)}}
    theirs = {'same': torch.ones(2), 'head': torch.ones(80, 3), 'old': torch.ones(1)}
    assert compare_weights(ours, ours) == {}
    text = described(compare_weights(theirs, ours))
    assert text.startswith('head (80, 3) ≠ (2, 3); new0 is missing from the checkpoint, new1 is missing')
    assert text.endswith('new4 is missing from the checkpoint, … (+2 more); old is not in the model')
