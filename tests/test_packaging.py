"""What the package imports stands in pyproject.toml, and what that names has a known version in constraints.txt."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    'cv2': 'mmengine and mmcv require one of the OpenCV distributions, and two overwrite each other',
    'mpi4py': 'optional',
    'torchvision': 'optional: its operators are taken where it imports',
    'armbench_cli': 'ours',
    'armbench_mmdet': 'ours',
    'armbench_runtime': 'ours',
    'benchmarks': 'ours, beside the tools',
}


def normal(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def project() -> dict:
    return tomllib.loads((REPO / 'pyproject.toml').read_text())['project']


def names(requirements: list[str]) -> set[str]:
    return {normal(re.match(r'[\w.-]+', requirement)[0]) for requirement in requirements}


def pins() -> dict[str, str]:
    pinned = re.findall(r'^([\w.-]+)==(\S+)$', (REPO / 'constraints.txt').read_text(), re.MULTILINE)
    return {normal(name): version for name, version in pinned}


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
    used = set().union(*map(imported, files)) - sys.stdlib_module_names - set(ELSEWHERE)
    extras = project()['optional-dependencies']
    distributions = metadata.packages_distributions()
    unknown = used - set(distributions)
    assert not unknown, f'no installed distribution has {unknown}'
    declared = names([*project()['dependencies'], *extras['onnx'], *extras['postgresql']])
    needed = {min(map(normal, distributions[name])) for name in used}
    assert needed - declared == set()
    assert declared - needed <= {'platformdirs', 'psycopg', 'tensorboard'}  # named in configs and storage addresses


@pytest.mark.parametrize('group', ['dependencies', 'onnx', 'postgresql', 'dev', 'build'])
def test_constraints_pin_it(group: str) -> None:
    extras = project()['optional-dependencies']
    build = tomllib.loads((REPO / 'pyproject.toml').read_text())['build-system']['requires']
    wanted = {'dependencies': project()['dependencies'], 'build': build, **extras}[group]
    assert names(wanted) - set(pins()) - {'pre-commit'} == set()


def test_pins_are_what_is_asked_for() -> None:
    """constraints.txt is installed without resolving: pip would not notice."""
    for requirement in project()['dependencies']:
        name, lowest = requirement.split('>=')
        known, asked = (tuple(map(int, re.findall(r'\d+', version))) for version in (pins()[normal(name)], lowest))
        assert known >= asked, requirement
