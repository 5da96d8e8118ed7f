"""Make minibench when it is first needed, once, whoever asks at the same time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from armbench_mmdet.datasets.minibench.writer import DEFAULT_COUNTS, LOCK, MIX, check_ours, is_complete, make_minibench

if sys.platform != 'win32':
    import fcntl


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it when a process ends, however it ends."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / LOCK, 'w') as lock:
        if sys.platform != 'win32':
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f'waiting for another process that makes minibench in {root}', flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_minibench(root: Path, train_images: int | None = None) -> None:
    """Make minibench in a folder unless a complete one is there.

    A complete minibench of another size, seed or number of pictures is left as it is; an interrupted one, or one made
    by an older version of the generator, is made anew. Several processes may call this at once: one makes it, the
    others wait.

    Args:
        root: Folder of the data set.
        train_images: Training pictures of mix, if not the default 400; the other splits stay the same pictures.

    Raises:
        InputError: If the folder holds something that minibench did not make.
    """
    if is_complete(root):
        return
    check_ours(root)
    with _only_one(root):
        if is_complete(root):
            return
        counts = dict(DEFAULT_COUNTS)
        if train_images is not None:
            counts[MIX, 'train'] = train_images
        print(f'making minibench, {sum(counts.values())} procedural pictures, in {root}', flush=True)
        make_minibench(root, counts=counts)
