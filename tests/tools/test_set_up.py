"""The wheels as their users have them, the doctor where torch's driver does not answer, and the Makefile."""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from unittest import mock

import pytest
import torch
from small_models import REPO

CONFIG = 'mask-rcnn_r18-w32_fpn-64_minibench'
RUNTIME_NEEDS = ('numpy', 'PIL', 'pycocotools', 'onnxruntime', 'flatbuffers', 'google', 'packaging')
NO_DRIVER = RuntimeError('Found no NVIDIA driver on your system.\nPlease check.')
FAILS = RuntimeError('CUDA error: unknown error')


def call(*command: str | Path, cwd: Path = REPO) -> str:
    """Run a command without this checkout on its path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'
    return done.stdout


def installed(project: Path, folder: Path) -> tuple[Path, Path, Path]:
    """The wheel of a project, an environment with nothing but that, and where its packages lie."""
    pip, environment = (sys.executable, '-m', 'pip'), folder / 'environment'
    isolation = ['--no-build-isolation'] if importlib.util.find_spec('hatchling') else []
    call(*pip, 'wheel', project, '--no-deps', *isolation, '-w', folder)
    (wheel,) = folder.glob('*.whl')
    call(sys.executable, '-m', 'venv', '--without-pip', environment)
    call(*pip, '--python', environment / 'bin/python', 'install', '--no-deps', '--no-index', wheel)
    return wheel, environment, next(environment.glob('lib/python*/site-packages'))


@pytest.mark.slow
def test_the_wheel_trains_evaluates_and_reports_outside_any_checkout(tmp_path: Path, minibench_root: Path) -> None:
    wheel, environment, site = installed(REPO, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {name.partition('/')[0] for name in names if '.dist-info/' not in name}
    assert top_level == {'armbench_cli.py', 'armbench_mmdet', 'armbench_runtime'}
    tracked = call('git', 'ls-files', 'configs', 'tools').split()
    assert {f'armbench_mmdet/.mim/{path}' for path in tracked} <= set(names)
    assert 'armbench_mmdet/py.typed' in names

    (site / 'others.pth').write_text(sysconfig.get_path('purelib') + '\n')  # this one's packages but for the checkout
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


@pytest.mark.slow
def test_the_runtimes_wheel_runs_where_there_is_no_torch(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    _, environment, site = installed(REPO / 'armbench_runtime', tmp_path)
    for name in RUNTIME_NEEDS:
        folder = Path(next(iter(importlib.util.find_spec(name).submodule_search_locations)))
        for part in (folder, folder.parent / 'numpy.libs', folder.parent / 'pillow.libs'):
            if part.is_dir() and not (site / part.name).exists():
                (site / part.name).symlink_to(part)
    code = (
        'import sys, armbench_runtime as a\n'
        'try: a.Detector.from_onnx(sys.executable)\n'
        'except a.InputError as error: print(error)\n'
    )
    assert 'must be an ONNX file' in call(environment / 'bin/python', '-c', code, cwd=tmp_path)


@pytest.mark.parametrize(
    ('devices', 'said'),
    [
        ({'return_value': 0}, 'no GPU answers'),
        ({'side_effect': NO_DRIVER}, 'Found no NVIDIA driver'),
        ({'return_value': 1}, 'CUDA error: unknown error'),
    ],
    ids=['no device', 'no driver', 'a device that fails'],
)
def test_a_driver_that_does_not_answer_is_a_problem_with_a_remedy(tool, monkeypatch, devices, said: str) -> None:
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'device_count', mock.Mock(**devices))
    monkeypatch.setattr(torch.cuda, 'get_device_name', mock.Mock(side_effect=FAILS))
    status, printed, _ = tool('doctor.py')
    assert status == 2
    assert said in printed
    assert 'torch was built for CUDA 13.0\n' + ' ' * 20 + ' -> check the driver: nvidia-smi' in printed


def make(venv: Path, target: str, failing: str = 'nothing', status: int = 0) -> subprocess.CompletedProcess[str]:
    """Make a target where every command that names ``failing`` ends with ``status``."""
    python = venv / 'bin/python'
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\necho "python $*"\ncase "$*" in *{failing}*) exit {status};; esac\n')
    python.chmod(0o755)
    unset = ('MAKEFLAGS', 'MAKELEVEL', 'MFLAGS')  # the tests may run under make themselves
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = ['make', target, f'VENV={venv}']
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(('status', 'is_set_up'), [(0, True), (2, True), (1, False)])
def test_set_up_finishes_with_the_doctors_problems_as_a_warning(tmp_path: Path, status: int, is_set_up: bool) -> None:
    done = make(tmp_path, 'setup', 'doctor', status)
    assert (done.returncode == 0) == is_set_up, done.stderr
    assert (tmp_path / '.armbench-mmdet').exists() == is_set_up
    assert ('\nwarning: set-up is complete' in done.stdout) == (status == 2)


def test_the_demo_trains_and_tests_both_models_and_reports_unless_one_fails(tmp_path: Path) -> None:
    done = make(tmp_path, 'demo')
    assert done.returncode == 0, done.stderr
    assert re.findall(r'tools/(\w+)\.py', done.stdout)[-5:] == ['train', 'train', 'test', 'test', 'report']
    assert done.stdout.rstrip().endswith('_minibench --out work_dirs/report')
    failed = make(tmp_path, 'demo', 'train.py', 2)
    assert failed.returncode != 0
    assert re.findall(r'tools/(\w+)\.py', failed.stdout)[-1] == 'train'
