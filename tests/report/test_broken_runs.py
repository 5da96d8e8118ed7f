"""What is broken or unfinished is one clear line each, and the rest is reported."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_runs import MASK_RCNN, set_identity, set_keys, write_result, write_run_record

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.report import page
from armbench_mmdet.report.collect import collect_runs
from armbench_mmdet.report.page import gather, rendered

MIX = f'{SUBSETS[0]}_test'


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, 'gallery', lambda runs: ([], []))


@pytest.fixture
def run(work_dirs: list[Path], tmp_path: Path) -> Path:
    """A run like the first one, to be changed."""
    return Path(shutil.copytree(work_dirs[0], tmp_path / 'run'))


LOG, MATCHES = '20261124_010203/vis_data/scalars.json', f'results/{MIX}.segm.matches.npz'
DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda run: (run / LOG).open('a').write('{"loss": 1, "st'), 'log lines must be JSON with a step'),
    (lambda run: set_keys(run / f'results/{MIX}.json', schema_version=99), 'Invalid enum value 99 - at `$.schema'),
    (lambda run: (run / f'results/{MIX}.json').write_text('{"schema'), 'must be readable JSON'),
    (lambda run: (run / MATCHES).unlink(), 'match table must be a readable file'),
    (lambda run: os.truncate(run / MATCHES, 100), 'by tools/test.py, got BadZipFile'),
    (lambda run: (run / 'record.json').write_text('{'), 'Input data was truncated'),
    (lambda run: set_keys(run / 'record.json', schema_version=2), 'Invalid enum value 2 - at `$.schema'),
    (lambda run: set_keys(run / 'record.json', attempts=None), 'JSON as tools/train.py writes it, got Expected'),
    (lambda run: (run / f'corruptions/{MIX}.json').write_text('{'), 'corruptions must be JSON as tools/test.py'),
    (lambda run: set_keys(run / f'corruptions/{MIX}.json', corrupted={}), 'corruptions must all be measured'),
    (lambda run: [path.write_text('model = dict(') for path in run.rglob('*.py')], 'config must load'),
]


@pytest.mark.parametrize(('damage', 'line'), DAMAGES, ids=[line for _, line in DAMAGES])
def test_damage_is_one_line_and_the_rest_is_reported(work_dirs: list[Path], run: Path, damage, line: str) -> None:
    damage(run)
    runs, problems = collect_runs([run, work_dirs[1]])
    (problem,) = (problem for problem in problems if line in problem)
    assert problem.startswith('run: ')
    assert '\n' not in problem
    assert [len(run.evaluations) for run in runs] in ([3, 3], [2, 3])
    assert runs[0].last_step == 600


def test_folders_with_nothing_in_them_are_named(work_dirs: list[Path], tmp_path: Path) -> None:
    nowhere = tmp_path / 'nowhere'
    runs, (problem,) = collect_runs([nowhere, *work_dirs])
    assert len(runs) == 2
    assert re.match(f"nowhere: work dir must be a folder with a run in it .*, got '{nowhere}'", problem)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty' / 'record.json').write_text('[]')
    with pytest.raises(InputError, match=r'nowhere.*empty: record must be JSON.*must be a folder'):
        collect_runs([nowhere, tmp_path / 'empty'])


@pytest.mark.parametrize(
    ('status', 'message', 'shown'),
    [('running', None, 'unfinished'), ('failed', 'loss is NaN', 'failed: loss is NaN'), ('stopped', None, 'stopped')],
)
def test_a_run_that_did_not_finish_is_listed_as_such(run: Path, status: str, message: str | None, shown: str) -> None:
    shutil.rmtree(run / 'results')
    write_run_record(run, MASK_RCNN, status, message)
    report = gather([run])
    assert f'run: the run did not finish at iteration 600; its record says {shown!r}' in report.problems
    assert any('no result to show' in line for line in report.problems)
    assert shown in report.parts['runs'][0].rows[0]
    assert 'No run has a result file yet' in rendered(report, 'page.html.j2')


def test_a_result_alone_is_enough_on_data_of_ones_own_too(minibench_root: Path, tmp_path: Path) -> None:
    shutil.copytree(minibench_root / SUBSETS[0], tmp_path / 'data/coins')
    write_result(tmp_path / 'bare', tmp_path / 'data', 'coins', None)
    report = gather([tmp_path / 'bare'])
    assert not [line for line in report.problems if 'left out' in line]
    assert report.parts['results'][1].caption == 'coins, test: masks'
    text = rendered(report, 'page.html.j2')
    assert 'unknown: no record.json' in text
    assert 'No run has a log with curves.' in text


NEW, OLD = (hashlib.sha256(text).hexdigest() for text in (b'new', b'old'))
IDENTITIES = {
    # What is changed of a result, whether the run has a checkpoint, what is said if it is not to be compared.
    'other data': ({'data_fingerprint': 'sha256:01'}, {}, False, 'on the same data as the others, got sha256:01'),
    'unknown data': ({'data_fingerprint': None}, {}, False, 'on the same data as the others, got no data fingerprint'),
    'its own': ({}, {'checkpoint_sha256': NEW}, True, ''),
    'of before a retraining': ({}, {'checkpoint_sha256': OLD}, True, "of one of the run's checkpoints"),
    'checkpoints are gone': ({}, {'checkpoint_sha256': OLD}, False, ''),
    'of a file without a digest': ({}, {}, True, ''),
}


@pytest.mark.parametrize(('identity', 'extra', 'has_checkpoint', 'fault'), IDENTITIES.values(), ids=IDENTITIES)
def test_a_result_of_something_else_is_shown_and_not_compared(work_dirs, run, identity, extra, has_checkpoint, fault):
    set_identity(run / f'results/{MIX}.json', extra, **identity)
    if has_checkpoint:
        (run / 'iter_600.pth').write_text('new')
    report = gather([*work_dirs, run])
    said = [line for line in report.problems if line.startswith('run: result')]
    assert [fault in line for line in said] == [True] * bool(fault)
    (table,) = (one for one in report.parts['results'] if one.caption == f'{SUBSETS[0]}, test: masks')
    marks = {row[1]: (i, 2) in table.best for i, row in enumerate(table.rows) if row[0] == 'mean'}
    assert marks == {'first': True, 'second': False, 'run †' if fault else 'run': not fault}
    contenders = {'second', 'first' if fault else 'first (2 seeds)'}  # the copy differs in nothing
    assert {name for name, _ in report.answers[0].scored} == contenders
    assert len(report.runs[2].corruptions) == (0 if has_checkpoint else 2)
    assert f'{SUBSETS[0]} test (iter_600.pth)' in report.parts['runs'][0].rows[0][-1]


def test_runs_of_one_name_are_told_apart(work_dirs: list[Path], tmp_path: Path) -> None:
    for name in ('a', 'b'):
        shutil.copytree(work_dirs[0], tmp_path / name / 'run')
    runs, _ = collect_runs([tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'a' / 'run'])
    assert [run.name for run in runs] == ['a', 'b']
