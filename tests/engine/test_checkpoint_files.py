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
    checkpoint_digests,
    latest_checkpoint,
    read_checkpoint,
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
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_1.pth'))
    message = rf'could not be written: (Input/output error|File too large).*{name}.*intact.*--resume'
    with pytest.raises(InputError, match=message), fault():
        write_checkpoint(tmp_path / name, holding(2))
    latest = latest_checkpoint(tmp_path)
    assert latest == tmp_path / 'iter_1.pth'
    assert value_in(latest) in ((1, 2) if name == 'iter_1.pth' else (1,))
    assert not list(tmp_path.glob('*.draft'))


def test_digests_are_those_of_the_files_as_sha256sum_understands_them(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'iter_1.pth', holding(1))
    torch.save(holding(2), tmp_path / 'a.pth')
    assert checkpoint_digests(tmp_path) == {sha256_of(path) for path in tmp_path.glob('*.pth')}
    done = subprocess.run(['sha256sum', '-c', 'iter_1.pth.sha256'], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def damage(path: Path) -> None:
    """Change one bit of a weight, which torch would not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), value_in(path)).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_passed_over(tmp_path: Path) -> None:
    torch.save(holding(0), tmp_path / 'iter_0.pth')  # without a digest, a file is taken as it is
    for number in (1, 2):
        write_checkpoint(tmp_path / f'iter_{number}.pth', holding(number))
    for number in range(3):
        os.utime(tmp_path / f'iter_{number}.pth', (number, number))
    write_checkpoint(tmp_path / 'best_iter_3.pth', holding(3))
    damage(tmp_path / 'iter_2.pth')
    with pytest.raises(InputError, match=r'differs from its checksum iter_2\.pth\.sha256'):
        read_checkpoint(tmp_path / 'iter_2.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_1.pth'
    damage(tmp_path / 'iter_1.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_0.pth'
    (tmp_path / 'iter_0.pth').unlink()
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ('named', 'found'),
    [('runs/old/iter_1.pth', 'iter_1.pth'), ('runs/old/iter_3.pth', 'iter_2.pth'), ('', 'iter_2.pth')],
    ids=['the folder was moved', 'only the name was copied', 'killed as the name was written'],
)
def test_the_latest_is_the_one_that_is_named_or_the_newest(tmp_path: Path, named: str, found: str) -> None:
    for number in (1, 2):
        write_checkpoint(tmp_path / f'iter_{number}.pth', holding(number))
        os.utime(tmp_path / f'iter_{number}.pth', (number, number))
    (tmp_path / 'last_checkpoint').write_text(named)
    assert latest_checkpoint(tmp_path) == tmp_path / found
