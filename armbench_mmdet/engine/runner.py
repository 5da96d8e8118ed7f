"""mmengine's runner with a console made for people."""

from __future__ import annotations

import re
from typing import Any

from mmdet.registry import RUNNERS
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer

from armbench_mmdet.engine.checkpoints import BACKEND_ARGS, register_safe_loaders
from armbench_mmdet.engine.console import quiet_console, quiet_warnings
from armbench_mmdet.engine.live_view import check_packages
from armbench_mmdet.engine.loops import resumable

register_safe_loaders()

_BEFORE_BATCH = re.compile('before_(train|val|test)_iter')
_AFTER_BATCH = re.compile('after_(train|val|test)_iter')


@RUNNERS.register_module()
class ArmbenchRunner(Runner):
    """A :class:`mmengine.runner.Runner` whose terminal shows only what its user needs.

    Everything the stack logs still goes to the log file in the work directory. Chosen by ``runner_type`` in
    ``configs/_base_/default_runtime.py``, which mmdet's own tools honour as well.
    """

    batch_in_work: tuple[str, Any] | None = None
    """``train``, ``val`` or ``test``, and the batch; None between batches. A failure is explained by it."""

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks as mmengine does, and remember the batch in work."""
        before = _BEFORE_BATCH.fullmatch(fn_name)
        if before:
            self.batch_in_work = (before[1], kwargs.get('data_batch'))
        super().call_hook(fn_name, **kwargs)
        if _AFTER_BATCH.fullmatch(fn_name):
            self.batch_in_work = None

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as mmengine does, then quieten its terminal handler, and Python's warnings."""
        quiet_warnings()
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Build the visualizer as mmengine does, once the packages of its backends are known to be there."""
        if isinstance(visualizer, dict):
            check_packages(visualizer)
        return super().build_visualizer(visualizer)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop as mmengine does, in a form that can go on from any iteration."""
        return super().build_train_loop(resumable(loop))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint as mmengine does, in a file that is never half there."""
        kwargs['backend_args'] = kwargs.get('backend_args') or BACKEND_ARGS
        super().save_checkpoint(out_dir, filename, *args, **kwargs)
