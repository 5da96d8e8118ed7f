"""Image files as users name them, and what each is once decoded.

Images are read as training reads them, by OpenCV in colour: turned as their EXIF orientation says, grey values in all
three channels, transparency left out, CMYK turned into RGB, the upper 8 of 16 bits, the first frame of several.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from armbench_mmdet.errors import InputError, UnreadableImageError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
"""What counts as an image in a folder; a file that is named itself may have any suffix."""

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# What Pillow raises on hostile or damaged files.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error,
                  MemoryError)  # fmt: skip


Inputs = str | Path | Iterable[str | Path]


@dataclass
class FoundImages:
    """Image files, each once, and the inputs that led to none, with the reason."""

    paths: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def find_images(inputs: Inputs, skip: Path | None = None) -> FoundImages:
    """List the image files that files, folders and patterns stand for.

    Args:
        inputs: A file is taken as it is. A folder stands for its images by suffix, in its subfolders too, linked
            ones included, hidden files and folders not. Anything else is a pattern such as ``photos/**/*.jpg``.
            What a folder or a pattern stands for is sorted; a file that occurs again is taken once.
        skip: A folder whose files a pattern or a folder above it does not stand for: where pictures are written.

    Returns:
        The files in order, and the inputs without any.

    Raises:
        InputError: There is no file at all.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    found = FoundImages()
    unique: dict[str, Path] = {}
    for name in given:
        paths = list(_expanded(Path(name), skip))
        if not paths:
            found.left_out[str(name)] = _why_nothing(Path(name))
        for path in paths:
            unique.setdefault(os.path.abspath(path), path)
    found.paths = list(unique.values())
    if not found.paths:
        faults = '; '.join(f'{name}: {reason}' for name, reason in found.left_out.items())
        raise InputError(f'images must be files, folders or patterns that lead to some, got {faults or "none"}')
    return found


def _expanded(path: Path, skip: Path | None) -> Iterator[Path]:
    if path.is_dir():
        yield from _images_below(path, skip)
    elif path.exists():
        yield path
    else:
        for match in map(Path, sorted(glob.glob(str(path), recursive=True))):
            if match.is_dir():
                yield from _images_below(match, skip)
            elif skip is None or skip.resolve() not in match.resolve().parents:
                yield match


def _images_below(folder: Path, skip: Path | None) -> Iterator[Path]:
    seen = set() if skip is None or skip.resolve() == folder.resolve() else {os.path.realpath(skip)}
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:  # a link may lead back to where it lies
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        images = (name for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith('.'))
        yield from (Path(base, name) for name in images)


def _why_nothing(path: Path) -> str:
    if path.is_dir():
        return f'no {", ".join(SUFFIXES)} in the folder'
    return 'the pattern fits no file' if glob.has_magic(str(path)) else 'no such file or folder'


def read_bytes(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        UnreadableImageError: It cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f'image must be an existing file, got {error.strerror} (in {path})') from error
    if not content:
        raise UnreadableImageError(f'image must be readable, got an empty file (in {path})')
    return content


def decode_image(content: bytes, path: Path, reduction: int = 1) -> np.ndarray:
    """Decode an image as the model sees it.

    Args:
        content: The file's bytes.
        path: The file, for messages.
        reduction: 1, or 2, 4 or 8 for a JPEG's pixels at that fraction of its size.

    Returns:
        ``(H, W, 3) uint8``, BGR, upright.

    Raises:
        UnreadableImageError: OpenCV cannot decode it; the message says why, in the words of a decoder that does.
    """
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _REDUCED[reduction])
        if image is not None:
            return image
    try:
        with _opened(content) as opened:
            opened.load()
        reason = 'what OpenCV cannot decode'
    except _DECODE_ERRORS as error:
        reason = 'no image format' if isinstance(error, UnidentifiedImageError) else str(error)
    raise UnreadableImageError(f'image must be readable, got {reason} (in {path})')


def read_image(path: Path) -> np.ndarray:
    """The image as the model sees it, see :func:`decode_image`."""
    return decode_image(read_bytes(path), path)


def image_size(content: bytes, path: Path) -> tuple[int, int]:
    """Height and width in px of an image once it is turned upright, from its header where that is enough.

    Raises:
        UnreadableImageError: It is in no format known.
    """
    if exif_orientation(content) == 1:
        with contextlib.suppress(*_DECODE_ERRORS), _opened(content) as image:
            return image.height, image.width
    # Whether OpenCV turns an image depends on its format too; and it knows others.
    return decode_image(content, path).shape[:2]


def exif_orientation(content: bytes) -> int:
    """EXIF's number for how viewers turn or mirror an image: 1 not at all, 3 by 180°, from 5 width becomes height."""
    with contextlib.suppress(*_DECODE_ERRORS), _opened(content) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) or 1
    return 1


def size_differs(content: bytes, path: Path, width: int, height: int) -> str:
    """What to say of an image whose decoded size is not the annotated one."""
    found = '{1}x{0}'.format(*image_size(content, path))
    orientation = exif_orientation(content)
    turned = (
        f': its EXIF orientation ({orientation}) turns it; annotate photos as viewers show them, or remove that tag'
        if orientation > 1
        else ''
    )
    return f'image must be {width}x{height} as annotated, got {found}{turned} (in {path})'


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Pillow's view of an image, without its limit: OpenCV's is larger."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(io.BytesIO(content)) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit
