"""Checkpoints: a loadable one is always left, none runs code, and what does not fit is named."""

import contextlib
import errno
import io
import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from small_models import Attack
from toy_run import ToyModel, assert_equal, run, toy_config

from armbench_mmdet.engine import checkpoints
from armbench_mmdet.engine.checkpoints import latest_checkpoint, load_weights, local_file, read_checkpoint, safe_loaders
from armbench_mmdet.errors import InputError


def saved(path: Path, value: int) -> Path:
    """A checkpoint that holds a value, and whose time is that value."""
    checkpoints.write_checkpoint(path, {'state_dict': {'a': torch.full((1000,), float(value))}})
    os.utime(path, (value, value))
    return path


def value_in(path: Path) -> float:
    return float(read_checkpoint(path)['state_dict']['a'][0])


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Files can grow to 500 bytes, then writing fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def failing(name: str, number: int) -> Any:
    """A function of ``os`` that fails at its n-th call."""
    function, error = getattr(os, name), OSError(errno.EIO, os.strerror(errno.EIO))
    return mock.patch.object(os, name, wraps=function, side_effect=[mock.DEFAULT] * (number - 1) + [error])


FAULTS = {
    'write': no_room,
    'sync of the file': lambda: failing('fsync', 1),
    'rename': lambda: failing('replace', 1),
    'sync of the folder': lambda: failing('fsync', 2),
}


@pytest.mark.parametrize('name', ['iter_1.pth', 'iter_2.pth'], ids=['over the old', 'beside the old'])
@pytest.mark.parametrize('fault', FAULTS.values(), ids=FAULTS)
def test_a_loadable_checkpoint_is_always_left(fault: Callable, name: str, tmp_path: Path) -> None:
    old = saved(tmp_path / 'iter_1.pth', 1)
    (tmp_path / 'last_checkpoint').write_text(str(old))
    message = rf'could not be written: (Input/output error|File too large).*{name}.*intact.*--resume'
    with pytest.raises(InputError, match=message), fault():
        saved(tmp_path / name, 2)
    assert latest_checkpoint(tmp_path) == old
    assert value_in(old) in ((1, 2) if name == old.name else (1,))
    assert not list(tmp_path.glob('*.draft'))


def test_damage_is_found_and_passed_over(tmp_path: Path) -> None:
    first, second, third = (saved(tmp_path / f'iter_{number}.pth', number) for number in (1, 2, 3))
    saved(tmp_path / 'best_iter_3.pth', 4)
    content = bytearray(third.read_bytes())
    content[content.index(torch.full((4,), 3.0).numpy().tobytes())] ^= 1  # torch would not notice
    third.write_bytes(content)
    with pytest.raises(InputError, match=r'damaged: a record differs from its checksum \(in .*iter_3\.pth'):
        read_checkpoint(third)
    assert latest_checkpoint(tmp_path) == second
    second.write_bytes(first.read_bytes()[:2000])
    assert latest_checkpoint(tmp_path) == first
    first.unlink()
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ('named', 'found'),
    [('runs/old/iter_1.pth', 'iter_1.pth'), ('runs/old/iter_3.pth', 'iter_2.pth'), ('', 'iter_2.pth')],
    ids=['the folder was moved', 'only the name was copied', 'killed as the name was written'],
)
def test_the_latest_is_the_one_that_is_named_or_the_newest(tmp_path: Path, named: str, found: str) -> None:
    for number in (1, 2):
        saved(tmp_path / f'iter_{number}.pth', number)
    (tmp_path / 'last_checkpoint').write_text(named)
    assert latest_checkpoint(tmp_path) == tmp_path / found


def test_what_mmengines_checkpoints_hold_is_plain_data(tmp_path: Path) -> None:
    buffer = HistoryBuffer()
    buffer.update(1.0)
    meta = {
        'dataset_meta': ConfigDict(classes=('a',), nested=dict(palette=[(1, 2)])),
        'scalars': [np.float32(1), np.float64(2), np.int64(3), np.bool_(True), np.uint8(4)],
        'array': np.arange(3, dtype=np.int32),
    }
    content = {'state_dict': OrderedDict({'module.a': torch.ones(2)}), 'message_hub': buffer, 'meta': meta}
    torch.save(content, tmp_path / 'new.pth')
    with zipfile.ZipFile(tmp_path / 'new.pth') as new, zipfile.ZipFile(tmp_path / 'old.pth', 'w') as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    for file in (tmp_path / 'new.pth', tmp_path / 'old.pth'):  # the second as NumPy 1 names things
        assert list(load_weights(file)) == ['a']
        read = read_checkpoint(file)['meta']
        assert read['dataset_meta'] == meta['dataset_meta']
        assert isinstance(read['dataset_meta'].nested, ConfigDict)
        assert read['scalars'] == meta['scalars']
        assert read['array'].tolist() == [0, 1, 2]


def pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save({'state_dict': {'a': torch.ones(2)}, 'extra': value}, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.pth', b'', ''),
        ('a.pth', b'not a checkpoint', ''),
        ('a.pth', pickle.dumps({'a': 1}), ''),
        ('a.safetensors', b'text', ''),
        ('missing.pth', None, 'No such file'),
        ('a.pth', pickled(np.ndarray.tofile), 'holds getattr, which could run code'),
        ('a.pth', pickled(Attack(Path('made'))), 'could run code; if you trust its author, .* --trust-checkpoint'),
    ],
    ids=['empty', 'text', 'pickle', 'bad safetensors', 'missing', 'getattr', 'attack'],
)
def test_bad_checkpoint_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(InputError, match=f'checkpoint must .*{name}.*{message}'):
        load_weights(Path(name))
    assert not Path('made').exists()


@pytest.mark.parametrize('name', ['s3://bucket/a.pth', 'pavi://a', 'mmcls://resnet50', 'open-mmlab://no-such-model'])
def test_what_cannot_be_loaded_safely_is_refused(name: str) -> None:
    with pytest.raises(InputError, match='must be a path, a URL or a known name'):
        local_file(name)


@pytest.mark.parametrize(
    'name', ['https://zoo.org/a/model-1234.pth?b=c', 'torchvision://resnet50', 'open-mmlab://detectron2/resnet50_caffe']
)
def test_zoo_weights_are_downloaded_once_and_read_safely(name: str, tmp_path: Path, monkeypatch) -> None:
    remote: list[bytes] = [pickled(Attack(tmp_path / 'made')), pickled(None)]

    def download(url: str, target: str) -> None:
        assert url.startswith('https://')
        if not remote:
            raise URLError('no route to host')
        Path(target).write_bytes(remote.pop())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    for _ in range(2):
        assert list(load_weights(local_file(name))) == ['a']
    (file,) = (tmp_path / 'hub/checkpoints').iterdir()
    file.unlink()
    with pytest.raises(InputError, match='could run code'), safe_loaders():
        CheckpointLoader.load_checkpoint(name)
    assert not (tmp_path / 'made').exists()
    CheckpointLoader.load_checkpoint(str(file))
    assert (tmp_path / 'made').exists(), 'elsewhere mmengine loads as it always does'
    file.unlink()
    with pytest.raises(InputError, match=rf'no route to host.*Save it as .*hub/checkpoints/{file.name}'):
        local_file(name)


def test_weights_are_exported_and_are_to_start_from(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = {'module.a': shared.reshape(2, 3).T, 'b': shared, 'n': torch.tensor(3)}
    torch.save({'state_dict': state, 'optimizer': {}}, tmp_path / 'a.pth')
    assert checkpoints.export_weights(tmp_path / 'a.pth', tmp_path / 'out/a.safetensors') == 3
    assert_equal(load_weights(tmp_path / 'out/a.safetensors'), load_weights(tmp_path / 'a.pth'))
    with pytest.raises(InputError, match=r'OUT must end in \.safetensors'):
        checkpoints.export_weights(tmp_path / 'a.pth', tmp_path / 'a.pt')

    state = {name: torch.full_like(value, 2) for name, value in ToyModel().state_dict().items()}
    save_file(state, tmp_path / 'model.safetensors')
    config = toy_config(tmp_path / 'run', load_from=str(tmp_path / 'model.safetensors'))
    config.optim_wrapper.optimizer.update(lr=0.0, weight_decay=0.0)
    assert torch.equal(run(config).model.net[0].weight.data, state['net.0.weight'])


def test_comparison_names_what_differs() -> None:
    ours = {'same': torch.ones(2), 'head': torch.ones(2, 3), **{f'new{i}': torch.ones(1) for i in range(7)}}
    theirs = {'same': torch.ones(2), 'head': torch.ones(80, 3), 'old': torch.ones(1)}
    assert checkpoints.compare_weights(ours, ours) == {}
    text = checkpoints.described(checkpoints.compare_weights(theirs, ours))
    assert text.startswith('head (80, 3) ≠ (2, 3); new0 is missing from the checkpoint, new1 is missing')
    assert text.endswith('new4 is missing from the checkpoint, … (+2 more); old is not in the model')
