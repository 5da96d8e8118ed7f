"""Image files as users name them, and what each is once decoded.

Images are read as training reads them, by OpenCV in colour: turned as their EXIF orientation says, grey values in all
three channels, transparency left out, CMYK turned into RGB, the upper 8 of 16 bits, the first frame of several.
"""

import contextlib
import functools
import glob
import io
import logging
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np
from mmengine.logging import print_log
from PIL import ExifTags, Image, UnidentifiedImageError

from armbench_mmdet.datasets.coco import CocoImage
from armbench_mmdet.datasets.release import IMAGE_FOLDER
from armbench_mmdet.errors import InputError, UnreadableImageError
from armbench_mmdet.files import read_json

SUFFIXES = ('.avif', '.bmp', '.gif', '.heic', '.heif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.jxl', '.pgm', '.png',
            '.ppm', '.tif', '.tiff', '.webp')  # fmt: skip
"""What counts as an image in a folder, though not all can be decoded; a file that is named may have any suffix."""

EXIF_IS_OBEYED = (
    'is turned or mirrored as its EXIF orientation ({}) says, in training and testing alike: '
    'if it was annotated as stored, remove that tag from the files'
)
_DARK = 64
_REDUCED = {1: cv2.IMREAD_COLOR} | {factor: getattr(cv2, f'IMREAD_REDUCED_COLOR_{factor}') for factor in (2, 4, 8)}
# What Pillow raises on hostile, damaged or very large files.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error,
                 MemoryError, Image.DecompressionBombError)  # fmt: skip

_SLOTS, _SLOT_BYTES = 1024, 1024
_IN_WORK = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)  # shared with the data-loading processes that fork

Inputs = str | Path | Iterable[str | Path]


def folder_of_images(ann_file: Path) -> Path:
    """``images`` beside an annotation file, or its own folder if that has no ``images`` but images, as Roboflow's."""
    folder = ann_file.parent / IMAGE_FOLDER
    lie_beside = not folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in ann_file.parent.glob('*'))
    return ann_file.parent if lie_beside else folder


@dataclass
class FoundImages:
    """Image files, each once, with their ids; the inputs that led to none, with the reason; and their annotations."""

    paths: list[Path]
    ids: Sequence[int]
    left_out: dict[str, str] = field(default_factory=dict)
    ann_file: Path | None = None


