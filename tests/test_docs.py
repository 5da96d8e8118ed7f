"""The documentation says what the code has: hooks, the schema of the result file, pages, figures."""

import csv
import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from armbench_mmdet.configs import load_config
from armbench_mmdet.evaluation.result import Result

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / 'docs'


def test_every_hook_of_a_run_is_explained_under_its_name() -> None:
    page = (DOCS / 'hooks.md').read_text()
    config = load_config(REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py')
    documented = {
        name for row in re.findall(r'^\| (`.+?) \|', page, re.MULTILINE) for name in re.findall(r'`(\w+)`', row)
    }
    assert set(config.default_hooks) <= documented


def test_the_published_schema_is_the_codes() -> None:
    """Written by ``make docs-generated``."""
    assert json.loads((DOCS / 'result-file.schema.json').read_text()) == msgspec.json.schema(Result)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPO / 'mkdocs.yml').read_text()
    for page in DOCS.rglob('*.md'):
        assert str(page.relative_to(DOCS)) in navigation


@pytest.mark.parametrize('path', sorted((DOCS / 'benchmarks').glob('*.csv')), ids=lambda path: path.name)
def test_measured_figures_name_machine_and_version(path: Path) -> None:
    assert re.fullmatch(r'\d{4}-\d\d-\d\d_.+_torch-[\d.]+\.csv', path.name)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert set(rows[0]) >= {'name', 'case', 'ours', 'peer', 'unit', 'ratio'}
    assert f']({path.parent.name}/{path.name})' in (DOCS / 'benchmarks.md').read_text()


def test_the_citation_is_valid_yaml_and_of_this_version() -> None:
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert f'version = "{citation["version"]}"' in (REPO / 'pyproject.toml').read_text()
    assert citation['references'][0]['url'].endswith('2303.16382')


def test_the_readme_is_short() -> None:
    assert len((REPO / 'README.md').read_text().split()) <= 1700
