"""The one exception for bad input, and what a command line makes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the value and the remedy."""


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a command line's ``main`` and return its exit status.

    Args:
        main: The tool's body; it returns an exit status, or nothing for success.

    Returns:
        What ``main`` returned, 0 for nothing, or 2 after an :class:`InputError`, which is printed
        to standard error as one message without a traceback. Any other exception passes through
        (the interpreter prints it and exits with 1): it is a defect here, and its traceback is wanted.
    """
    try:
        return main() or 0
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
