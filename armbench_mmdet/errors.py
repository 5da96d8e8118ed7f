"""The one exception for bad input, and what a command line makes of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the value and the remedy."""


class UnreadableImageError(InputError):
    """An image file is missing, damaged, or not of the annotated size."""


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a command line's ``main`` and return its exit status.

    Args:
        main: The tool's body; it returns an exit status, or nothing for success.

    Returns:
        What ``main`` returned, 0 for nothing, 2 after an :class:`InputError`, which is printed
        to standard error as one message without a traceback, or 130 after Ctrl-C. Any other exception
        passes through (the interpreter prints it and exits with 1): it is a defect here, and its
        traceback is wanted.
    """
    try:
        return main() or 0
    except InputError as error:
        rank = os.environ.get('RANK', '0')
        if rank == '0' or _has_joined():  # before they join, all processes fail alike
            print(f'error (process {rank}): {error}' if rank != '0' else f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


def _has_joined() -> bool:
    """Whether this process belongs to a group of several by now."""
    distributed = sys.modules.get('torch.distributed')
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
