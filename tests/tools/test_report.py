"""``tools/report.py`` as users start it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPO = Path(__file__).resolve().parents[2]


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, 'tools/report.py', *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)


def test_an_unfinished_run_is_reported_and_the_files_are_named(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    run.mkdir()
    record = {'schema_version': 1, 'config': 'configs/gone.py', 'status': 'running', 'attempts': []}
    (run / 'record.json').write_text(json.dumps(record))
    done = start(run, tmp_path / 'nowhere', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert "note: work dir must be an existing folder, got '" in done.stdout
    assert "note: run: the run did not finish; its record says 'unfinished'" in done.stdout
    assert f'report: {tmp_path / "out" / "report.html"}' in done.stdout.splitlines()
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'report.html', 'results.md', 'results.csv'}
