"""A disk that is full."""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path
from typing import Any


class FullDisk(io.FileIO):
    """Takes half of what it is given."""

    def write(self, content: Any) -> int:
        super().write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk(path: Path, mode: str) -> Any:
    return FullDisk(path, 'w') if 'w' in mode else builtins.open(path, mode)