def find_images(inputs: Inputs, skip: Path | None = None) -> FoundImages:
    """List the image files that files, folders and patterns stand for.

    Args:
        inputs: A file is taken as it is. A folder stands for its images by suffix, in its subfolders too, hidden ones
            left out. Anything else is a pattern such as ``photos/**/*.jpg``. What a folder or a pattern stands for is
            sorted; a file that occurs again is taken once. A single COCO file, with or without annotations, stands for
            its images, in ``images`` beside it or else beside it.
        skip: A folder whose files a pattern or a folder above it does not stand for: where pictures are written.

    Returns:
        The files in order with ids from 1, or with those of the COCO file; and the inputs without any.

    Raises:
        InputError: There is no file at all, or the COCO file lists no images.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if len(given) == 1 and str(given[0]).endswith('.json') and Path(given[0]).is_file():
        return _listed(Path(given[0]))
    unique: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for name in given:
        paths = _expanded(Path(name), skip)
        if not paths:
            is_folder = Path(name).is_dir()
            left_out[str(name)] = f'no {", ".join(SUFFIXES)} in the folder' if is_folder else 'no such file or folder'
        for path in paths:
            unique.setdefault(os.path.abspath(path), path)
    if not unique:
        faults = '; '.join(f'{name}: {reason}' for name, reason in left_out.items())
        raise InputError(f'images must be files, folders or patterns that lead to some, got {faults or "none"}')
    return FoundImages(list(unique.values()), range(1, len(unique) + 1), left_out)


class _Listing(msgspec.Struct):
    images: list[CocoImage]
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _listed(path: Path) -> FoundImages:
    listing = read_json(path, _Listing, 'images must be files, or a COCO file that lists some', strict=False)
    folder = folder_of_images(path)
    paths, ids = [folder / image.file_name for image in listing.images], [image.id for image in listing.images]
    return FoundImages(paths, ids, ann_file=path if listing.annotations else None)


def _expanded(path: Path, skip: Path | None) -> list[Path]:
    """The files that a name stands for; those below ``skip`` only if it lies there itself."""
    if path.is_file():
        return [path]
    matches = [path] if path.is_dir() else map(Path, sorted(glob.glob(str(path), recursive=True)))
    files = (file for match in matches for file in (_images_below(match) if match.is_dir() else [match]))
    if skip is None or path.resolve().is_relative_to(skip.resolve()):
        return list(files)
    return [file for file in files if skip.resolve() not in file.resolve().parents]


def _images_below(folder: Path) -> list[Path]:
    files = (path for path in sorted(folder.rglob('*')) if path.suffix.lower() in SUFFIXES)
    return [path for path in files if not any(part[0] == '.' for part in path.relative_to(folder).parts)]


def read_bytes(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        UnreadableImageError: It cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = _nearby(path) if isinstance(error, FileNotFoundError) else ''
        raise UnreadableImageError(f'image must be an existing file, got {error.strerror}{hint} (in {path})') from error
    if not content:
        raise UnreadableImageError(f'image must be readable, got an empty file (in {path})')
    return content


def _nearby(path: Path) -> str:
    """Where a missing image lies instead, if its name has backslashes or folders that are not there."""
    plain = Path(str(path).replace('\\', '/'))
    found = next((folder / plain.name for folder in plain.parents if (folder / plain.name).is_file()), None)
    return f' ({found} is there; correct file_name or data_prefix)' if found else ''


def decode_image(content: bytes, path: Path, reduction: int = 1) -> np.ndarray:
    """Decode an image as the model sees it, or a JPEG at 1/2, 1/4 or 1/8 of its size.

    Returns:
        ``(H, W, 3) uint8``, BGR, upright.

    Raises:
        UnreadableImageError: OpenCV cannot decode it; the message says why, in the words of a decoder that does.
    """
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _REDUCED[reduction])
        if image is not None:
            if is_dark(content, image):
                log_once('images of 16 bits whose values are all under 16,384 are read as nearly black: scale them')
            return image
    try:
        Image.open(io.BytesIO(content)).load()
        reason = 'what OpenCV cannot decode'
    except DECODE_ERRORS as error:
        reason = 'no image format' if isinstance(error, UnidentifiedImageError) else str(error)
    raise UnreadableImageError(f'image must be readable, got {reason} (in {path})')


def is_dark(content: bytes, image: np.ndarray) -> bool:
    """Whether an image has 16 bits and uses only the lower ones, as 12-bit cameras do: its upper 8 bits are read."""
    if content[:2] not in (b'II', b'MM', b'\x89P') or image.max(initial=0) >= _DARK:
        return False
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return stored is not None and stored.dtype == np.uint16 and bool(stored.any())


@functools.cache
def log_once(message: str, level: int = logging.WARNING) -> None:
    """Log what a process may come to say again, when it opens the same data set another time."""
    print_log(message, 'current', level)


def read_image(path: Path) -> np.ndarray:
    """The image as the model sees it, see :func:`decode_image`."""
    return decode_image(read_bytes(path), path)


def image_size(content: bytes, path: Path) -> tuple[int, int]:
    """Height and width in px of an image once it is turned upright, from its header where that is enough.

    Raises:
        UnreadableImageError: It is in no format known.
    """
    if exif_orientation(content) == 1:
        with contextlib.suppress(*DECODE_ERRORS):
            return Image.open(io.BytesIO(content)).size[::-1]
    # Whether OpenCV turns an image depends on its format too; and it knows others.
    return decode_image(content, path).shape[:2]


def exif_orientation(content: bytes) -> int:
    """EXIF's number for how viewers turn or mirror an image: 1 not at all, 3 by 180°, from 5 width becomes height."""
    with contextlib.suppress(*DECODE_ERRORS):
        return Image.open(io.BytesIO(content)).getexif().get(ExifTags.Base.Orientation, 1) or 1
    return 1


def size_differs(content: bytes, path: Path, width: int, height: int) -> str:
    """What to say of an image whose decoded size is not the annotated one."""
    found, orientation = '{1}x{0}'.format(*image_size(content, path)), exif_orientation(content)
    why = f': its EXIF orientation ({orientation}) turns it; annotate photos as viewers show them, or remove that tag'
    return f'image must be {width}x{height} as annotated, got {found}{why if orientation > 1 else ""} (in {path})'


def note_image(index: int, path: str) -> None:
    """Say which image this process is about to load."""
    text = f'{os.getpid()}\0{index}\0{path}'.encode()[: _SLOT_BYTES - 1]
    start = os.getpid() % _SLOTS * _SLOT_BYTES
    _IN_WORK[start : start + len(text) + 1] = text + b'\0'


def image_in_work(pid: int) -> tuple[int, str] | None:
    """Index and path of the last image that a process began to load, None if it did not tell."""
    start = pid % _SLOTS * _SLOT_BYTES
    owner, index, path = _IN_WORK[start : start + _SLOT_BYTES].split(b'\0', 3)[:3]
    return (int(index), os.fsdecode(path)) if owner == str(pid).encode() else None
