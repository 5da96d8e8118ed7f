"""The stand-in for mmcv's compiled extension, each case in an interpreter of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.utils.dl_utils.misc import mmcv_full_available
from small_models import REPO

from armbench_mmdet.ops import STAND_IN_ACTIVE

pytestmark = pytest.mark.skipif(not STAND_IN_ACTIVE, reason='mmcv has its compiled extension here')


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    command, environment = [sys.executable, '-c', code], {**os.environ, **environment}
    return subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, check=False)


def test_missing_operator_names_itself() -> None:
    extension = sys.modules['mmcv._ext']
    with pytest.raises(NotImplementedError, match=r"'deform_conv_forward' is not provided.*pip install"):
        extension.deform_conv_forward()
    assert not hasattr(extension, '__file__')
    assert importlib.util.find_spec('mmcv._ext') is extension.__spec__
    assert mmcv_full_available()


BROKEN = "raise ImportError('undefined symbol: _ZN3c10')\n"


@pytest.mark.parametrize(
    ('extension', 'backend', 'said'),
    [
        ('def __getattr__(name):\n    return len\n', 'auto', ["'nms': 'compiled'", 'is compiled: True']),
        (BROKEN, '', ['does not load beside torch', 'undefined symbol: _ZN3c10', 'set ARMBENCH_OPS_BACKEND']),
        (BROKEN, 'torch', ["'nms': 'torch'", 'is compiled: False']),
    ],
    ids=['left alone', 'broken', 'broken and done without'],
)
def test_compiled_extension(tmp_path: Path, extension: str, backend: str, said: list[str]) -> None:
    (tmp_path / '_ext.py').write_text(extension)
    result = run(
        f'import sys, mmcv; mmcv.__path__.append({str(tmp_path)!r}); import armbench_mmdet.ops as ops; '
        'import mmcv.ops; print(ops.active_backend(), "is compiled:", sys.modules["mmcv._ext"].nms is len)',
        ARMBENCH_OPS_BACKEND=backend,
    )
    for words in said:
        assert words in result.stdout + result.stderr


CHANGES = """
import contextlib, sys
import torch, torch.utils.data, torch.distributed, mmengine, mmengine.runner, mmengine.hooks, mmcv, mmcv.transforms
with contextlib.suppress(ImportError, RuntimeError, OSError):
    import torchvision  # a backend, which changes torch itself

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] in ('torch', 'mmcv', 'mmengine'):
            for key, value in list(vars(module).items()):
                found[name, key] = value
                if isinstance(value, type) and value.__module__.startswith('mm'):
                    found.update({(name, key, k): v for k, v in list(vars(value).items())})
    return found

before = attributes()
import armbench_mmdet
after = attributes()
print('CHANGED', sorted(key for key, value in before.items() if after.get(key) is not value))
"""


def test_importing_the_package_changes_nothing_else() -> None:
    result = run(CHANGES)
    assert 'CHANGED []' in result.stdout, result.stdout + result.stderr
