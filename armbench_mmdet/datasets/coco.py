"""COCO annotation files, parsed with types; their problems record by record."""

import codecs
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from armbench_mmdet.errors import InputError

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_SizePx = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Name = Annotated[str, msgspec.Meta(min_length=1, pattern=r'^[^\0]*$')]
_NOT_A_NUMBER = re.compile(rb'(?<=[:,\[\s])-?(NaN|Infinity)(?=\s*[],}])')
_SHOWN = 10

MALFORMED, STRUCTURE = 'json-malformed', 'json-structure'
DUPLICATE_IMAGE, DUPLICATE_ANNOTATION = 'duplicate-image-id', 'duplicate-annotation-id'
DUPLICATE_CATEGORY, ORPHAN = 'duplicate-category-id', 'orphan-annotation'
FOREIGN, BOXES = 'not-coco', 'boxes-mistaken'
TEXT, FLAT, NAN = 'numbers-as-text', 'polygons-flat', 'numbers-missing'
AREAS, NO_AREAS, NESTED, REPEATED = 'areas-mistaken', 'areas-zero', 'polygons-nested', 'image-listed-twice'
NOTES = {TEXT, FLAT, NAN, AREAS, NO_AREAS, NESTED, REPEATED}
"""Kinds that are odd and were understood; all others are wrong."""
_DUPLICATES = {'images': DUPLICATE_IMAGE, 'annotations': DUPLICATE_ANNOTATION, 'categories': DUPLICATE_CATEGORY}

_SIGNATURES = {
    b'version https://git-lfs': 'a Git LFS pointer: fetch the file with `git lfs pull`',
    b'PK\x03\x04': 'a ZIP archive: unpack it',
    b'<': 'XML or HTML, as of Pascal VOC or CVAT: export COCO instance segmentation instead',
}
_FORMATS = {
    frozenset({'shapes', 'imagePath'}): 'LabelMe, one image a file: export COCO instance segmentation instead',
    frozenset({'_via_img_metadata'}): 'a project of VIA: export COCO annotations instead',
    frozenset({'filename', 'regions'}): "VIA's own JSON: export COCO annotations instead",
    frozenset({'image_id', 'score'}): 'results of a model: name the annotation file',
    frozenset({'image', 'annotations'}): 'CreateML: export COCO instance segmentation instead',
}


class CocoImage(msgspec.Struct, gc=False):
    """One entry of ``images``."""

    id: Id
    file_name: _Name
    width: _SizePx
    height: _SizePx


class CocoAnnotation(msgspec.Struct, gc=False):
    """One entry of ``annotations``; the mask stays text until it is needed, to bound memory."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: Annotated[list[float], msgspec.Meta(max_length=4)] | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    ignore: int | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw(b'null')


class CocoCategory(msgspec.Struct, gc=False):
    """One entry of ``categories``."""

    id: Id
    name: str


class CocoRle(msgspec.Struct, gc=False):
    """A run-length mask, column by column: ``size`` is (height, width)."""

    size: tuple[int, int]
    counts: list[int] | str


class CocoFile(msgspec.Struct):
    """An annotation file; ``categories`` is None when it has no such key."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory] | None = None


class _RawFile(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw] | None = None


class Problem(NamedTuple):
    """One thing wrong with a file, or odd: its kind (a constant of this module), and where and what it is."""

    kind: str
    detail: str


