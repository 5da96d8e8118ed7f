"""The audit of image files: decoded in all processes, compared with what the annotation file says."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError

_CHUNK = 16
_DRAFT_FRAC = 8
_TRANSPOSING = {5, 6, 7, 8}

# What Pillow raises on hostile or damaged files.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error,
                  MemoryError, Image.DecompressionBombError)  # fmt: skip


class ImageTask(NamedTuple):
    """An image file and the size in px that the annotation file gives."""

    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class ImageCheck:
    """What was found about an image file: kinds with details, and its content hash if it could be read."""

    path: Path
    found: tuple[tuple[str, str], ...]
    content: str | None


def check_images(tasks: list[ImageTask], workers: int) -> Iterator[ImageCheck]:
    """Check image files in ``workers`` processes, results in the order of the tasks."""
    if workers <= 1 or len(tasks) <= _CHUNK:
        yield from map(check_image, tasks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(check_image, tasks, chunksize=_CHUNK)


def check_image(task: ImageTask) -> ImageCheck:
    """Decode one image file and compare it with its task.

    JPEGs are decoded at an eighth of their size: the whole stream is read, so a truncated file is found all the same.
    """
    name = task.path.name
    try:
        data = task.path.read_bytes()
    except FileNotFoundError:
        return ImageCheck(task.path, (('image-missing', str(task.path)),), None)
    except OSError as error:
        return ImageCheck(task.path, (('image-unreadable', f'{name}: {error.strerror}'),), None)
    content = hashlib.blake2b(data, digest_size=16).hexdigest()
    found: list[tuple[str, str]] = []
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            rotation = image.getexif().get(ExifTags.Base.Orientation, 1)
            image.draft(None, (max(1, size[0] // _DRAFT_FRAC), max(1, size[1] // _DRAFT_FRAC)))
            image.load()
    except UnidentifiedImageError:
        kind, why = ('image-truncated', 'the file is empty') if not data else ('image-unreadable', 'no image format')
        return ImageCheck(task.path, ((kind, f'{name}: {why}'),), content)
    except _DECODE_ERRORS as error:
        kind = 'image-truncated' if 'truncated' in str(error).lower() else 'image-unreadable'
        return ImageCheck(task.path, ((kind, f'{name}: {error}'),), content)
    if rotation not in (None, 1):
        found.append(('image-exif-rotation', f'{name}: orientation {rotation}'))
    if size != (task.width, task.height):
        turned = ' (turned by EXIF it fits)' if rotation in _TRANSPOSING and size == (task.height, task.width) else ''
        found.append(
            ('image-size', f'{name}: {size[0]}×{size[1]} px, the JSON says {task.width}×{task.height}{turned}')
        )
    return ImageCheck(task.path, tuple(found), content)


def repeated(items: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group ``(key, member)`` pairs, keeping keys with more than one member."""
    groups: dict[str, list[str]] = {}
    for key, member in items:
        groups.setdefault(key, []).append(member)
    return {key: members for key, members in groups.items() if len(members) > 1}
