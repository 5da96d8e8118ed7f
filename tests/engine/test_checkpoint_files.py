"""Writing checkpoints with faults: a loadable checkpoint is always left."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk

from armbench_mmdet.engine import checkpoints as checkpoint_files
from armbench_mmdet.engine.checkpoints import (
    CheckpointBackend,
    check_checksum,
    latest_checkpoint,
    mark_latest,
    read_checkpoint,
    remove_drafts,
    write_checkpoint,
)
from armbench_mmdet.errors import InputError


def content_of(value: Any) -> bytes:
    with io.BytesIO() as file:
        torch.save({'state_dict': {'a': torch.full((100,), float(value))}}, file)
        return file.getvalue()


def value_in(path: Path) -> float:
    return float(read_checkpoint(path)['state_dict']['a'][0])


def fails(*arguments: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def nth(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, failing at its n-th call."""
    calls = iter(range(1, 99))
    return lambda *arguments: fails() if next(calls) == number else function(*arguments)


FAULTS: dict[str, tuple[str, Callable[[], Callable[..., Any]]]] = {
    'write': ('open', lambda: full_disk),
    'sync of the file': ('os.fsync', lambda: nth(1, os.fsync)),
    'rename': ('os.replace', lambda: nth(1, os.replace)),
    'sync of the folder': ('os.fsync', lambda: nth(2, os.fsync)),
    'sync of the checksum': ('os.fsync', lambda: nth(3, os.fsync)),
    'rename of the checksum': ('os.replace', lambda: nth(2, os.replace)),
}


@pytest.mark.parametrize('name', ['iter_1.pth', 'iter_2.pth'], ids=['over the old', 'beside the old'])
@pytest.mark.parametrize(('target', 'fault'), FAULTS.values(), ids=FAULTS)
def test_a_loadable_checkpoint_is_always_left(
    target: str, fault: Callable, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / 'iter_1.pth', content_of(1))
    mark_latest(tmp_path, tmp_path / 'iter_1.pth')
    with monkeypatch.context() as patched:
        patched.setattr(f'armbench_mmdet.engine.checkpoints.{target}', fault(), raising=False)
        with pytest.raises(InputError, match=rf'{name}.*earlier checkpoints are intact.*--resume'):
            write_checkpoint(tmp_path / name, content_of(2))
    latest = latest_checkpoint(tmp_path)
    assert latest == tmp_path / 'iter_1.pth'
    assert value_in(latest) in ((1, 2) if name == 'iter_1.pth' else (1,))
    assert not list(tmp_path.glob('*.draft'))


@pytest.mark.parametrize(('target', 'fault'), list(FAULTS.values())[:3], ids=list(FAULTS)[:3])
def test_last_checkpoint_names_the_old_one_or_the_new(
    target: str, fault: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_latest(tmp_path, tmp_path / 'a.pth')
    with monkeypatch.context() as patched:
        patched.setattr(f'armbench_mmdet.engine.checkpoints.{target}', fault(), raising=False)
        with pytest.raises(InputError, match=r'the checkpoint is complete.*--resume .*b\.pth'):
            mark_latest(tmp_path, tmp_path / 'b.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'a.pth')


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_files, 'open', full_disk, raising=False)
    with pytest.raises(InputError, match='No space left on device'):
        write_checkpoint(tmp_path / 'a.pth', content_of(1))


def test_what_reads_back_otherwise_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('armbench_mmdet.engine.checkpoints.sha256_of', lambda path: '0')
    with pytest.raises(InputError, match='reads back otherwise'):
        write_checkpoint(tmp_path / 'a.pth', content_of(1))
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_resumed_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    with io.BytesIO() as file:
        torch.save({'message_hub': {'a path': tmp_path}}, file)
        content = file.getvalue()
    with pytest.raises(InputError, match=r'hooks and metrics store must be plain data.*PosixPath'):
        write_checkpoint(tmp_path / 'a.pth', content)


def test_sha256sum_understands_the_checksum(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'a.pth', content_of(1))
    done = subprocess.run(['sha256sum', '-c', 'a.pth.sha256'], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def damage(path: Path) -> None:
    """Change one bit of a weight, which torch would not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), value_in(path)).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(checkpoint_files, 'print_log', lambda text, *options: said.append(text))
    for number in (1, 2):
        write_checkpoint(tmp_path / f'iter_{number}.pth', content_of(number))
        os.utime(tmp_path / f'iter_{number}.pth', (number, number))
    write_checkpoint(tmp_path / 'best_iter_3.pth', content_of(3))
    mark_latest(tmp_path, tmp_path / 'iter_2.pth')
    damage(tmp_path / 'iter_2.pth')
    with pytest.raises(InputError, match=r'differs from its checksum iter_2\.pth\.sha256'):
        read_checkpoint(tmp_path / 'iter_2.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_1.pth'
    assert len(said) >= 1
    assert said[0].startswith('passed over: ')
    assert 'iter_2.pth' in said[0]
    damage(tmp_path / 'iter_1.pth')
    assert latest_checkpoint(tmp_path) is None


def test_a_run_that_was_moved_is_found(tmp_path: Path) -> None:
    (tmp_path / 'old').mkdir()
    write_checkpoint(tmp_path / 'old/iter_1.pth', content_of(1))
    mark_latest(tmp_path / 'old', tmp_path / 'old/iter_1.pth')
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert latest_checkpoint(tmp_path / 'new') == tmp_path / 'new/iter_1.pth'


def test_a_file_without_a_checksum_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').write_bytes(content_of(1))
    check_checksum(tmp_path / 'a.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'a.pth'


def test_drafts_are_removed(tmp_path: Path) -> None:
    (tmp_path / 'a.pth.draft').touch()
    (tmp_path / 'a.pth').touch()
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def test_removal_waits_for_what_comes_instead(tmp_path: Path) -> None:
    backend = CheckpointBackend()
    backend.put(content_of(1), tmp_path / 'a.pth')
    backend.hold()
    backend.remove(str(tmp_path / 'a.pth'))
    assert (tmp_path / 'a.pth').is_file()
    backend.release()
    backend.put(content_of(2), tmp_path / 'b.pth')
    backend.remove(tmp_path / 'b.pth')
    assert not list(tmp_path.iterdir())
