"""What is broken or unfinished is one clear line each, and the rest is reported."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_runs import MASK_RCNN, write_result, write_run_record

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.report import page
from armbench_mmdet.report.collect import collect_runs
from armbench_mmdet.report.page import Report, gather, rendered

MIX = f'{SUBSETS[0]}_test'
NO_RUN = 'work dir must be a folder with a run in it (record.json, logs or results), got '


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, 'gallery', lambda runs: ([], []))


@pytest.fixture
def run(work_dirs: list[Path], tmp_path: Path) -> Path:
    """A run like the first one, to be changed."""
    return Path(shutil.copytree(work_dirs[0], tmp_path / 'run'))


def change(path: Path, part: str = '', **keys: object) -> None:
    """Set keys of a JSON file, or of a part of it."""
    content = json.loads(path.read_text())
    (content[part] if part else content).update(keys)
    path.write_text(json.dumps(content))


def truncate_log(run: Path) -> None:
    path = next(run.glob('*/vis_data/scalars.json'))
    path.write_text(path.read_text()[:-20])


def break_config(run: Path) -> None:
    for path in (*run.glob('*.py'), *run.glob('*/vis_data/config.py')):
        path.write_text('model = dict(')


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (truncate_log, 'log lines must be JSON with a step'),
    (lambda run: change(run / f'results/{MIX}.json', schema_version=99), 'Invalid enum value 99 - at `$.schema'),
    (lambda run: (run / f'results/{MIX}.json').write_text('{"schema'), 'must be readable JSON'),
    (lambda run: (run / f'results/{MIX}.segm.matches.npz').unlink(), 'match table must be a readable file'),
    (lambda run: (run / 'record.json').write_text('{'), 'Input data was truncated'),
    (lambda run: change(run / 'record.json', schema_version=2), 'Invalid enum value 2 - at `$.schema'),
    (
        lambda run: change(run / 'record.json', attempts=None),
        'record must be JSON as tools/train.py writes it: Expected',
    ),
    (lambda run: (run / f'corruptions/{MIX}.json').write_text('{'), 'corruptions must be JSON as tools/test.py'),
    (lambda run: change(run / f'corruptions/{MIX}.json', corrupted={}), 'corruptions must all be measured'),
    (break_config, 'config must load'),
]


@pytest.mark.parametrize(('damage', 'line'), DAMAGES, ids=[line for _, line in DAMAGES])
def test_damage_is_one_line_and_the_rest_is_reported(
    work_dirs: list[Path], run: Path, damage: Callable[[Path], object], line: str
) -> None:
    damage(run)
    runs, problems = collect_runs([run, work_dirs[1]])
    (problem,) = (problem for problem in problems if line in problem)
    assert problem.startswith('run: ')
    assert '\n' not in problem
    assert [len(run.evaluations) for run in runs] in ([3, 3], [2, 3])
    assert runs[0].last_step == 600


def test_folders_with_nothing_in_them_are_named(work_dirs: list[Path], tmp_path: Path) -> None:
    nowhere = tmp_path / 'nowhere'
    runs, problems = collect_runs([nowhere, *work_dirs])
    assert (len(runs), problems) == (2, [f'nowhere: {NO_RUN}{str(nowhere)!r}'])
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


def marks(report: Report) -> dict[str, bool]:
    """Which run's mean mask mAP on mix is marked as the best."""
    table = report.parts['results'][1]
    return {row[1]: (i, 2) in table.best for i, row in enumerate(table.rows) if row[0] == 'mean'}


@pytest.mark.parametrize('fingerprint', [None, 'sha256:0123'])
def test_a_result_on_other_data_is_shown_and_not_compared(
    work_dirs: list[Path], run: Path, fingerprint: str | None
) -> None:
    change(run / f'results/{MIX}.json', 'identity', data_fingerprint=fingerprint)
    report = gather([*work_dirs, run])
    (warning,) = (line for line in report.problems if 'must be on the same data' in line)
    about = f'run: result on {SUBSETS[0]} test must be on the same data as the others, got '
    assert warning.startswith(about + (fingerprint or 'no data fingerprint'))
    assert marks(report) == {'first': True, 'second': False, 'run †': False}
    assert {name for name, _ in report.answers[0].scored} == {'first', 'second'}
    pair = gather([work_dirs[0], run])
    assert len(pair.answers[0].scored) == 1
    assert not any(marks(pair).values())


CREDITS = {
    'its own': (True, 'new', True),
    'of before a retraining, or of another run': (True, 'old', False),
    'checkpoints are gone': (False, 'old', True),
    'of a file without a digest': (True, None, True),
}


@pytest.mark.parametrize(('is_there', 'measured_on', 'is_credited'), CREDITS.values(), ids=CREDITS)
def test_a_result_is_credited_to_the_checkpoint_it_was_measured_on(
    work_dirs: list[Path], run: Path, is_there: bool, measured_on: str | None, is_credited: bool
) -> None:
    for path in (run / 'results').glob('*_test.json'):
        extra = json.loads(path.read_text())['identity']['extra']
        digest = {'checkpoint_sha256': hashlib.sha256(measured_on.encode()).hexdigest()} if measured_on else {}
        change(path, 'identity', extra=extra | digest)
    if is_there:
        (run / 'iter_600.pth').write_text('new')
    report = gather([run, work_dirs[1]])
    lines = [line for line in report.problems if "result must be of one of the run's checkpoints" in line]
    assert len(lines) == (0 if is_credited else 3)
    assert len(report.runs[0].corruptions) == (0 if is_there else 2)
    assert marks(report) == {'run' if is_credited else 'run †': is_credited, 'second': False}
    assert f'{SUBSETS[0]} test (iter_600.pth)' in report.parts['runs'][0].rows[0][-1]


def test_runs_of_one_name_are_told_apart(work_dirs: list[Path], tmp_path: Path) -> None:
    for name in ('a', 'b'):
        shutil.copytree(work_dirs[0], tmp_path / name / 'run')
    runs, _ = collect_runs([tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'a' / 'run'])
    assert [run.name for run in runs] == ['a', 'b']
