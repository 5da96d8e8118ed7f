from typing import NoReturn

import pytest

from armbench_cli import run_tool
from armbench_mmdet.errors import InputError


def fail(error: BaseException) -> NoReturn:
    raise error


def test_exit_status(capsys: pytest.CaptureFixture) -> None:
    assert run_tool(lambda: None) == 0
    assert run_tool(lambda: 1) == 1
    assert run_tool(lambda: fail(InputError('size must be positive, got -1'))) == 2
    assert run_tool(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == 'error: size must be positive, got -1\ninterrupted\n'
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: fail(ZeroDivisionError()))
