"""Backends: their choice, the stand-in for mmcv's extension, reference values of the compiled operators, threads."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, roi_align
from mmengine.utils.dl_utils.misc import mmcv_full_available
from numba.core.caching import FunctionCache
from small_models import REPO

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.ops import STAND_IN_ACTIVE
from armbench_mmdet.ops.backend import BACKEND_VARIABLE, choose_backend, torchvision_problem

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make torchvision importable, or not, and ask for a backend."""

    def prepare(requested: str | None = None, has_torchvision: bool = True) -> None:
        monkeypatch.setitem(sys.modules, 'torchvision', ModuleType('torchvision') if has_torchvision else None)
        monkeypatch.setenv(BACKEND_VARIABLE, requested or '')
        torchvision_problem.cache_clear()

    yield prepare
    torchvision_problem.cache_clear()


CHOICES = [  # requested, whether torchvision imports, operator, device, expected
    (None, True, 'nms', CPU, 'torchvision'),
    (None, True, 'roi_align', CUDA, 'torchvision'),
    (None, True, 'roi_align', CPU, 'numba'),
    (None, True, 'ms_deform_attn', CPU, 'numba'),
    (None, True, 'ms_deform_attn', CUDA, 'torch'),
    (None, False, 'nms', CPU, 'numba'),
    (None, False, 'nms', CUDA, 'torch'),
    (None, False, 'roi_align', CUDA, 'torch'),
    ('auto', True, 'nms', CPU, 'torchvision'),
    ('numba', True, 'nms', CPU, 'numba'),
    ('numba', True, 'roi_align', CUDA, 'torch'),
    ('torch', True, 'nms', CPU, 'torch'),
    ('torch', True, 'roi_align', CPU, 'torch'),
]


def test_choice(install: Callable[..., None]) -> None:
    for requested, has_torchvision, operator, device, expected in CHOICES:
        install(requested, has_torchvision)
        assert choose_backend(operator, device) == expected, (requested, has_torchvision, operator, device)


def test_deterministic_algorithms_exclude_torchvision_on_cuda(install: Callable[..., None]) -> None:
    install()
    torch.use_deterministic_algorithms(True)
    try:
        assert [choose_backend('roi_align', device) for device in (CUDA, CPU)] == ['torch', 'numba']
    finally:
        torch.use_deterministic_algorithms(False)


def test_unknown_backend(install: Callable[..., None]) -> None:
    install('cuda')
    with pytest.raises(InputError, match=r"ARMBENCH_OPS_BACKEND must be one of \('auto', .*got 'cuda'"):
        choose_backend('nms', CPU)


@pytest.mark.parametrize('error', ["ImportError('no')", "RuntimeError('no operator')", "OSError('undefined symbol')"])
def test_backend_that_does_not_import(error: str, install: Callable[..., None], tmp_path: Path, monkeypatch) -> None:
    install('torchvision')
    monkeypatch.delitem(sys.modules, 'torchvision')
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'torchvision.py').write_text(f'raise {error}\n')
    reason = error.split("'")[1]
    with pytest.raises(InputError, match=f"imports here, got 'torchvision'.*{reason}"):
        choose_backend('nms', CPU)


@pytest.mark.parametrize('threads', [1, 3])
def test_every_item_once_in_order_and_errors_are_raised(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    assert map_threads(lambda item: item**2, range(20)) == [item**2 for item in range(20)]
    assert map_threads(lambda item: item, []) == []
    with pytest.raises(ZeroDivisionError):
        map_threads(lambda divisor: 1 // divisor, [1, 0])


def test_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FunctionCache._impl_class, '_locator_classes', [])

    @compiled
    def double(values: np.ndarray) -> np.ndarray:
        return values * 2

    assert double(np.ones(2)).tolist() == [2, 2]


stand_in = pytest.mark.skipif(not STAND_IN_ACTIVE, reason='mmcv has its compiled extension here')


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    command, environment = [sys.executable, '-c', code], {**os.environ, **environment}
    return subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, check=False)


@stand_in
def test_missing_operator_names_itself() -> None:
    extension = sys.modules['mmcv._ext']
    with pytest.raises(NotImplementedError, match=r"'deform_conv_forward' is not provided.*pip install"):
        extension.deform_conv_forward()
    assert not hasattr(extension, '__file__')
    assert importlib.util.find_spec('mmcv._ext') is extension.__spec__
    assert mmcv_full_available()


BROKEN = "raise ImportError('undefined symbol: _ZN3c10')\n"


