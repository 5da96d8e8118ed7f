"""Run a test once per backend; torchvision's is skipped, visibly, where it does not import."""

import pytest

from armbench_mmdet.ops.backend import BACKEND_VARIABLE, BACKENDS, torchvision_problem


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == 'torchvision' and (problem := torchvision_problem()):
        pytest.skip(f'torchvision does not import here: {problem}')
    monkeypatch.setenv(BACKEND_VARIABLE, request.param)
    return request.param
