import logging

import pytest

from armbench_mmdet.engine import runner as console

OURS, THEIRS = console.__file__, '/lib/mmengine/runner.py'


@pytest.mark.parametrize(
    ('path', 'level', 'message', 'shown'),
    [
        (OURS, logging.INFO, 'a table', 'a table'),
        (OURS, logging.WARNING, 'slow disk', 'warning: slow disk'),
        (THEIRS, logging.INFO, 'Hooks will be executed in the following order', None),
        (THEIRS, logging.WARNING, 'the checkpoint is old', 'warning: the checkpoint is old'),
        (THEIRS, logging.ERROR, 'out of disk', 'error: out of disk'),
        ('/lib/mmdet/datasets/__init__.py', logging.WARNING, 'Could not import OneDL. Skipping', None),
    ],
)
def test_the_console_shows_ours_and_real_warnings(path: str, level: int, message: str, shown: str | None) -> None:
    record = logging.LogRecord('mmengine', level, path, 1, message, None, None)
    assert console.is_shown(record) == (shown is not None)
    assert shown is None or console.ConsoleFormatter().format(record) == shown
