"""What README and docs/training.md show works, pages say what the code has, rooms and dependencies are as declared."""

import ast
import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from armbench_mmdet.configs import load_config
from armbench_mmdet.evaluation.result import Result

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / 'docs'
LEAF = REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
README = '\n'.join((REPO / name).read_text() for name in ('README.md', 'docs/training.md'))
ELSEWHERE = {  # parts of commands that do not run here, and why
    'git clone': 'is how this got here',
    'make ': 'its targets are checked below; CI and `make demo` run them',
    'export ': 'set for every command here',
    'source ': 'as above',
    'slurm_train.sh': 'needs SLURM; bash checks it below',
    'tools/sweep.py': 'tests/sweep/test_minibench_sweep.py runs a sweep',
    'optuna-dashboard': 'an optional package that serves until it is stopped',
}
TINY = """
_base_ = {base!r}
train_cfg = dict(max_iters=4, val_interval=4)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=2)]
default_hooks = dict(checkpoint=dict(interval=4))
auto_scale_lr = dict(base_batch_size=2)
"""
PYPROJECT = tomllib.loads((REPO / 'pyproject.toml').read_text())
DEPENDENCIES = PYPROJECT['project']['dependencies']
EXTRAS = PYPROJECT['project']['optional-dependencies']
NOT_DECLARED = {
    'cv2': 'mmengine and mmcv require one of the OpenCV distributions, and two overwrite each other',
    'mpi4py': 'optional',
    'torchvision': 'optional: its operators are taken where it imports',
}
OURS = {'armbench_cli', 'armbench_mmdet', 'armbench_runtime', 'benchmarks'}


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Command lines of the README's blocks, comments and line ends joined away."""
    lines = '\n'.join(blocks('bash')).replace('\\\n', ' ').splitlines()
    return [line for line in (re.sub(r'\s#.*', '', line).strip() for line in lines) if line]


def make_world(folder: Path, minibench_root: Path) -> None:
    """Make the README's commands run as they stand in a folder, on a handful of tiny totes."""
    images = minibench_root / 'mix-object-tote/images'
    for name, target in (('tools', REPO / 'tools'), ('data/minibench', minibench_root), ('photos', images)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)
    (folder / 'configs/mask_rcnn').mkdir(parents=True)
    for name in ('mask-rcnn_r50_fpn_1x_armbench-mix.py', LEAF.name):
        (folder / 'configs/mask_rcnn' / name).write_text(TINY.format(base=str(LEAF)))


def adapted(command: str) -> str:
    """The command with two processes on one machine."""
    command = re.sub(r'^NNODES=2 NODE_RANK=0 MASTER_ADDR=node0 ', '', command)
    command = re.sub(r'(_armbench-mix\.py) 8\b', r'\1 2', command).replace('--nproc-per-node 8', '--nproc-per-node 2')
    return command.replace('torchrun ', 'torchrun --standalone ').replace(' --amp', '')


def test_files_and_make_targets_named_in_the_readme_exist() -> None:
    code = '\n'.join(blocks('python'))
    named = set(re.findall(r'(?:configs|tools|docs|tests)/[\w./-]+\w', README))
    assert not [name for name in named if not (REPO / name).exists() and name not in code]
    targets = re.findall(r'^([a-z-]+):', (REPO / 'Makefile').read_text(), re.MULTILINE)
    assert set(re.findall(r'`make ([a-z-]+)', README)) <= set(targets)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_run_as_they_stand(tmp_path: Path, minibench_root: Path) -> None:
    """In the README's order, since later commands use what earlier ones left."""
    make_world(tmp_path, minibench_root)
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    environment = {**os.environ, 'PATH': path, 'ARMBENCH_ROOT': str(minibench_root), 'OMP_NUM_THREADS': '1'}
    ran = []
    demo = f'python tools/train.py {LEAF.relative_to(REPO)}'  # as `make demo` does
    for command in [demo, *commands()]:
        if any(part in command for part in ELSEWHERE):
            continue
        words = ['bash', '-c', adapted(command)]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'
        ran.append(command)
    assert len(ran) >= 8
    assert (tmp_path / 'work_dirs/report/report.html').is_file()


@pytest.mark.parametrize('script', sorted((REPO / 'tools').glob('*.sh')), ids=lambda path: path.name)
def test_shell_scripts_are_valid(script: Path) -> None:
    assert subprocess.run(['bash', '-n', script], check=False).returncode == 0


