"""The command lines as users start them: their exit status, what they print and what they leave."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
from coco_reference import predictions_near, read_truth, write_rows
from small_models import REPO, untrained

import armbench_cli
from armbench_mmdet.errors import InputError

LEAF = f'{REPO}/configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
ARMBENCH = f'{REPO}/configs/mask_rcnn/mask-rcnn_r50_fpn_1x_armbench-mix.py'
SPACE = f'{REPO}/configs/sweeps/mask-rcnn_minibench.py'
TOOLS = sorted(path.stem for path in (REPO / 'tools').glob('*.py'))


def start(tool: str, *arguments: str | Path, cwd: Path = REPO, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f'{REPO}/tools/{tool}.py', *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def armbench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return start('../armbench_cli', *arguments, **environment)


@pytest.mark.parametrize('tool', TOOLS)
def test_help_is_instant_by_both_names(tool: str) -> None:
    command = tool.replace('_', '-')
    profile = {'PYTHONPROFILEIMPORTTIME': '1'}  # lists what is imported, on standard error
    for done, name in (
        (start(tool, '--help', **profile), f'{tool}.py'),
        (armbench(command, '--help', **profile), f'armbench {command}'),
    ):
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f'usage: {name} ')
        imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
        assert not imported & {'torch', 'numpy', 'mmengine', 'armbench_mmdet'}


def test_the_command_lists_every_tool() -> None:
    done = armbench('--help')
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [tool.replace('_', '-') for tool in TOOLS]


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('../armbench_cli', ['trian', LEAF], 'TOOL must be one of ablate, benchmark, browse'),
        ('test', [LEAF], 'CHECKPOINT must be given'),
        ('test', [LEAF, '--corruptions', 'a.pth', '--launcher', 'mpi'], '--corruptions is for one process'),
        ('infer', ['a.onnx', '--device', 'cpu', 'a.jpg', '--out', 'x'], '--device is not for an exported model'),
        ('train', [LEAF, '--work', 'x'], 'unrecognized arguments'),
        ('make_minibench', [], 'the following arguments are required: out'),
        ('sweep', [SPACE, '--n-trials', '0'], '--n-trials must be at least 1'),
        ('sweep', [SPACE, '--workers', '0'], '--workers must be at least 1'),
        ('benchmark', ['speed'], "invalid choice: 'speed'"),
        ('evaluate', ['x.json'], 'one of the arguments --ground-truth --subset is required'),
        ('evaluate', ['x.json', '--subset', 'mix-object-tote', '--images', 'x'], '--images goes with --ground-truth'),
        ('evaluate', ['x.json', '--ground-truth', 'x', '--split', 'val'], '--split and --data-root with --subset'),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(tool: str, arguments: list[str], message: str) -> None:
    done = start(tool, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_output_that_nobody_reads_is_no_failure() -> None:
    command = [
        sys.executable,
        f'{REPO}/tools/ablate.py',
        f'{REPO}/configs/shift/mask-rcnn_minibench-shift.py',
        '--table',
    ]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ''
    assert process.returncode == 141


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train', [LEAF, '--resume', 'nowhere.pth'], '--resume must find a whole checkpoint'),
        ('test', [LEAF, 'nowhere.pth'], 'checkpoint must be a file'),
        ('test', [LEAF, 'notes.txt'], 'checkpoint must be a readable file'),
        ('train', [ARMBENCH, '--data-root', 'nowhere', '--cfg-options', 'model.backbone.init_cfg=None'], 'nowhere'),
        ('sweep', [f'{REPO}/configs/_base_/schedules/1x.py'], 'search space must have known keys and types'),
        ('report', ['nowhere'], 'work dir must be a folder with a run in it'),
        ('evaluate', ['x.json', '--subset', 'mix-object-tote', '--data-root', 'nowhere'], 'must be a readable file'),
        ('evaluate', ['x.json', '--ground-truth', 'x.json', '--images', 'nowhere'], '--images folder must exist'),
        ('evaluate', ['x.json', '--ground-truth', 'x.json', '--name', 'trained'], '--name must not be that of a'),
    ],
)
def test_bad_input_is_one_message_and_status_2(tool: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / 'work_dirs/trained').mkdir(parents=True)
    (tmp_path / 'work_dirs/trained/record.json').touch()
    (tmp_path / 'notes.txt').write_text('Notes\n')
    out = {'evaluate': [], 'report': ['--out', 'run']}.get(tool, ['--work-dir', 'run'])
    done = start(tool, *arguments, *out, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert [line.startswith('error: ') for line in done.stderr.splitlines()].count(True) == 1  # it may list problems
    assert not list(tmp_path.glob('run/trial_*'))
    assert tool != 'report' or not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_infer_predicts_a_folder_and_names_a_broken_image(minibench_root: Path, tmp_path: Path) -> None:
    _, weights = untrained('mask_rcnn', minibench_root, tmp_path)
    (tmp_path / 'broken.jpg').touch()
    folder = minibench_root / 'zoomed-out-tote-transfer-set/images'
    options = ('--out', tmp_path / 'out', '--score-threshold', '0.3', '--batch-size', '2', '--device', 'cpu')
    done = start('infer', LEAF, weights, folder, tmp_path / 'broken.jpg', *options)
    assert done.returncode == 0, done.stderr
    images = len(list(folder.iterdir()))
    assert f'{images} images predicted, 1 left out' in done.stdout
    assert 'broken.jpg: image must be readable, got an empty file' in done.stderr
    assert f'{images + 1}/{images + 1}' in done.stderr
    for noise in ('Warning', 'warning', 'OneDL', 'mmengine - '):
        assert noise not in done.stderr + done.stdout
    index = json.loads((tmp_path / 'out/images.json').read_text())
    assert all((tmp_path / 'out' / image['overlay']).is_file() for image in index['images'])


@pytest.mark.slow
def test_predictions_become_a_row_of_the_report(minibench_root: Path, tmp_path: Path) -> None:
    rows = predictions_near(read_truth(minibench_root))
    sure = [{**row, 'score': 0.5 + row['score'] / 2} for row in rows]
    (tmp_path / 'yolo').mkdir()
    predictions, exact = write_rows(tmp_path / 'yolo', sure), write_rows(tmp_path, rows)
    data = ('--subset', 'mix-object-tote', '--data-root', minibench_root)
    done = start('evaluate', predictions, *data, '--compare', exact, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'flag: no score is below 0.5' in done.stdout
    assert 'result files: work_dirs/yolo-predictions/results' in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith('segm  mAP ')] == ['+0.000000']
    folder = minibench_root / 'mix-object-tote'
    own = ('--ground-truth', folder / 'test.json', '--images', folder / 'images')
    again = start('evaluate', exact, *own, '--name', 'exact', cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stderr == ''

    report = start('report', 'work_dirs/yolo-predictions', 'work_dirs/exact', cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    (note,) = (line for line in report.stdout.splitlines() if line.startswith('note: '))
    assert 'yolo-predictions: no score is below 0.5' in note
    assert 'report: work_dirs/report/report.html' in report.stdout.splitlines()
    with (tmp_path / 'work_dirs/report/results.csv').open() as file:
        scored = {row['run']: row for row in csv.DictReader(file)}
    assert set(scored) == {'yolo-predictions', 'exact'}
    assert all(row['comparable'] == '1' for row in scored.values())


def test_exit_status(capsys: pytest.CaptureFixture) -> None:
    assert armbench_cli.run_tool(lambda: None) == 0
    assert armbench_cli.run_tool(lambda: 1) == 1
    assert armbench_cli.run_tool(Mock(side_effect=InputError('size must be positive, got -1'))) == 2
    assert armbench_cli.run_tool(Mock(side_effect=KeyboardInterrupt)) == 130
    assert capsys.readouterr().err == 'error: size must be positive, got -1\ninterrupted\n'
    with pytest.raises(ZeroDivisionError):
        armbench_cli.run_tool(lambda: 1 / 0)


def test_waiting_threads_soon_sleep_unless_the_user_wants_otherwise() -> None:
    spinning = {'OMP_WAIT_POLICY': 'ACTIVE'}
    for asked, given in ({}, {'OMP_WAIT_POLICY': 'PASSIVE', 'GOMP_SPINCOUNT': '1000'}), (spinning, spinning):
        with patch.dict(os.environ, asked, clear=True):
            armbench_cli.set_environment()
            assert dict(os.environ) == given
