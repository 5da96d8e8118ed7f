import pytest

from armbench_cli import run_tool
from armbench_mmdet.errors import InputError


def fail(error: Exception) -> None:
    raise error


def test_exit_status(capsys: pytest.CaptureFixture) -> None:
    assert run_tool(lambda: None) == 0
    assert run_tool(lambda: 1) == 1
    assert run_tool(lambda: fail(InputError('size must be positive, got -1'))) == 2
    assert capsys.readouterr().err == 'error: size must be positive, got -1\n'
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: fail(ZeroDivisionError()))


def test_ctrl_c_is_one_word_and_status_130(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    assert run_tool(main) == 130
    assert capsys.readouterr().err == 'interrupted\n'
