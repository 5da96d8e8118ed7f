"""The command lines as users start them: their exit status, what they print and what they leave."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import write_weights
from synthetic_runs import record

import armbench_cli
from armbench_mmdet.configs import load_config

REPO = Path(__file__).resolve().parents[2]
LEAF = 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
ARMBENCH = 'configs/mask_rcnn/mask-rcnn_r50_fpn_1x_armbench-mix.py'
SPACE = 'configs/sweeps/mask-rcnn_minibench.py'
TOOLS = sorted(path.stem for path in (REPO / 'tools').glob('*.py'))


def start(tool: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f'tools/{tool}.py', *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=REPO,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def processor_time_s() -> float:
    """Of the commands so far: on a busy machine it says more than a clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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


def test_the_command_lists_every_tool_in_no_time() -> None:
    begin = processor_time_s()
    done = armbench('--help')
    assert processor_time_s() - begin < 0.3
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [tool.replace('_', '-') for tool in TOOLS]


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('../armbench_cli', ['trian', LEAF], 'TOOL must be one of ablate, benchmark, browse'),
        ('test', [LEAF], 'CHECKPOINT must be given'),
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


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(load_config(REPO / LEAF), tmp_path_factory.mktemp('weights') / 'random.pth')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train', ['configs/nowhere.py'], 'config must be an existing file'),
        ('train', [LEAF, '--resume', 'nowhere.pth'], '--resume must find a whole checkpoint'),
        ('test', [LEAF, 'nowhere.pth'], 'checkpoint must be a file'),
        ('test', [LEAF, 'pyproject.toml'], 'checkpoint must be a readable file'),
        ('train', [ARMBENCH, '--data-root', 'nowhere', '--cfg-options', 'model.backbone.init_cfg=None'], 'nowhere'),
        ('sweep', ['configs/nowhere.py'], 'config must be an existing file'),
        (
            'sweep',
            [SPACE, '--storage', 'postgresql://127.0.0.1:1/study'],
            "can be reached, got 'postgresql://127.0.0.1:1/study'",
        ),
        ('sweep', ['configs/_base_/schedules/1x.py'], 'search space must have known keys and types'),
        ('report', ['nowhere'], 'work dir must be an existing folder'),
        ('infer', [LEAF, '{weights}', 'nowhere.jpg'], 'nowhere.jpg: no such file or folder'),
        ('infer', [LEAF, '{weights}', 'pyproject.toml'], 'got none of 1 that is: pyproject.toml'),
        ('infer', [LEAF, '{weights}', 'docs', '--device', 'cuda:99'], 'device must be'),
    ],
)
def test_bad_input_is_one_message_and_status_2(tool: str, arguments, message: str, weights: Path, tmp_path) -> None:
    words = [word.format(weights=weights) for word in arguments]
    done = start(tool, *words, '--out' if tool in ('report', 'infer') else '--work-dir', tmp_path / 'run')
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert [line.startswith('error: ') for line in done.stderr.splitlines()].count(True) == 1  # it may list problems
    assert not list(tmp_path.glob('run/trial_*'))
    assert tool != 'report' or not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_infer_predicts_a_folder_and_names_a_broken_image(weights: Path, minibench_root: Path, tmp_path: Path) -> None:
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
def test_an_unfinished_run_is_reported_and_the_files_are_named(tmp_path: Path) -> None:
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/record.json').write_text(json.dumps(record('configs/gone.py', 'running')))
    done = start('report', tmp_path / 'run', tmp_path / 'nowhere', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert "note: work dir must be an existing folder, got '" in done.stdout
    assert "note: run: the run did not finish; its record says 'unfinished'" in done.stdout
    assert f'report: {tmp_path / "out" / "report.html"}' in done.stdout.splitlines()
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'report.html', 'results.md', 'results.csv'}


def test_waiting_threads_sleep_unless_the_user_wants_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    armbench_cli.set_environment()
    assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    armbench_cli.set_environment()
    assert os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'
