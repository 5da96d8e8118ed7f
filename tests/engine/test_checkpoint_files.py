"""Writing checkpoints with faults: a loadable checkpoint is always left."""

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from armbench_mmdet.engine.checkpoints import (
    add_validation,
    checkpoint_digests,
    latest_checkpoint,
    mark_latest,
    mark_validated,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)
from armbench_mmdet.errors import InputError
from armbench_mmdet.files import sha256_of


def holding(value: float) -> dict[str, Any]:
    return {'state_dict': {'a': torch.full((1000,), float(value))}}


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
    effects = [mock.DEFAULT] * (number - 1) + [error] + [mock.DEFAULT] * 9
    return mock.patch.object(os, name, wraps=function, side_effect=effects)


FAULTS = {
    'write': no_room,
    'sync of the file': lambda: failing('fsync', 1),
    'rename': lambda: failing('replace', 1),
    'sync of the folder': lambda: failing('fsync', 2),
    'sync of the checksum': lambda: failing('fsync', 3),
    'rename of the checksum': lambda: failing('replace', 2),
}


@pytest.mark.parametrize('name', ['iter_1.pth', 'iter_2.pth'], ids=['over the old', 'beside the old'])
@pytest.mark.parametrize('fault', FAULTS.values(), ids=FAULTS)
def test_a_loadable_checkpoint_is_always_left(fault: Callable, name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'iter_1.pth', holding(1))
    mark_latest(tmp_path, tmp_path / 'iter_1.pth')
    message = rf'could not be written: (Input/output error|File too large).*{name}.*intact.*--resume'
    with pytest.raises(InputError, match=message), fault():
        write_checkpoint(tmp_path / name, holding(2))
    latest = latest_checkpoint(tmp_path)
    assert latest == tmp_path / 'iter_1.pth'
    assert value_in(latest) in ((1, 2) if name == 'iter_1.pth' else (1,))
    assert not list(tmp_path.glob('*.draft'))


@pytest.mark.parametrize('fault', ['sync of the file', 'rename'])
def test_last_checkpoint_names_the_old_one_or_the_new(fault: str, tmp_path: Path) -> None:
    mark_latest(tmp_path, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=r'The checkpoint is complete.*--resume .*b\.pth'), FAULTS[fault]():
        mark_latest(tmp_path, tmp_path / 'b.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'a.pth')


def test_what_could_not_be_resumed_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'hooks and metrics store must be plain data.*PosixPath'):
        write_checkpoint(tmp_path / 'a.pth', {'message_hub': {'a path': tmp_path}})
    assert not list(tmp_path.iterdir())


def test_sha256sum_understands_the_checksum(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'a.pth', holding(1))
    done = subprocess.run(['sha256sum', '-c', 'a.pth.sha256'], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def damage(path: Path) -> None:
    """Change one bit of a weight, which torch would not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), value_in(path)).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_passed_over(tmp_path: Path) -> None:
    for number in (1, 2):
        write_checkpoint(tmp_path / f'iter_{number}.pth', holding(number))
        os.utime(tmp_path / f'iter_{number}.pth', (number, number))
    write_checkpoint(tmp_path / 'best_iter_3.pth', holding(3))
    mark_latest(tmp_path, tmp_path / 'iter_2.pth')
    damage(tmp_path / 'iter_2.pth')
    with pytest.raises(InputError, match=r'differs from its checksum iter_2\.pth\.sha256'):
        read_checkpoint(tmp_path / 'iter_2.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_1.pth'
    damage(tmp_path / 'iter_1.pth')
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ('written', 'named', 'found'),
    [
        (['runs/new/iter_1.pth'], 'runs/old/iter_1.pth', 'runs/new/iter_1.pth'),  # the folder was moved
        (['runs/new/iter_1.pth', 'runs/old/iter_1.pth'], 'runs/old/iter_1.pth', 'runs/new/iter_1.pth'),  # it is a copy
        (['elsewhere/new/iter_1.pth'], 'elsewhere/new/iter_1.pth', 'elsewhere/new/iter_1.pth'),  # the hook's out_dir
        (['runs/old/iter_1.pth'], 'runs/old/iter_1.pth', None),  # a copy without checkpoints
    ],
)
def test_a_run_takes_no_other_runs_checkpoint(tmp_path: Path, written: list[str], named: str, found) -> None:
    for path in written:
        write_checkpoint(tmp_path / path, holding(1))
    (tmp_path / 'runs/new').mkdir(parents=True, exist_ok=True)
    mark_latest(tmp_path / 'runs/new', tmp_path / named)
    assert latest_checkpoint(tmp_path / 'runs/new') == (tmp_path / found if found else None)


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'iter_1.pth', holding(1))
    torch.save(holding(2), tmp_path / 'a.pth')
    assert checkpoint_digests(tmp_path) == {sha256_of(path) for path in tmp_path.glob('*.pth')}


def test_a_file_without_a_checksum_is_taken_as_it_is(tmp_path: Path) -> None:
    torch.save(holding(1), tmp_path / 'a.pth')
    assert value_in(tmp_path / 'a.pth') == 1
    assert latest_checkpoint(tmp_path) == tmp_path / 'a.pth'


def test_what_a_validation_changed_is_added_to_its_own_checkpoint_only(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / 'iter_1.pth'
    write_checkpoint(path, {**holding(1), 'optimizer': {'state': 5, 'lr': 1}, 'hub': 1})
    checkpoint = read_checkpoint(path)
    assert not add_validation(path, checkpoint)
    mark_validated(path, {'optimizer': {'lr': 2}, 'hub': 3})
    assert add_validation(path, checkpoint)
    assert checkpoint['optimizer'] == {'state': 5, 'lr': 2}
    assert checkpoint['hub'] == 3
    (tmp_path / 'iter_1.pth.validated').write_bytes(b'damaged')
    assert not add_validation(path, checkpoint)
    mark_validated(path, {'hub': 3})
    write_checkpoint(path, holding(2))
    assert not add_validation(path, checkpoint)
    remove_checkpoint(path)
    assert not list(tmp_path.iterdir())
