"""Messages of data-loading processes to the main one: the image each is at, and images that cannot be read."""

from __future__ import annotations

import functools
import mmap
import os

import numpy as np
from numpy.typing import NDArray

_SLOTS, _SLOT_BYTES = 1024, 1024


@functools.cache
def share_notes() -> mmap.mmap:
    """The memory of the notes; processes that fork after its first use share it."""
    return mmap.mmap(-1, _SLOTS * _SLOT_BYTES)


def note_image(index: int, path: str) -> None:
    """Say which image this process is about to load."""
    text = f'{os.getpid()}\0{index}\0{path}'.encode()[: _SLOT_BYTES - 1]
    start = os.getpid() % _SLOTS * _SLOT_BYTES
    share_notes()[start : start + len(text) + 1] = text + b'\0'


def image_in_work(pid: int) -> tuple[int, str] | None:
    """Index and path of the last image that a process began to load, None if it did not tell."""
    start = pid % _SLOTS * _SLOT_BYTES
    owner, index, path = bytes(share_notes()[start : start + _SLOT_BYTES]).split(b'\0', 3)[:3]
    return (int(index), os.fsdecode(path)) if owner == str(pid).encode() else None


class UnreadableImages:
    """Which images of a data set could not be read, by any of its processes.

    Args:
        count: How many images there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._flags = mmap.mmap(-1, max(count, 1))

    def add(self, index: int) -> bool:
        """Note an image; returns whether it is a new one."""
        is_new = not self._flags[index]
        self._flags[index] = 1
        return is_new

    def indices(self) -> NDArray[np.int64]:
        """``(N,) int64``, rising."""
        return np.flatnonzero(np.frombuffer(self._flags, np.uint8))

    def __reduce__(self) -> tuple[type[UnreadableImages], tuple[int]]:
        """A copy begins empty: it belongs to another data set, or to a process without this memory."""
        return type(self), (self._count,)
