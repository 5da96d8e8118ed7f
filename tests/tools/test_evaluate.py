"""``tools/evaluate.py`` as users start it, and the report of what it leaves."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from peer_results import predictions_near, read_truth, write_rows

REPO = Path(__file__).resolve().parents[2]


def start(tool: str, cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPO / f'tools/{tool}.py', *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_predictions_become_a_row_of_the_report(minibench_root: Path, tmp_path: Path) -> None:
    rows = predictions_near(read_truth(minibench_root))
    sure = [{**row, 'score': 0.5 + row['score'] / 2} for row in rows]
    (tmp_path / 'yolo').mkdir()
    predictions, exact = write_rows(tmp_path / 'yolo', sure), write_rows(tmp_path, rows)
    data = ('--subset', 'mix-object-tote', '--data-root', minibench_root)
    done = start('evaluate', tmp_path, predictions, *data, '--compare', exact)
    assert done.returncode == 0, done.stderr
    assert 'flag: no score is below 0.5' in done.stdout
    assert 'result files: work_dirs/yolo-predictions/results' in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith('segm  mAP ')] == ['+0.000000']
    folder = minibench_root / 'mix-object-tote'
    own = ('--ground-truth', folder / 'test.json', '--images', folder / 'images')
    again = start('evaluate', tmp_path, exact, *own, '--name', 'exact')
    assert again.returncode == 0, again.stderr
    assert again.stderr == ''

    report = start('report', tmp_path, 'work_dirs/yolo-predictions', 'work_dirs/exact')
    assert report.returncode == 0, report.stderr
    notes = [line for line in report.stdout.splitlines() if line.startswith('note: ')]
    assert len(notes) == 1
    assert 'yolo-predictions: no score is below 0.5' in notes[0]
    with (tmp_path / 'work_dirs/report/results.csv').open() as file:
        scored = {row['run']: row for row in csv.DictReader(file)}
    assert set(scored) == {'yolo-predictions', 'exact'}
    assert all(row['comparable'] == '1' for row in scored.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--subset', 'totes'], '--subset must be one of'),
        (['--subset', 'mix-object-tote', '--data-root', 'nowhere'], 'predictions must be a readable file'),
        (['--ground-truth', 'x.json', '--images', 'nowhere'], '--images folder must exist'),
        (['--ground-truth', 'x.json', '--name', 'trained'], '--name must not be that of a training'),
        (['--ground-truth', 'x.json', '--category-map', 'tote'], '--category-map must be a dict'),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / 'work_dirs/trained').mkdir(parents=True)
    (tmp_path / 'work_dirs/trained/record.json').touch()
    done = start('evaluate', tmp_path, 'nowhere.json', *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count('\n') == 1
