"""mmengine's runner with a console made for people."""

from __future__ import annotations

from typing import Any

from mmdet.registry import RUNNERS
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from armbench_mmdet.engine.console import quiet_console, quiet_warnings


@RUNNERS.register_module()
class ArmbenchRunner(Runner):
    """A :class:`mmengine.runner.Runner` whose terminal shows only what its user needs.

    Everything the stack logs still goes to the log file in the work directory. Chosen by ``runner_type`` in
    ``configs/_base_/default_runtime.py``, which mmdet's own tools honour as well.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as mmengine does, then quieten its terminal handler, and Python's warnings."""
        quiet_warnings()
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger
