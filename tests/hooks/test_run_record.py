"""``record.json``: what a run was, on what, and how each of its attempts ended."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from toy_run import AtIteration, Points, guarded_runner

from armbench_mmdet import system
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.run_folder import read_record


def run(work_dir: Path, iterations: int, **options: Any) -> Any:
    """The record after a run, which goes on where there is an earlier one."""
    earlier = work_dir / f'iter_{iterations - 1}.pth'
    resume = {'resume': True, 'load_from': str(earlier)} if earlier.exists() else {}
    guarded_runner(work_dir, iterations, **resume, **options).train()
    return read_record(work_dir)


def test_finished_run_says_what_it_was_and_on_which_data(tmp_path: Path) -> None:
    annotations = tmp_path / 'train.json'
    annotations.write_text('{}')
    data: Any = Points()
    data.metainfo, data.unreadable_images = GroundTruthSource(str(annotations)).as_metainfo(), lambda: ['images/3.jpg']
    begun: list[Any] = []
    written = run(tmp_path, 2, data=data, hooks=[AtIteration(1, lambda: begun.append(read_record(tmp_path)))])
    assert (begun[0].status, begun[0].attempts[0].ended) == ('running', None)
    assert (written.seed, written.status, written.message) == (3, 'finished', None)
    assert written.config.endswith('toy.py')
    assert written.data == {str(annotations): f'sha256:{hashlib.sha256(b"{}").hexdigest()}'}
    (attempt,) = written.attempts
    assert (attempt.start_iter, attempt.end_iter, attempt.world_size, attempt.resumed_from) == (0, 2, 1, None)
    assert attempt.started <= attempt.ended
    assert attempt.started.endswith('+00:00')
    assert 'pytest' in attempt.command
    assert {'torch', 'onedl-mmdetection'} <= attempt.versions.keys()
    assert attempt.hardware['cores'] >= 1
    assert attempt.hardware['memory_mb'] > 100
    assert attempt.unreadable_images == ['images/3.jpg']


@pytest.mark.parametrize(('error', 'ending'), [(ZeroDivisionError, 'failed'), (KeyboardInterrupt, 'stopped')])
def test_resumed_run_adds_an_attempt(tmp_path: Path, error: type[BaseException], ending: str) -> None:
    def fail() -> None:
        raise error

    runner = guarded_runner(tmp_path, hooks=[AtIteration(2, fail)])
    with pytest.raises(error), explained_failures(runner):
        runner.train()
    assert read_record(tmp_path).status == ending
    run(tmp_path, 2)
    written = run(tmp_path, 3)
    assert written.status == 'finished'
    attempts = [(attempt.start_iter, attempt.resumed_from) for attempt in written.attempts]
    assert attempts == [(0, None), (2, str(tmp_path / 'iter_2.pth'))]


@pytest.mark.parametrize(('name', 'content', 'is_said'), [('moved.json', '{}', False), ('train.json', '[]', True)])
def test_a_run_resumed_on_other_annotations_says_so(tmp_path: Path, capsys, name, content, is_said) -> None:
    for file, text, iterations in (('train.json', '{}', 1), (name, content, 2)):
        (tmp_path / file).write_text(text)
        data = Points()
        data.metainfo = GroundTruthSource(str(tmp_path / file)).as_metainfo()
        run(tmp_path / 'run', iterations, data=data)
    warning = f'resumed on other annotations than before: {tmp_path / name}'
    assert (warning in capsys.readouterr().out) is is_said


def test_record_that_cannot_be_written_is_a_warning(tmp_path: Path, capsys) -> None:
    (tmp_path / 'record.json').mkdir()
    guarded_runner(tmp_path, iterations=1).train()
    assert 'warning: no record of this run' in capsys.readouterr().out


def git(folder: Path, *arguments: str) -> None:
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    subprocess.run(['git', '-C', str(folder), *identity, *arguments], check=True, capture_output=True)


def test_changes_of_a_checkout_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, work_dir = tmp_path / 'checkout', tmp_path / 'run'
    files = {checkout / 'package/a.py': 'a = 2\n', checkout / 'new.py': 'b = 3\n'}
    (checkout / 'package').mkdir(parents=True)
    (checkout / 'package/a.py').write_text('a = 1\n')
    git(checkout, 'init')
    git(checkout, 'add', '.')
    git(checkout, 'commit', '-m', 'first')
    revision, patch = system.git_state(checkout / 'package')
    assert (len(revision or ''), patch) == (40, '')
    for path, text in files.items():
        path.write_text(text)
    monkeypatch.setattr('armbench_mmdet.hooks.run_record.git_state', lambda: system.git_state(checkout / 'package'))
    written = run(work_dir, 1).attempts[0].git
    assert (written.revision, written.diff) == (revision, 'git.diff')
    git(checkout, 'stash', '--include-untracked')
    git(checkout, 'apply', str(work_dir / 'git.diff'))
    assert {path: path.read_text() for path in files} == files


def test_without_git_or_a_checkout_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.git_state(tmp_path) == (None, '')
    monkeypatch.setenv('PATH', '')
    assert system.git_state() == (None, '')