def test_the_new_model_of_the_readme_builds(tmp_path: Path) -> None:
    init_default_scope('mmdet')
    shutil.copytree(REPO / 'configs', tmp_path / 'configs')
    files = re.findall(r'^```python\n# (configs/\S+)\n(.*?)^```', README, re.MULTILINE | re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text)
    leaf = load_config(tmp_path / next(name for name, _ in files if '_base_' not in name))
    leaf.model.backbone.init_cfg = None
    model = MODELS.build(leaf.model)
    assert len(model.backbone.layer3) == 23
    assert model.roi_head.bbox_head.num_classes == 2


def test_the_new_transform_of_the_readme_works() -> None:
    (block,) = (block for block in blocks('python') if 'register_module' in block)
    names: dict = {}
    exec(block, names)
    assert names['Dim']().transform({'img': np.full((2, 2, 3), 100, np.uint8)})['img'].max() == 50


def test_every_hook_of_a_run_is_explained_under_its_name() -> None:
    rows = re.findall(r'^\| (`.+?) \|', (DOCS / 'hooks.md').read_text(), re.MULTILINE)
    assert set(load_config(LEAF).default_hooks) <= {name for row in rows for name in re.findall(r'`(\w+)`', row)}


def test_the_published_schema_is_the_codes() -> None:
    """Written by ``make docs-generated``."""
    assert json.loads((DOCS / 'result-file.schema.json').read_text()) == msgspec.json.schema(Result)


@pytest.mark.parametrize('path', sorted((DOCS / 'benchmarks').glob('*.csv')), ids=lambda path: path.name)
def test_measured_figures_name_machine_and_version(path: Path) -> None:
    assert re.fullmatch(r'\d{4}-\d\d-\d\d_.+_torch-[\d.]+\.csv', path.name)
    with path.open() as file:
        (row, *_) = csv.DictReader(file)
    assert set(row) >= {'name', 'case', 'ours', 'peer', 'unit', 'ratio'}
    assert f']({path.parent.name}/{path.name})' in (DOCS / 'benchmarks.md').read_text()


def test_the_citation_is_valid_yaml_and_of_this_version() -> None:
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert citation['version'] == PYPROJECT['project']['version']
    assert citation['references'][0]['url'].endswith('2303.16382')


def test_the_readme_is_short() -> None:
    assert len((REPO / 'README.md').read_text().split()) <= 1700


def test_rooms_import_each_other_one_way_only() -> None:
    architecture = runpy.run_path(str(DOCS / 'architecture.py'))
    floors = architecture['floors'](architecture['rooms_and_imports']())
    assert floors['datasets'] < floors['evaluation'] < floors['report']
    with pytest.raises(ValueError, match='a → b → a'):
        architecture['floors']({'a': {'b'}, 'b': {'a'}})
    assert not [path for path in (REPO / 'armbench_mmdet').rglob('*.py') if 'from tools' in path.read_text()]


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition('.')[0])
    return found


def test_every_import_is_a_dependency_and_every_dependency_is_used() -> None:
    packages = (file for name in ('armbench_mmdet', 'armbench_runtime') for file in (REPO / name).rglob('*.py'))
    files = [*packages, *(REPO / 'tools').glob('*.py'), REPO / 'armbench_cli.py']
    used = set().union(*map(imported, files)) - sys.stdlib_module_names - set(NOT_DECLARED) - OURS
    distributions = metadata.packages_distributions()
    unknown = used - set(distributions)
    assert not unknown, f'no installed distribution has {unknown}'
    declared = {Requirement(one).name for one in (*DEPENDENCIES, *EXTRAS['onnx'], *EXTRAS['postgresql'])}
    needed = {min(map(canonicalize_name, distributions[name])) for name in used}
    assert needed - declared == set()
    assert declared - needed <= {'platformdirs', 'psycopg', 'tensorboard'}  # named in configs and storage addresses


def test_constraints_pin_what_is_asked_for() -> None:
    """constraints.txt is installed without resolving: pip would not notice."""
    lines = re.findall(r'^([\w.-]+)==(\S+)$', (REPO / 'constraints.txt').read_text(), re.MULTILINE)
    pins = {canonicalize_name(name): version for name, version in lines}
    wanted = (*DEPENDENCIES, *PYPROJECT['build-system']['requires'], *(one for some in EXTRAS.values() for one in some))
    for requirement in map(Requirement, wanted):
        if requirement.name != 'pre-commit':
            assert requirement.specifier.contains(pins[requirement.name]), requirement
