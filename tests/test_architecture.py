"""The rooms of the package: one way for imports, and the picture of them."""

import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / 'docs'))

import architecture  # noqa: E402


def test_rooms_import_each_other_one_way_only() -> None:
    floors = architecture.floors(architecture.rooms_and_imports())
    assert floors['datasets'] < floors['evaluation'] < floors['report']


def test_a_circle_is_named() -> None:
    with pytest.raises(ValueError, match='a → b → a'):
        architecture.floors({'a': {'b'}, 'b': {'a'}})


def test_no_module_imports_from_the_tools() -> None:
    for path in (REPO / 'armbench_mmdet').rglob('*.py'):
        assert 'from tools' not in path.read_text(), path


def test_test_files_have_names_of_their_own() -> None:
    """Two of one name stop pytest, though only where both are collected."""
    names = [path.name for path in (REPO / 'tests').rglob('test_*.py')]
    assert len(names) == len(set(names))
