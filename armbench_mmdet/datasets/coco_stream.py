"""Reads the annotations of a COCO file block by block, so that memory does not grow with the file.

A file is cut at ``},{`` between annotations. A cut in the wrong place, inside a string or a nested list, always
leaves an unclosed string or bracket, so the block does not parse and the caller parses the file as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from armbench_mmdet.datasets.coco import CocoAnnotation, CocoCategory, CocoDocument, CocoImage

_BLOCK_BYTES = 1 << 22
_OVERLAP_BYTES = 64
_OPENING = re.compile(rb'"annotations"\s{0,20}:\s{0,20}\[\s{0,20}(?=\{)')
_CLOSING = re.compile(rb'\}(?=\s{0,20}\])')


class NotStreamableError(ValueError):
    """The file has to be parsed as a whole."""


def read_frame(path: Path) -> tuple[list[CocoImage], list[CocoCategory] | None, tuple[int, int]]:
    """Parse everything but the annotations.

    Args:
        path: COCO file.

    Returns:
        Images, categories (None without the key), and the byte range of the annotations without their brackets.

    Raises:
        NotStreamableError: The file is broken or unusual.
    """
    with path.open('rb') as file:
        _, start = _search(file, _OPENING, 0)
        _, end = _search(file, _CLOSING, start)
        file.seek(0)
        head = file.read(start)
        file.seek(end)
        frame = head.removeprefix(b'\xef\xbb\xbf') + file.read()
    try:
        document = msgspec.json.decode(frame, type=CocoDocument)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotStreamableError(str(error)) from error
    if document.annotations:
        raise NotStreamableError('the first list called annotations is not the one of the file')
    return document.images, document.categories, (start, end)


def read_annotations(path: Path, byte_range: tuple[int, int]) -> Iterator[CocoAnnotation]:
    """Parse annotations one block after the other.

    Args:
        path: COCO file.
        byte_range: What :func:`read_frame` returned.

    Yields:
        The annotations in file order.

    Raises:
        NotStreamableError: A block is broken or was cut in the wrong place.
    """
    decode = msgspec.json.Decoder(list[CocoAnnotation]).decode
    start, end = byte_range
    rest = b''
    with path.open('rb') as file:
        file.seek(start)
        while start < end:
            block = file.read(min(_BLOCK_BYTES, end - start))
            if not block:
                raise NotStreamableError('the file became shorter')
            start += len(block)
            text = rest + block
            cut = len(text) if start == end else _last_boundary(text)
            try:
                yield from decode(b'[%b]' % text[:cut]) if cut else ()
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise NotStreamableError(str(error)) from error
            rest = text[cut:].lstrip(b' \t\r\n,') if cut else text


def _search(file: BinaryIO, pattern: re.Pattern[bytes], start: int) -> tuple[int, int]:
    """Absolute byte range of the first match at or after ``start``."""
    file.seek(start)
    text, position = b'', start
    while block := file.read(_BLOCK_BYTES):
        kept = text[-_OVERLAP_BYTES:]
        position -= len(kept)
        text = kept + block
        if found := pattern.search(text):
            return position + found.start(), position + found.end()
        position += len(text)
    raise NotStreamableError('no annotations were found')


def _last_boundary(text: bytes) -> int:
    """Length of the part of ``text`` before the last comma between two objects, 0 if there is none."""
    position = len(text)
    while (position := text.rfind(b'{', 0, position)) > 0:
        before = text[max(0, position - _OVERLAP_BYTES) : position].rstrip()
        if before.endswith(b',') and before[:-1].rstrip().endswith(b'}'):
            return max(0, position - _OVERLAP_BYTES) + len(before) - 1
    return 0
