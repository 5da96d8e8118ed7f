"""What the tests share: a tiny minibench, and a console that is not cluttered."""

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest

import armbench_mmdet  # noqa: F401 - registers everything, and must come before mmdet
from armbench_mmdet.ops.backend import BACKEND_VARIABLE, BACKENDS, torchvision_problem

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session', autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An index cache of the tests' own, and no ARMBench."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ARMBENCH_CACHE', str(tmp_path_factory.mktemp('cache')))
        patch.delenv('ARMBENCH_ROOT', raising=False)
        yield


@pytest.fixture(scope='session')
def minibench_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minibench of a few small totes, all three subsets."""
    from armbench_mmdet.datasets import SUBSETS
    from armbench_mmdet.minibench import make_minibench

    root, (mix, zoomed, same) = tmp_path_factory.mktemp('minibench'), SUBSETS
    counts = {(mix, 'train'): 6, (mix, 'val'): 3, (mix, 'test'): 4, (zoomed, 'test'): 2, (same, 'test'): 2}
    make_minibench(root, counts=counts, width_px=160, height_px=128, workers=1)
    return root


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line of ``tools/`` in this process; returns its exit status, output and error output."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(REPO / 'tools' / name), run_name='__main__')
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend of the operators; torchvision's is skipped, visibly, where it does not import."""
    if request.param == 'torchvision' and (problem := torchvision_problem()):
        pytest.skip(f'torchvision does not import here: {problem}')
    monkeypatch.setenv(BACKEND_VARIABLE, request.param)
    return request.param
