"""The runtime's wheel where there is no torch: its size, and that it predicts there."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPO = Path(__file__).resolve().parents[2]
NEEDED = ('numpy', 'PIL', 'pycocotools', 'onnxruntime', 'flatbuffers', 'google', 'packaging')
LIBRARIES = ('numpy.libs', 'pillow.libs')


def call(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_imports_and_refuses_what_is_no_model_without_torch(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    isolation = ['--no-build-isolation'] if importlib.util.find_spec('hatchling') else []
    pip = (sys.executable, '-m', 'pip')
    call(*pip, 'wheel', REPO / 'armbench_runtime', '--no-deps', *isolation, '-w', tmp_path)
    call(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'environment')
    python = tmp_path / 'environment/bin/python'
    call(*pip, '--python', python, 'install', '--no-deps', '--no-index', next(tmp_path.glob('*.whl')))
    site = next((tmp_path / 'environment').glob('lib/python*/site-packages'))
    size = 0
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        folder = Path(next(iter(spec.submodule_search_locations)))
        for part in (folder, *(folder.parent / library for library in LIBRARIES)):
            if part.is_dir() and not (site / part.name).exists():
                (site / part.name).symlink_to(part)
                size += sum(file.stat().st_size for file in part.rglob('*') if file.is_file())
    assert size < 300e6
    code = (
        'import sys, armbench_runtime as a\n'
        'try: a.Detector.from_onnx(sys.executable)\n'
        'except a.InputError as error: print(error)\n'
        'print("torch" in sys.modules)'
    )
    said = call(python, '-c', code)
    assert 'must be an ONNX file' in said
    assert said.endswith('False\n')
