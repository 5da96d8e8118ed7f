"""How much memory a call needs on top of what its process holds already (Linux)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

KB_PER_MB = 1024


def added_mb(function: Callable[[], Any]) -> float:
    """The rise of the process's resident memory during a call, at its peak; every allocator counts.

    Less than a megabyte is given as one: memory that an allocator holds from before does not show.
    """
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    before_kb = _status_kb('VmRSS')
    function()
    return max(peak_mb() - before_kb / KB_PER_MB, 1.0)


def peak_mb() -> float:
    """The most resident memory that the process had; unlike ``getrusage``'s, without what its parent had."""
    return _status_kb('VmHWM') / KB_PER_MB


def _status_kb(name: str) -> int:
    found = re.search(rf'^{name}:\s+(\d+) kB$', Path('/proc/self/status').read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
