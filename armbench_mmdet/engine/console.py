"""The terminal of a run: its own messages and warnings; the log file in the work directory keeps everything."""

import logging
import re
import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parents[1])
_PRINT_LOG = str(Path('mmengine/logging/logger.py'))

# Messages of the stack about its own internals: nothing here for a user to act on.
_NOISE = (
    'Could not import OneDL',
    'Failed to search registry with scope',
    'The prefix is not set in metric class',
    'Reset the global random seed',
    'torch.meshgrid: in an upcoming release',
    '`torch.cuda.amp.GradScaler',
    '`torch.cuda.amp.autocast',
    'backend_args',
    'MASTER_ADDR',
    'TORCH_DISTRIBUTED_DEBUG',
    'Dataset ArmbenchDataset has already been built',
    '"FileClient" will be deprecated in future',
    'make sure that the mlflow server is running',  # with a database file there is none
    '"HardDiskBackend" is the alias of "LocalBackend"',
    '`save_param_scheduler` is True but',
    'The model and loaded state dict do not match exactly',  # PretrainedReportHook says it better
)


class ConsoleFilter(logging.Filter):
    """Lets through this project's own messages and anybody's warnings, without the stack's known noise."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the terminal shows ``record``."""
        if _origin(record).startswith(_PACKAGE):
            return True
        if record.levelno < logging.WARNING:
            return False
        message = record.getMessage()
        return not any(noise in message for noise in _NOISE)


class ConsoleFormatter(logging.Formatter):
    """The message alone; a warning or an error says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line to print."""
        message = record.getMessage()
        return message if record.levelno < logging.WARNING else f'{record.levelname.lower()}: {message}'


def _origin(record: logging.LogRecord) -> str:
    """The file a record comes from, looking through mmengine's ``print_log``."""
    if not record.pathname.endswith(_PRINT_LOG):
        return record.pathname
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != 'print_log':
        frame = frame.f_back
    return (frame.f_back or frame).f_code.co_filename


def quiet_console(logger: logging.Logger) -> None:
    """Give the terminal handlers of ``logger`` the short format and the filter; file handlers stay as they are."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(ConsoleFilter())
            handler.setFormatter(ConsoleFormatter())


def quiet_warnings() -> None:
    """Hide Python warnings of the stack that users can do nothing about."""
    warnings.filterwarnings('ignore', category=FutureWarning, module=r'(mmengine|mmdet|mmcv|torch|imaug)(\.|$)')
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    for text in ('Could not import OneDL', 'torch.meshgrid', 'use_reentrant', 'lr_scheduler.step'):
        warnings.filterwarnings('ignore', message=f'.*{re.escape(text)}')
