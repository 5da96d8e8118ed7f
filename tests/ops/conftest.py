"""Run a test once per backend; one that does not import here is skipped, visibly."""

import pytest

from armbench_mmdet.ops.backend import BACKEND_VARIABLE, BACKENDS, unavailable_backends


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if problem := unavailable_backends().get(request.param):
        pytest.skip(f'{request.param} does not import here: {problem}')
    monkeypatch.setenv(BACKEND_VARIABLE, request.param)
    return request.param