def parse_coco(data: bytes) -> tuple[CocoFile, list[Problem]]:
    """Parse a COCO file: UTF-8, or UTF-16 with its mark, perhaps compressed by gzip. Masks are not looked at.

    Returns:
        The file, without anything where its structure is broken; and what is wrong with it or odd.
    """
    found: list[Problem] = []
    text = data
    try:
        text = _as_utf8(data)
        document = _decode(text, found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError, EOFError, zlib.error) as error:
        if what := _format_of(text):
            return CocoFile([], []), [Problem(FOREIGN, f'the file is {what}')]
        if isinstance(error, msgspec.ValidationError | UnicodeDecodeError):
            return CocoFile([], []), [*_broken_records(text)] or [Problem(STRUCTURE, str(error))]
        return CocoFile([], []), [Problem(MALFORMED, _describe_malformed(text, error))]
    for key, kind in _DUPLICATES.items():
        numbers = Counter(record.id for record in getattr(document, key) or ())
        if len(numbers) < numbers.total():
            found += [Problem(kind, f'{key}: {n} have id {number}') for number, n in numbers.items() if n > 1]
    return document, found


def _as_utf8(data: bytes) -> bytes:
    if data.startswith(b'\x1f\x8b'):
        data = gzip.decompress(data)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode('utf-16').encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _decode(text: bytes, found: list[Problem]) -> CocoFile:
    try:
        return msgspec.json.decode(text, type=CocoFile)
    except msgspec.ValidationError as error:
        document = msgspec.json.decode(text, type=CocoFile, strict=False)
        odd = f'numbers are written as text, or ids as fractions, and read as numbers (first: {error})'
        found.append(Problem(TEXT, odd))
        return document
    except msgspec.DecodeError:
        cleaned, number = _NOT_A_NUMBER.subn(b'null', text)
        if not number:
            raise
    found.append(Problem(NAN, 'NaN and Infinity, which JSON does not have, are read as missing numbers'))
    return _decode(cleaned, found)


def _broken_records(text: bytes) -> Iterator[Problem]:
    """Every record that is not as COCO's are, where the parser stops at the first; none if the lists are not there."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        document = msgspec.json.decode(text, type=_RawFile)
        for key, kind in (('images', CocoImage), ('annotations', CocoAnnotation), ('categories', CocoCategory)):
            decode = msgspec.json.Decoder(kind, strict=False).decode
            for row, record in enumerate(getattr(document, key) or ()):
                try:
                    decode(record)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    message, _, path = str(error).partition(' - at `$')
                    yield Problem(STRUCTURE, f'{message} - at `$.{key}[{row}]{path or "`"}')


def _format_of(text: bytes) -> str | None:
    """What a file is that is no COCO file, None if nobody knows."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        known = (what for mark, what in _SIGNATURES.items() if text.lstrip().startswith(mark))
        return next(known, None if text.strip() else 'empty')
    first = next(iter(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()), None)
    own, inner = (set(one) if isinstance(one, dict) else set() for one in (value, first))
    if 'images' in own and 'annotations' not in own:
        return 'images without annotations: `tools/infer.py CONFIG CHECKPOINT THIS_FILE` predicts them'
    return next((what for keys, what in _FORMATS.items() if keys <= own or keys <= inner), None)


def _describe_malformed(text: bytes, error: Exception) -> str:
    """Say where a JSON text breaks: the parser's message with line and column, both from 1."""
    if isinstance(error, RecursionError):
        return 'the JSON is nested too deeply'
    message, _, byte = str(error).partition(' (byte ')
    position = int(byte.rstrip(')')) if byte else len(text)
    line, column = text.count(b'\n', 0, position) + 1, position - text.rfind(b'\n', 0, position)
    return f'line {line}, column {column}: {message}'


def raise_problems(problems: list[Problem], ann_file: Path) -> None:
    """Raise one ``InputError`` that shows the first problems of a file, if there are any."""
    if not problems:
        return
    lines = [f'annotation file must be well-formed COCO, got {len(problems)} problem(s) (in {ann_file}):']
    lines += [f'{problem.kind}: {problem.detail}' for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f'… and {len(problems) - _SHOWN} more')
    if problems[0].kind not in (FOREIGN, BOXES):
        check = f'`python tools/check_data.py --ann-file {ann_file}`'
        lines.append(f'correct or remove these records; {check} checks the whole file')
    raise InputError('\n  '.join(lines))
