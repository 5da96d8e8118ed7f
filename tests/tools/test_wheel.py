"""The wheel as its users have it: installed into another environment, run outside any checkout."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPO = Path(__file__).resolve().parents[2]
CONFIG = 'mask-rcnn_r18-w32_fpn-64_minibench'


def call(*command: str | Path, cwd: Path = REPO) -> str:
    """Run a command without this checkout on its path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('dist')
    isolation = ['--no-build-isolation'] if importlib.util.find_spec('hatchling') else []
    call(sys.executable, '-m', 'pip', 'wheel', REPO, '--no-deps', *isolation, '-w', folder)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and this one's packages but for the checkout."""
    folder = tmp_path_factory.mktemp('environment')
    call(sys.executable, '-m', 'venv', '--without-pip', folder)
    call(sys.executable, '-m', 'pip', '--python', folder / 'bin/python', 'install', '--no-deps', '--no-index', wheel)
    site = next(folder.glob('lib/python*/site-packages'))
    (site / 'others.pth').write_text(sysconfig.get_path('purelib') + '\n')  # its own .pth files are not read
    return folder


def test_only_the_package_and_its_command_are_importable(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {name.partition('/')[0] for name in names}
    assert {name for name in top_level if not name.endswith('.dist-info')} == {
        'armbench_cli.py',
        'armbench_mmdet',
        'armbench_runtime',
    }
    tracked = call('git', 'ls-files', 'configs', 'tools').split()
    assert {f'armbench_mmdet/.mim/{path}' for path in tracked} <= set(names)
    assert 'armbench_mmdet/py.typed' in names


def test_it_trains_evaluates_and_reports_outside_any_checkout(
    environment: Path, tmp_path: Path, minibench_root: Path
) -> None:
    armbench = environment / 'bin/armbench'
    assert ' train ' in call(armbench, '--help', cwd=tmp_path)
    assert 'all is well' in call(armbench, 'doctor', cwd=tmp_path)
    where = call(environment / 'bin/python', '-c', 'import armbench_mmdet as a; print(a.__file__)', cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    options = ['--data-root', minibench_root, '--cfg-options']
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
    call(armbench, 'train', CONFIG, *options, *short, cwd=tmp_path)
    run = f'work_dirs/{CONFIG}'
    call(armbench, 'test', CONFIG, run, '--subset', 'mix-object-tote', '--data-root', minibench_root, cwd=tmp_path)
    assert 'note: ' not in call(armbench, 'report', run, cwd=tmp_path), 'the report has nothing to complain of'
    assert (tmp_path / run / 'results/mix-object-tote_test.json').is_file()
    assert (tmp_path / 'work_dirs/report/report.html').is_file()
