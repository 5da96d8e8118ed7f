"""COCO annotation files, parsed with types; their problems record by record."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from armbench_mmdet.errors import InputError

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_SizePx = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Name = Annotated[str, msgspec.Meta(min_length=1, pattern=r'^[^\0]*$')]
_UTF8_MARK = b'\xef\xbb\xbf'
_SHOWN = 10

MALFORMED, STRUCTURE = 'json-malformed', 'json-structure'
DUPLICATE_IMAGE, DUPLICATE_ANNOTATION = 'duplicate-image-id', 'duplicate-annotation-id'
DUPLICATE_CATEGORY, ORPHAN = 'duplicate-category-id', 'orphan-annotation'
FOREIGN, BOXES = 'not-coco', 'boxes-mistaken'
TEXT, FLAT, NAN = 'numbers-as-text', 'polygons-flat', 'numbers-missing'
AREAS, NO_AREAS, NESTED, REPEATED = 'areas-mistaken', 'areas-zero', 'polygons-nested', 'image-listed-twice'

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


class CocoDocument(msgspec.Struct):
    """A COCO file; ``categories`` is None when the file has none."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory] | None = None


class _RawDocument(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw] | None = None


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file, or odd: its kind (a constant of this module), and where and what it is."""

    kind: str
    detail: str


def parse_coco(data: bytes) -> tuple[CocoDocument, list[Problem], list[Problem]]:
    """Parse a COCO file, leaving broken records out.

    Args:
        data: The file's bytes: UTF-8, or UTF-16 with its mark, as they are or compressed by gzip.

    Returns:
        The sound records in file order; a :class:`Problem` for each other one: malformed JSON with line and column,
        missing keys, wrong types, images and categories with an id that came before; and one for each oddity that
        was understood. Masks, and the ids of annotations, are not looked at.
    """
    problems: list[Problem] = []
    notes: list[Problem] = []
    document = CocoDocument([], [])
    text = data
    try:
        text = _as_utf8(data)
        document = _parse(text, problems, notes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError, EOFError, zlib.error) as error:
        if what := _format_of(text):
            problems.append(Problem(FOREIGN, f'the file is {what}'))
        elif isinstance(error, msgspec.ValidationError | UnicodeDecodeError):
            problems.append(Problem(STRUCTURE, f'the file as a whole: {error}'))
        else:
            problems.append(Problem(MALFORMED, _describe_malformed(text, error)))
    problems += _drop_repeated_ids(document.images, 'images')
    problems += _drop_repeated_ids(document.categories or [], 'categories')
    return document, problems, notes


def _as_utf8(data: bytes) -> bytes:
    if data.startswith(b'\x1f\x8b'):
        data = gzip.decompress(data)
    if data.startswith((b'\xff\xfe', b'\xfe\xff')):
        return data.decode('utf-16').encode()
    return data.removeprefix(_UTF8_MARK)


def _parse(text: bytes, problems: list[Problem], notes: list[Problem]) -> CocoDocument:
    try:
        return msgspec.json.decode(text, type=CocoDocument)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _parse_records(text, problems, notes)
    except msgspec.DecodeError:
        if b'NaN' not in text and b'Infinity' not in text:
            raise
        try:
            value = json.loads(text, parse_constant=lambda _: None)
        except ValueError:
            value = None
        if value is None:
            raise
        notes.append(Problem(NAN, 'NaN and Infinity, which JSON does not have, are read as missing numbers'))
        return _parse(msgspec.json.encode(value), problems, notes)


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


_Identified = TypeVar('_Identified', CocoImage, CocoCategory)


def _drop_repeated_ids(records: list[_Identified], key: str) -> list[Problem]:
    """Remove records with an id that came before; one problem for each."""
    kind = DUPLICATE_IMAGE if key == 'images' else DUPLICATE_CATEGORY
    problems: list[Problem] = []
    first: dict[int, _Identified] = {}
    for row, record in enumerate(records):
        if first.setdefault(record.id, record) is not record:
            problems.append(Problem(kind, f'{key}[{row}]: id {record.id} is taken already'))
    records[:] = first.values()
    return problems


def raise_problems(problems: list[Problem], ann_file: Path) -> None:
    """Raise one error that shows the first problems of a file.

    Raises:
        InputError: ``problems`` is not empty.
    """
    if not problems:
        return
    shown = [f'\n  {problem.kind}: {problem.detail}' for problem in problems[:_SHOWN]]
    more = f'\n  … and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
    remedy = (
        f'\n  correct or remove these records; `python tools/check_data.py --ann-file {ann_file}` checks the whole file'
    )
    raise InputError(
        f'annotation file must be well-formed COCO, got {len(problems)} problem(s) (in {ann_file}):'
        f'{"".join(shown)}{more}' + ('' if problems[0].kind in (FOREIGN, BOXES) else remedy)
    )


def _describe_malformed(text: bytes, error: Exception) -> str:
    """Say where a JSON text breaks: the parser's message with line and column, both from 1."""
    if isinstance(error, RecursionError):
        return 'line 1, column 1: the JSON is nested too deeply'
    message = str(error)
    found = re.search(r' \(byte (\d+)\)', message)
    position = int(found.group(1)) if found else len(text)
    line = text.count(b'\n', 0, position) + 1
    column = position - text.rfind(b'\n', 0, position)
    return f'line {line}, column {column}: {message.replace(found.group(0), "") if found else message}'


def _parse_records(text: bytes, problems: list[Problem], notes: list[Problem]) -> CocoDocument:
    """Parse record by record, after parsing the whole file at once has failed."""
    raw = msgspec.json.decode(text, type=_RawDocument)
    as_text: list[str] = []
    document = CocoDocument(
        list(_decode_each(raw.images, CocoImage, 'images', problems, as_text)),
        list(_decode_each(raw.annotations, CocoAnnotation, 'annotations', problems, as_text)),
        None
        if raw.categories is None
        else list(_decode_each(raw.categories, CocoCategory, 'categories', problems, as_text)),
    )
    if as_text:
        number = f'{len(as_text)} records (first {as_text[0]})'
        notes.append(Problem(TEXT, f'{number} have numbers written as text, or ids as fractions: read as numbers'))
    return document


_Record = TypeVar('_Record', CocoImage, CocoAnnotation, CocoCategory)


def _decode_each(
    records: list[msgspec.Raw], kind: type[_Record], key: str, problems: list[Problem], as_text: list[str]
) -> Iterator[_Record]:
    decode = msgspec.json.Decoder(kind).decode
    for row, record in enumerate(records):
        try:
            yield decode(record)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            try:
                yield msgspec.json.decode(record, type=kind, strict=False)
                as_text.append(f'{key}[{row}]')
            except (msgspec.ValidationError, UnicodeDecodeError):
                problems.append(Problem(STRUCTURE, f'{key}[{row}]: {error}'))
