"""COCO annotation files, parsed with types; their problems record by record."""

from __future__ import annotations

import re
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
    bbox: tuple[float, float, float, float] | None = None
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
    """One thing wrong with a file: its kind (a constant of this module) and where and what it is."""

    kind: str
    detail: str


def parse_coco(data: bytes) -> tuple[CocoDocument, list[Problem]]:
    """Parse a COCO file, leaving broken records out.

    Args:
        data: The file's bytes (UTF-8, with or without a byte-order mark).

    Returns:
        The sound records in file order, and a :class:`Problem` for each other one: malformed JSON with line and
        column, missing keys, wrong types, images and categories with an id that came before. Masks, and the ids of
        annotations, are not looked at.
    """
    text = memoryview(data)[len(_UTF8_MARK) if data.startswith(_UTF8_MARK) else 0 :]
    problems: list[Problem] = []
    document = CocoDocument([], [])
    try:
        try:
            document = msgspec.json.decode(text, type=CocoDocument)
        except (msgspec.ValidationError, UnicodeDecodeError):
            document = _parse_records(text, problems)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        problems.append(Problem(STRUCTURE, f'the file as a whole: {error}'))
    except (msgspec.DecodeError, RecursionError) as error:
        problems.append(Problem(MALFORMED, _describe_malformed(bytes(text), error)))
    problems += _drop_repeated_ids(document.images, 'images')
    problems += _drop_repeated_ids(document.categories or [], 'categories')
    return document, problems


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
    raise InputError(
        f'annotation file must be well-formed COCO, got {len(problems)} problem(s) (in {ann_file}):'
        f'{"".join(shown)}{more}\n  correct or remove these records; `python tools/check_data.py` lists all of them'
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


def _parse_records(text: memoryview, problems: list[Problem]) -> CocoDocument:
    """Parse record by record, after parsing the whole file at once has failed."""
    raw = msgspec.json.decode(text, type=_RawDocument)
    return CocoDocument(
        list(_decode_each(raw.images, CocoImage, 'images', problems)),
        list(_decode_each(raw.annotations, CocoAnnotation, 'annotations', problems)),
        None if raw.categories is None else list(_decode_each(raw.categories, CocoCategory, 'categories', problems)),
    )


_Record = TypeVar('_Record', CocoImage, CocoAnnotation, CocoCategory)


def _decode_each(
    records: list[msgspec.Raw], kind: type[_Record], key: str, problems: list[Problem]
) -> Iterator[_Record]:
    decode = msgspec.json.Decoder(kind).decode
    for row, record in enumerate(records):
        try:
            yield decode(record)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            problems.append(Problem(STRUCTURE, f'{key}[{row}]: {error}'))
