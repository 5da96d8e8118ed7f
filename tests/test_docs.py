"""The documentation: what README and docs/training.md show works, pages say what the code has, rooms are as drawn."""

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from armbench_mmdet.configs import load_config
from armbench_mmdet.evaluation.result import Result

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


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Command lines of the README's blocks, comments and line ends joined away."""
    lines = '\n'.join(blocks('bash')).replace('\\\n', ' ').splitlines()
    return [line for line in (re.sub(r'\s#.*', '', line).strip() for line in lines) if line]


def world(tmp_path: Path, minibench_root: Path) -> Path:
    """A folder where the README's commands run as they stand, on a handful of tiny totes."""
    (tmp_path / 'tools').symlink_to(REPO / 'tools')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/minibench').symlink_to(minibench_root)
    (tmp_path / 'photos').symlink_to(minibench_root / 'mix-object-tote/images')
    for name in ('mask-rcnn_r50_fpn_1x_armbench-mix', LEAF.stem):
        leaf = tmp_path / f'configs/mask_rcnn/{name}.py'
        leaf.parent.mkdir(parents=True, exist_ok=True)
        leaf.write_text(TINY.format(base=str(LEAF)))
    return tmp_path


def adapted(command: str) -> list[str]:
    """The command with two processes on one machine, in this Python."""
    command = re.sub(r'^NNODES=2 NODE_RANK=0 MASTER_ADDR=node0 ', '', command)
    command = re.sub(r'(_armbench-mix\.py) 8\b', r'\1 2', command).replace('--nproc-per-node 8', '--nproc-per-node 2')
    command = command.replace('torchrun ', 'torchrun --standalone ').replace(' --amp', '')
    return ['bash', '-c', os.path.expandvars(command)]


def test_files_named_in_the_readme_exist() -> None:
    code = '\n'.join(blocks('python'))
    named = set(re.findall(r'(?:configs|tools|docs|tests)/[\w./-]+\w', README))
    missing = [name for name in named if not (REPO / name).exists() and name not in code]
    assert not missing


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (REPO / 'Makefile').read_text()
    for target in set(re.findall(r'`make ([a-z-]+)', README)):
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_run_as_they_stand(tmp_path: Path, minibench_root: Path) -> None:
    """In the README's order, since later commands use what earlier ones left."""
    folder = world(tmp_path, minibench_root)
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    environment = {**os.environ, 'PATH': path, 'ARMBENCH_ROOT': str(minibench_root), 'OMP_NUM_THREADS': '1'}
    ran = []
    demo = f'python tools/train.py {LEAF.relative_to(REPO)}'  # as `make demo` does
    for command in [demo, *commands()]:
        if any(part in command for part in ELSEWHERE):
            continue
        done = subprocess.run(
            adapted(command.replace('$ARMBENCH_ROOT', str(minibench_root))),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'
        ran.append(command)
    assert len(ran) >= 8
    assert (folder / 'work_dirs/report/report.html').is_file()


@pytest.mark.parametrize('script', sorted((REPO / 'tools').glob('*.sh')), ids=lambda path: path.name)
def test_shell_scripts_are_valid(script: Path) -> None:
    assert subprocess.run(['bash', '-n', script], check=False).returncode == 0


def test_the_new_model_of_the_readme_builds(tmp_path: Path) -> None:
    init_default_scope('mmdet')
    shutil.copytree(REPO / 'configs', tmp_path / 'configs')
    files = dict(
        found.groups() for block in blocks('python') if (found := re.match(r'# (configs/\S+)\n(.*)', block, re.S))
    )
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    leaf = load_config(tmp_path / next(name for name in files if '_base_' not in name))
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


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPO / 'mkdocs.yml').read_text()
    assert all(str(page.relative_to(DOCS)) in navigation for page in DOCS.rglob('*.md'))


@pytest.mark.parametrize('path', sorted((DOCS / 'benchmarks').glob('*.csv')), ids=lambda path: path.name)
def test_measured_figures_name_machine_and_version(path: Path) -> None:
    assert re.fullmatch(r'\d{4}-\d\d-\d\d_.+_torch-[\d.]+\.csv', path.name)
    with path.open() as file:
        (row, *_) = csv.DictReader(file)
    assert set(row) >= {'name', 'case', 'ours', 'peer', 'unit', 'ratio'}
    assert f']({path.parent.name}/{path.name})' in (DOCS / 'benchmarks.md').read_text()


def test_the_citation_is_valid_yaml_and_of_this_version() -> None:
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert f'version = "{citation["version"]}"' in (REPO / 'pyproject.toml').read_text()
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


def test_test_files_have_names_of_their_own() -> None:
    """Two of one name stop pytest, though only where both are collected."""
    names = [path.name for path in (REPO / 'tests').rglob('test_*.py')]
    assert len(names) == len(set(names))
