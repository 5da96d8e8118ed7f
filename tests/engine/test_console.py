from __future__ import annotations

import logging

import pytest

from armbench_mmdet.engine import console


def record(path: str, level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord('mmengine', level, path, 1, message, None, None)


OURS = console.__file__


@pytest.mark.parametrize(
    ('path', 'level', 'message', 'is_shown'),
    [
        (OURS, logging.INFO, 'a table', True),
        ('/lib/mmengine/runner.py', logging.INFO, 'Hooks will be executed in the following order', False),
        ('/lib/mmengine/runner.py', logging.WARNING, 'the checkpoint is old', True),
        ('/lib/mmengine/runner.py', logging.ERROR, 'out of disk', True),
        ('/lib/mmdet/datasets/__init__.py', logging.WARNING, 'Could not import OneDL. Skipping', False),
    ],
)
def test_console_shows_ours_and_real_warnings(path: str, level: int, message: str, is_shown: bool) -> None:
    assert console.ConsoleFilter().filter(record(path, level, message)) is is_shown


def test_format_is_the_message_and_warnings_say_so() -> None:
    formatter = console.ConsoleFormatter()
    assert formatter.format(record(OURS, logging.INFO, 'done')) == 'done'
    assert formatter.format(record(OURS, logging.WARNING, 'slow disk')) == 'warning: slow disk'


def test_only_terminal_handlers_are_quietened(tmp_path) -> None:
    logger = logging.Logger('run')
    terminal, file = logging.StreamHandler(), logging.FileHandler(tmp_path / 'run.log')
    logger.handlers += [terminal, file]
    console.quiet_console(logger)
    assert any(isinstance(f, console.ConsoleFilter) for f in terminal.filters)
    assert not file.filters
