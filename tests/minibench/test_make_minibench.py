import importlib.util
import sys
from pathlib import Path

import pytest

from armbench_cli import run_tool
from armbench_mmdet.minibench.writer import is_complete

TOOL = Path(__file__).parents[2] / 'tools' / 'make_minibench.py'


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    spec = importlib.util.spec_from_file_location('make_minibench_tool', TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', ['make_minibench.py', *map(str, arguments)])
    parsed = module.parse_args()
    return run_tool(lambda: module.main(parsed))


TINY = ('--train', 1, '--val', 1, '--test', 1, '--width', 64, '--height', 64, '--workers', 1)


def test_makes_a_data_set_and_refuses_to_replace_it(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / 'out'
    assert call(monkeypatch, out, *TINY) == 0
    assert is_complete(out)
    assert call(monkeypatch, out, *TINY) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert call(monkeypatch, out, *TINY, '--overwrite') == 0
