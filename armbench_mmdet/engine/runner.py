"""mmengine's runner with a console made for people, and safe loading; the log file keeps everything."""

import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from mmdet.registry import RUNNERS
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, Runner
from torch import nn

from armbench_mmdet.engine.checkpoints import safe_loaders
from armbench_mmdet.engine.levers import use_levers
from armbench_mmdet.engine.loops import resumable
from armbench_mmdet.system import CODE

_PRINT_LOG = str(Path('mmengine/logging/logger.py'))

# Messages of the stack about its own internals: nothing here for a user to act on.
_NOISE = (
    'Could not import OneDL',
    'Failed to search registry with scope',
    'The prefix is not set in metric class',
    'backend_args',
    '"FileClient" will be deprecated in future',
    'make sure that the mlflow server is running',  # with a database file there is none
    '"HardDiskBackend" is the alias of "LocalBackend"',
    '`save_param_scheduler` is True but',
    'The model and loaded state dict do not match exactly',  # PretrainedReportHook says it better
)


def is_shown(record: logging.LogRecord) -> bool:
    """Whether the terminal shows a record: this project's own, and anybody's warning but the stack's known noise."""
    if _origin(record).startswith(str(CODE)):
        return True
    return record.levelno >= logging.WARNING and not any(noise in record.getMessage() for noise in _NOISE)


def _origin(record: logging.LogRecord) -> str:
    """The file a record comes from, looking through mmengine's ``print_log``."""
    if not record.pathname.endswith(_PRINT_LOG):
        return record.pathname
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != 'print_log':
        frame = frame.f_back
    return (frame.f_back or frame).f_code.co_filename


class ConsoleFormatter(logging.Formatter):
    """The message alone; a warning or an error says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line to print."""
        message = record.getMessage()
        return message if record.levelno < logging.WARNING else f'{record.levelname.lower()}: {message}'


def quiet_console(logger: logging.Logger) -> None:
    """Give terminal handlers, not files, the short format and the filter; hide warnings that are no user's business."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(is_shown)
            handler.setFormatter(ConsoleFormatter())
    warnings.filterwarnings('ignore', category=FutureWarning, module=r'(mmengine|mmdet|mmcv|torch|imaug)(\.|$)')
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    for text in ('Could not import OneDL', 'torch.meshgrid', 'use_reentrant', 'lr_scheduler.step'):
        warnings.filterwarnings('ignore', message=f'.*{re.escape(text)}')


@RUNNERS.register_module()
class ArmbenchRunner(Runner):
    """A :class:`mmengine.runner.Runner` whose terminal shows only what its user needs.

    Checkpoints are loaded without running code, unless the config has ``trust_checkpoint = True``. Chosen by
    ``runner_type`` in ``configs/_base_/default_runtime.py``, which mmdet's own tools honour as well.
    """

    batch_in_work: tuple[str, Any] | None = None
    """``train``, ``val`` or ``test``, and the batch; None between batches. A failure is explained by it."""

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks as mmengine does, and remember the batch in work."""
        if 'data_batch' in kwargs:
            self.batch_in_work = fn_name.split('_')[1], kwargs['data_batch']
        super().call_hook(fn_name, **kwargs)
        if fn_name.startswith('after'):
            self.batch_in_work = None
        elif fn_name == 'before_train':
            super().dump_config()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as mmengine does, then quieten its terminal handler, and Python's warnings."""
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register the hooks as mmengine does; None switches any of them off, not only mmengine's own."""
        off = {'enabled': False}
        super().register_default_hooks({name: off if hook is None else hook for name, hook in (hooks or {}).items()})

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Register a hook as mmengine does, unless its settings have ``enabled=False``."""
        if isinstance(hook, dict):
            hook = dict(hook)
            if not hook.pop('enabled', True):
                return
        super().register_hook(hook, priority)

    def dump_config(self) -> None:
        """Nothing yet: only a training that begins replaces the resolved config of its folder."""

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop as mmengine does, in a form that can go on from any iteration."""
        return super().build_train_loop(resumable(loop))

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model as mmengine does; a checkpoint that it loads runs no code. The config's levers are pulled."""
        with self._safe_loaders():
            built = super().build_model(model)
        use_levers(built, self.cfg.get('levers', {}))
        return built

    def train(self) -> nn.Module:
        """Train as mmengine does; a checkpoint that weights start from (``init_cfg``) runs no code."""
        with self._safe_loaders():
            return super().train()

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as mmengine does, without running code."""
        with self._safe_loaders():
            return super().load_checkpoint(*args, **kwargs)

    def _safe_loaders(self) -> Any:
        return safe_loaders(trusted=bool(self.cfg.get('trust_checkpoint', False)))
