import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from toy_run import AtIteration, Points, guarded_runner

from armbench_mmdet import system
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.engine.failure import explained_failures


def record(work_dir: Path) -> dict:
    return json.loads((work_dir / 'record.json').read_text())


def run(work_dir: Path, iterations: int, **options: Any) -> dict:
    """The record after a run, which goes on where there is an earlier one."""
    earlier = work_dir / f'iter_{iterations - 1}.pth'
    resume = {'resume': True, 'load_from': str(earlier)} if earlier.exists() else {}
    guarded_runner(work_dir, iterations, **resume, **options).train()
    return record(work_dir)


def test_finished_run_says_what_it_was(tmp_path: Path) -> None:
    begun = []
    written = run(tmp_path, 2, hooks=[AtIteration(1, lambda: begun.append(record(tmp_path)))])
    assert (begun[0]['status'], begun[0]['attempts'][0]['ended']) == ('running', None)
    assert written['schema_version'] == 1
    assert (written['seed'], written['status'], written['message']) == (3, 'finished', None)
    assert written['config'].endswith('toy.py')
    (attempt,) = written['attempts']
    assert (attempt['start_iter'], attempt['end_iter'], attempt['world_size']) == (0, 2, 1)
    assert attempt['started'] <= attempt['ended']
    assert attempt['started'].endswith('+00:00')
    assert attempt['resumed_from'] is None
    assert 'pytest' in attempt['command']
    assert {'torch', 'onedl-mmdetection'} <= attempt['versions'].keys()
    assert attempt['hardware']['cores'] >= 1
    assert attempt['hardware']['memory_mb'] > 100
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize(('error', 'ending'), [(ZeroDivisionError, 'failed'), (KeyboardInterrupt, 'stopped')])
def test_resumed_run_adds_an_attempt(tmp_path: Path, error: type[BaseException], ending: str) -> None:
    def fail() -> None:
        raise error

    runner = guarded_runner(tmp_path, hooks=[AtIteration(2, fail)])
    with pytest.raises(error), explained_failures(runner):
        runner.train()
    assert record(tmp_path)['status'] == ending
    run(tmp_path, 2)
    written = run(tmp_path, 3)
    assert written['status'] == 'finished'
    assert [attempt['start_iter'] for attempt in written['attempts']] == [0, 2]
    assert [attempt['resumed_from'] for attempt in written['attempts']] == [None, str(tmp_path / 'iter_2.pth')]


def test_data_are_fingerprinted_and_unreadable_images_listed(tmp_path: Path) -> None:
    annotations = tmp_path / 'train.json'
    annotations.write_text('{}')

    class Listed(Points):
        metainfo = GroundTruthSource(str(annotations)).as_metainfo()

        def unreadable_images(self) -> list[str]:
            return ['images/3.jpg']

    written = run(tmp_path, 1, data=Listed())
    assert written['data'] == {str(annotations): f'sha256:{hashlib.sha256(b"{}").hexdigest()}'}
    assert written['attempts'][0]['unreadable_images'] == ['images/3.jpg']


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
    (checkout / 'package').mkdir(parents=True)
    git(checkout, 'init')
    (checkout / 'package/a.py').write_text('a = 1\n')
    git(checkout, 'add', '.')
    git(checkout, 'commit', '-m', 'first')
    state = system.git_state(checkout / 'package')
    assert len(state[0] or '') == 40
    assert state[1] == ''
    (checkout / 'package/a.py').write_text('a = 2\n')
    (checkout / 'new.py').write_text('b = 3\n')
    monkeypatch.setattr('armbench_mmdet.hooks.run_record.git_state', lambda: system.git_state(checkout / 'package'))
    assert run(work_dir, 1)['attempts'][0]['git'] == {'revision': state[0], 'diff': 'git.diff'}
    git(checkout, 'stash')
    (checkout / 'new.py').unlink()
    git(checkout, 'apply', str(work_dir / 'git.diff'))
    assert (checkout / 'package/a.py').read_text() == 'a = 2\n'
    assert (checkout / 'new.py').read_text() == 'b = 3\n'


@pytest.mark.parametrize('path', ['', None], ids=['no git', 'no checkout'])
def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    if path is not None:
        monkeypatch.setenv('PATH', path)
    assert system.git_state(tmp_path) == (None, '')
