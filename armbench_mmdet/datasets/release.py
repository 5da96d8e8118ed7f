"""ARMBench's release: its folders, subsets, splits, classes and categories, and what to say when they differ."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets.index import ColumnIndex
from armbench_mmdet.errors import InputError

SUBSETS = ('mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set')
SPLITS = ('train', 'val', 'test')
IMAGE_FOLDER = 'images'
DEFAULT_ROOT = Path('data/armbench-segmentation-0.1')
CLASSES = ('tote', 'object')
IGNORED = -1  # the label of categories whose annotations are ignored

CategoryMap = Mapping[str | int, str | None]

CATEGORIES = {subset: {1: 'tote', 2: 'object'} for subset in SUBSETS[:2]} | {SUBSETS[2]: {1: 'object'}}
"""The release's ids of each subset. The same id means tote in two of them and object in the third, where no tote is
annotated: only a file in its subset's folder can be read without names.
"""
_MOST_WITH_TWO_TOTES = 0.01

_HOW_TO_GET = (
    'download armbench-segmentation-0.1.tar.gz from http://armbench.s3-website-us-east-1.amazonaws.com/ and unpack it '
    'there, or name its folder with --data-root or the ARMBENCH_ROOT environment variable; without it, '
    '`python tools/make_minibench.py data/minibench` makes a stand-in'
)


def resolve_data_root(data_root: Path | str | None = None) -> Path:
    """The data set's folder: the argument, then ``ARMBENCH_ROOT``, then ``data/armbench-segmentation-0.1``."""
    return Path(data_root or os.environ.get('ARMBENCH_ROOT') or DEFAULT_ROOT).expanduser()


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices, else raise an ``InputError``."""
    if value not in choices:
        raise InputError(f'{name} must be one of {", ".join(choices)}, got {value!r}')
    return value


def require_existing(path: Path, what: str) -> Path:
    """Return the path of a file, or of a folder if ``what`` says so, that exists, else raise an ``InputError``."""
    if path.is_dir() if 'folder' in what else path.is_file():
        return path
    raise InputError(f'{what} must exist, got {str(path.absolute())!r}; {_HOW_TO_GET}')


class CategoryAssignment(NamedTuple):
    """The label of each category id and of each of a file's A annotations, and what was assumed.

    A label is an index into :data:`CLASSES`, or :data:`IGNORED`.
    """

    labels: dict[int, int]
    rows: NDArray[np.int64]
    notes: list[str]


def assign_categories(index: ColumnIndex, category_map: CategoryMap | None = None) -> CategoryAssignment:
    """Assign a file's categories to the classes by name, ignoring case and surrounding space.

    Args:
        index: The annotation file.
        category_map: For other names: a category's name or id in the file, to ``'tote'``, ``'object'``, or None to
            ignore its annotations. It comes before the names.

    Returns:
        The labels. A file without categories that lies in a subset's folder gets :data:`CATEGORIES`, with a note.

    Raises:
        InputError: ``category_map`` names no class of ours; annotations have a category that is neither ours nor in
            ``category_map``; or a file without categories lies elsewhere, or does not agree with its subset's table.
    """
    wanted = {plain(key): plain(target) for key, target in (category_map or {}).items()}
    if wrong := {key: target for key, target in wanted.items() if target not in (*CLASSES, None)}:
        raise InputError(f'category_map values must be one of {CLASSES} or None, got {wrong}')
    names = {c.id: c.name for c in index.categories or ()}
    notes = []
    counts = dict(zip(*(a.tolist() for a in np.unique(index.category_ids, return_counts=True)), strict=True))
    if not names and not all(c in wanted or str(c) in wanted for c in counts):
        subset = Path(index.ann_file).absolute().parent.name
        twice = int((np.bincount(index.image_rows[index.category_ids == 1]) > 1).sum())
        if problem := _disagreement(subset, counts, twice, len(index.image_ids)):
            readings: list[dict[int, str]] = [dict.fromkeys(counts, 'object')]
            if len(counts) == len(CLASSES):
                readings.insert(0, dict(zip(counts, CLASSES, strict=True)))
            maps = [{**(category_map or {}), **reading} for reading in readings]
            found = [f'id {c} ({n} annotations)' for c, n in counts.items()]
            raise _refused(index, f'an annotation file without categories must {problem}', found, *maps)
        names = CATEGORIES[subset]
        table = ' and '.join(f'{c} = {name}' for c, name in names.items())
        notes.append(f'the file has no categories: assuming ids {table}, as in the release of {subset}')
    labels: dict[int, int] = {}
    unknown: list[int] = []
    for category_id in [*names, *(c for c in counts if c not in names)]:
        name = plain(names.get(category_id, ''))
        target = wanted.get(category_id, wanted.get(name, wanted.get(str(category_id), name)))
        if target is None or target in CLASSES:
            labels[category_id] = IGNORED if target is None else CLASSES.index(target)
        elif category_id in counts:
            unknown.append(category_id)
        else:
            notes.append(f'category {names[category_id]!r} is neither tote nor object, and nothing has it')
    if unknown:
        offered = {**(category_map or {}), **{names.get(c, c): 'object' for c in unknown}}
        found = [
            f'{names[c]!r} (id {c}, {counts[c]} annotations)' if c in names else f'id {c} ({counts[c]} annotations)'
            for c in unknown
        ]
        raise _refused(index, f'categories must be named {" or ".join(CLASSES)}', found, offered)
    for label, class_name in enumerate(CLASSES):
        ids = [c for c, assigned in labels.items() if assigned == label]
        if len(ids) > 1:
            notes.append(f'{class_name}: category ids {ids} are all counted as it')
    rows = np.full(len(index.annotation_ids), IGNORED, np.int64)
    for category_id, label in labels.items():
        rows[index.category_ids == category_id] = label
    return CategoryAssignment(labels, rows, notes)


def _disagreement(subset: str, counts: Mapping[int, int], twice: int, images: int) -> str:
    """What speaks against reading a file without names by its subset's table, if anything."""
    known = CATEGORIES.get(subset)
    if known is None:
        return 'lie in the folder of its subset, whose ids are known'
    if counts.keys() - known.keys():
        return f'have no id but {", ".join(map(str, known))}, the ids of {subset}'
    if 2 not in known:
        return ''
    if counts and 2 not in counts:
        return f'have objects, id 2 in {subset}'
    if twice > _MOST_WITH_TWO_TOTES * images:
        return f'have one tote, id 1 in {subset}, an image (several in {twice} of {images} images)'
    return ''


def _refused(index: ColumnIndex, requirement: str, found: Sequence[str], *maps: Mapping[Any, str | None]) -> InputError:
    offered = ' or '.join(f'category_map={one}' for one in maps)
    return InputError(
        f'{requirement}, got {", ".join(found)} (in {index.ann_file}). If you know what they are, pass {offered} to '
        'the data set, or with --category-map to tools/check_data.py; None instead of a class ignores a category'
    )


def plain(name: Any) -> Any:
    """A name without its case and surrounding space; ids and None as they are."""
    return name.strip().casefold() if isinstance(name, str) else name
