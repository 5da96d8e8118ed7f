"""Messages of data-loading processes to the main one: the image each is at."""

import functools
import mmap
import os

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
