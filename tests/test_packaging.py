"""What the package imports stands in pyproject.toml, and what that names has a known version in constraints.txt."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPO / 'pyproject.toml').read_text())
DEPENDENCIES = PYPROJECT['project']['dependencies']
EXTRAS = PYPROJECT['project']['optional-dependencies']
ELSEWHERE = {
    'cv2': 'mmengine and mmcv require one of the OpenCV distributions, and two overwrite each other',
    'mpi4py': 'optional',
    'torchvision': 'optional: its operators are taken where it imports',
    'armbench_cli': 'ours',
    'armbench_mmdet': 'ours',
    'armbench_runtime': 'ours',
    'benchmarks': 'ours, beside the tools',
}


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
