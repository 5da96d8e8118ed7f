"""Image files as users name them, and what each is once decoded.

Images are read as training reads them, by OpenCV in colour: turned as their EXIF orientation says, grey values in all
three channels, transparency left out, CMYK turned into RGB, the upper 8 of 16 bits, the first frame of several.
"""

from __future__ import annotations

import glob
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

# What Pillow raises on hostile or damaged files.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error,
                  MemoryError, Image.DecompressionBombError)  # fmt: skip


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


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in px of an image once it is turned upright, from its header; pixels are not looked at.

    Raises:
        UnreadableImageError: It cannot be opened, or is in no format known.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except _DECODE_ERRORS as error:
        raise UnreadableImageError(_reason(path, error)) from error
    # Whether OpenCV turns an image depends on its format too.
    return (height, width) if is_upright else read_image(path).shape[:2]


def unreadable_because(path: Path) -> str:
    """Why an image that OpenCV refused cannot be decoded, in the words of a decoder that says."""
    try:
        with Image.open(path) as image:
            image.load()
    except _DECODE_ERRORS as error:
        return _reason(path, error)
    return 'OpenCV cannot decode it'


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return 'it is in no image format known' if path.stat().st_size else 'it is empty'
    return str(getattr(error, 'strerror', None) or error)


def read_image(path: Path) -> np.ndarray:
    """The image as the model sees it, (H, W, 3) uint8, BGR.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except (OSError, cv2.error) as error:
        raise UnreadableImageError(f'image must be readable, got {error} (in {path})') from error
    if image is None:
        raise UnreadableImageError(f'image must be in a format that OpenCV reads, got another (in {path})')
    return image