@stand_in
@pytest.mark.parametrize(
    ('extension', 'chosen', 'said'),
    [
        ('def __getattr__(name):\n    return len\n', 'auto', ["'nms': 'compiled'", 'is compiled: True']),
        (BROKEN, '', ['does not load beside torch', 'undefined symbol: _ZN3c10', 'set ARMBENCH_OPS_BACKEND']),
        (BROKEN, 'torch', ["'nms': 'torch'", 'is compiled: False']),
    ],
    ids=['left alone', 'broken', 'broken and done without'],
)
def test_compiled_extension(tmp_path: Path, extension: str, chosen: str, said: list[str]) -> None:
    (tmp_path / '_ext.py').write_text(extension)
    result = run(
        f'import sys, mmcv; mmcv.__path__.append({str(tmp_path)!r}); import armbench_mmdet.ops as ops; '
        'import mmcv.ops; print(ops.active_backend(), "is compiled:", sys.modules["mmcv._ext"].nms is len)',
        ARMBENCH_OPS_BACKEND=chosen,
    )
    for words in said:
        assert words in result.stdout + result.stderr


CHANGES = """
import contextlib, sys
import torch, torch.utils.data, torch.distributed, mmengine, mmengine.runner, mmengine.hooks, mmcv, mmcv.transforms
import mmdet, torch.utils.data.dataloader, mmengine.visualization
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

before, loaders = attributes(), dict(mmengine.runner.CheckpointLoader._schemes)
import armbench_mmdet
assert mmengine.runner.CheckpointLoader._schemes == loaders
after = attributes()
modules = {key[0] for key in before}
changed = [key for key in before.keys() | after.keys() if before.get(key) is not after.get(key) and key[0] in modules]
print('CHANGED', [key for key in changed if not isinstance(after.get(key), type(sys))])  # but submodules
"""


@stand_in
def test_importing_the_package_changes_nothing_else() -> None:
    result = run(CHANGES)
    assert 'CHANGED []' in result.stdout, result.stdout + result.stderr


REFERENCE = dict(np.load(Path(__file__).parents[1] / 'fixtures' / 'mmcv_ops_reference.npz'))
KEYS = {
    'nms': sorted(k[: -len('_keep')] for k in REFERENCE if k.endswith('_keep') and '_off1' not in k),
    'roi_align': sorted(k for k in REFERENCE if '_avg_' in k and not k.endswith('_grad')),
}


@pytest.mark.parametrize('key', KEYS['nms'])
def test_nms(key: str, backend: str) -> None:
    boxes, scores, indices = (torch.from_numpy(REFERENCE[k]) for k in ('boxes', 'scores', 'idxs'))
    if key.startswith('batched_nms'):
        dets, keep = batched_nms(boxes, scores, indices, dict(type='nms', iou_threshold=0.5))
    elif key.startswith('nms_scorethr'):
        dets, keep = nms(boxes, scores, 0.5, score_threshold=0.3, max_num=20)
    else:
        dets, keep = nms(boxes, scores, float(re.fullmatch(r'nms_thr([\d.]+)_off0', key).group(1)))
    np.testing.assert_array_equal(keep.numpy(), REFERENCE[f'{key}_keep'])
    np.testing.assert_array_equal(dets.numpy(), REFERENCE[f'{key}_dets'])


@pytest.mark.parametrize('key', KEYS['roi_align'])
def test_roi_align(key: str, backend: str) -> None:
    pattern = r'roi_align_(\d+)_scale([\d.]+)_sr(\d)_(avg)_aligned(\d)'
    size, scale, ratio, mode, aligned = re.fullmatch(pattern, key).groups()
    features = torch.from_numpy(REFERENCE['feat']).requires_grad_()
    rois = torch.from_numpy(REFERENCE['rois'])
    output = roi_align(features, rois, (int(size), int(size)), float(scale), int(ratio), mode, bool(int(aligned)))
    output.backward(torch.linspace(-1, 1, output.numel()).view_as(output))
    # The backends sum in other orders, and the empty RoI sums 784 float32 terms to 169 in a single cell: there the
    # reference itself is 1.5e-4 off the exact sum.
    tolerance = dict(rtol=1e-6, atol=5e-5)
    np.testing.assert_allclose(output.detach().numpy(), REFERENCE[key], **tolerance)
    np.testing.assert_allclose(features.grad.numpy(), REFERENCE[f'{key}_grad'], **tolerance)


def test_every_key_of_what_is_provided_is_tested() -> None:
    tested = {f'{key}_{suffix}' for key in KEYS['nms'] for suffix in ('keep', 'dets')}
    tested |= {name for key in KEYS['roi_align'] for name in (key, f'{key}_grad')}
    left = {key for key in REFERENCE if '_max_' not in key and '_off1' not in key}
    assert left - tested == {'boxes', 'scores', 'idxs', 'feat', 'rois'}
    assert (len(KEYS['nms']), len(KEYS['roi_align'])) == (5, 8)
