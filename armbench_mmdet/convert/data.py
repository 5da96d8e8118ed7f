"""Data sets of other formats as a COCO file beside an image folder; cuts of a COCO file.

Annotations go to the file as they are read, so that memory does not grow with the data set.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
import yaml
from pycocotools import mask as coco_mask
from tqdm import tqdm

from armbench_mmdet.datasets.images import SUFFIXES, image_size, read_bytes
from armbench_mmdet.datasets.release import IMAGE_FOLDER
from armbench_mmdet.errors import InputError
from armbench_mmdet.files import draft_of, write_atomically
from armbench_mmdet.masks.encode import encode_masks

_LOSSLESS = ('.png', '.tif', '.tiff', '.bmp')


class Instance(NamedTuple):
    """One object: its class, and its mask as COCO polygons in px or a run-length code."""

    category: str
    segmentation: list[list[float]] | dict[str, Any]


@dataclass
class Photo:
    """One image with its instances."""

    path: Path
    height: int
    width: int
    instances: list[Instance] = field(default_factory=list)


Read = Callable[[Path], Photo]
"""Reads one annotation file of a format."""


@dataclass
class Report:
    """What a conversion wrote, and what to know of it: counts by reason."""

    ann_file: Path
    images: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """A few lines for the console."""
        counts = ', '.join(f'{count:,} {name}' for name, count in sorted(self.categories.items())) or 'no annotations'
        lines = [f'{self.ann_file}: {self.images:,} images, {counts}']
        return '\n'.join(lines + [f'  {count:,} {reason}' for reason, count in self.notes.items()])


def convert(form: str, source: Path, out: Path, split: str, images: Path | None = None, **options: Any) -> Report:
    """Convert a data set into ``out/<split>.json`` and ``out/images/``.

    Images are linked, or copied where the file system has no hard links; those that lie there already stay.

    Args:
        form: ``labelme``, ``label-images`` or ``yolo``.
        source: The folder of annotation files, in subfolders too; for YOLO a folder with ``labels/`` below it.
        out: The folder to write.
        split: Name of the file.
        images: The folder of images; None for where the format has them.
        **options: ``values`` of :func:`label_images`.

    Raises:
        InputError: An annotation file cannot be read or its image is missing, or there is nothing to convert.
    """
    report = Report(out / f'{split}.json')
    files, read = FORMATS[form](source, images, report, **options)
    if not files:
        raise InputError(f'{form} data must have annotation files, got none below {str(source)!r}')
    (out / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    with draft_of(report.ann_file) as draft, draft.open('wb') as file:
        _write(file, (read(path) for path in tqdm(files, form, unit='img')), out / IMAGE_FOLDER, report)
    return report


def _write(file: IO[bytes], photos: Iterator[Photo], folder: Path, report: Report) -> None:
    """Write a COCO file: annotations as they come, images and categories behind them."""
    ids: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    names: set[str] = set()
    file.write(b'{"annotations": [')
    number = 0
    for image_id, photo in enumerate(photos, 1):
        if photo.path.name in names:
            raise InputError(f'an image must be annotated once, got two annotation files for {photo.path.name!r}')
        names.add(photo.path.name)
        _place(photo.path, folder / photo.path.name)
        listed.append({'id': image_id, 'file_name': photo.path.name, 'width': photo.width, 'height': photo.height})
        for instance in photo.instances:
            code = instance.segmentation
            if isinstance(code, list):
                code = coco_mask.merge(coco_mask.frPyObjects(code, photo.height, photo.width))
            area = int(coco_mask.area(code))
            if not area:
                report.notes['instances that cover no pixel are left out'] += 1
                continue
            category = ids.setdefault(instance.category, len(ids) + 1)
            row = {'id': number + 1, 'image_id': image_id, 'category_id': category, 'iscrowd': 0, 'area': area,
                   'bbox': coco_mask.toBbox(code).tolist(), 'segmentation': instance.segmentation}  # fmt: skip
            file.write((b',\n' if number else b'\n') + msgspec.json.encode(row))
            number += 1
            report.categories[instance.category] += 1
    categories = [{'id': category_id, 'name': name} for name, category_id in ids.items()]
    rest = msgspec.json.encode({'images': listed, 'categories': categories})
    file.write(b'\n],\n' + rest[1:])
    report.images = len(listed)


def _place(path: Path, target: Path) -> None:
    """Put an image into the folder, without a copy where that can be."""
    if target.exists():
        if target.samefile(path) or target.stat().st_size == path.stat().st_size:
            return
        raise InputError(f'out must not hold another image of that name, got {str(target)!r}; choose another folder')
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copy2(path, target)


class _Shape(msgspec.Struct):
    label: str
    points: list[tuple[float, float]] = []
    shape_type: str | None = 'polygon'
    group_id: int | str | None = None


class _LabelMe(msgspec.Struct, rename='camel'):
    shapes: list[_Shape]
    image_path: str
    image_height: int | None = None
    image_width: int | None = None


def labelme(source: Path, images: Path | None, report: Report) -> tuple[list[Path], Read]:
    """LabelMe: one JSON file an image; polygons and rectangles, one object where they share label and ``group_id``."""

    def read(path: Path) -> Photo:
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_LabelMe)
        except msgspec.MsgspecError as error:
            raise InputError(f'annotations must be LabelMe files, got {error} (in {path})') from error
        name = Path(content.image_path.replace('\\', '/')).name
        folders = [images] if images else [path.parent, path.parent.parent / IMAGE_FOLDER]
        photo = _photo(folders, name, path, (content.image_height or 0, content.image_width or 0))
        parts: dict[tuple, list[list[float]]] = {}
        for number, shape in enumerate(content.shapes):
            kind, points = shape.shape_type or 'polygon', shape.points
            if kind == 'rectangle' and len(points) == 2:
                (x0, y0), (x1, y1) = points
                kind, points = 'polygon', [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
            if kind != 'polygon' or len(points) < 3:
                what = f'shapes of type {kind!r}' if kind != 'polygon' else 'polygons under 3 points'
                report.notes[f'{what} are left out'] += 1
                continue
            key = (shape.label, shape.group_id) if shape.group_id is not None else (shape.label, 'own', number)
            parts.setdefault(key, []).append([value for point in points for value in point])
        photo.instances = [Instance(key[0], polygons) for key, polygons in parts.items()]
        return photo

    return sorted(source.rglob('*.json')), read


def label_images(
    source: Path, images: Path | None, report: Report, values: dict[int, str] | None = None
) -> tuple[list[Path], Read]:
    """Label images: one picture an image whose pixels' values number the instances, 0 for none.

    Colours count as ``R + 256 G + 65536 B``, palette images by their index.

    Args:
        source: The folder of label images.
        images: The folder of photos of the same names, whatever their suffixes; None for ``images`` beside it.
        report: Where notes go.
        values: Which classes values stand for; ``object`` for all others.
    """
    from PIL import Image

    folder = images or source.parent / IMAGE_FOLDER

    def read(path: Path) -> Photo:
        with Image.open(path) as opened:
            pixels = np.asarray(opened)
        if pixels.ndim == 3:
            pixels = pixels[..., :3] @ np.array([1, 256, 65536])
        if path.suffix.lower() not in _LOSSLESS:
            report.notes['label images have a lossy format: do not evaluate on them'] += 1
        photo = _photo([folder], path.stem, path)
        if (photo.height, photo.width) != pixels.shape:
            found = f'{pixels.shape[1]}x{pixels.shape[0]}'
            raise InputError(f'label image must be {photo.width}x{photo.height} as its photo, got {found} (in {path})')
        for value in np.unique(pixels[pixels > 0]).tolist():
            photo.instances.append(
                Instance((values or {}).get(value, 'object'), encode_masks((pixels == value)[None])[0])
            )
        return photo

    return [path for path in sorted(source.rglob('*')) if path.suffix.lower() in SUFFIXES], read


def yolo(source: Path, images: Path | None, report: Report) -> tuple[list[Path], Read]:
    """YOLO segmentation: ``labels/….txt`` beside ``images/…``; a row is a class and a polygon in shares of the size."""
    names = _yolo_names(source)

    def read(path: Path) -> Photo:
        relative = path.relative_to(source)
        at = max(i for i, part in enumerate(relative.parts) if part == 'labels')
        folder = images or source.joinpath(*relative.parts[:at], IMAGE_FOLDER, *relative.parts[at + 1 : -1])
        photo = _photo([folder], path.stem, path)
        for number, row in enumerate(path.read_text().splitlines(), 1):
            try:
                label, *values = [float(value) for value in row.split()]
            except ValueError as error:
                raise InputError(
                    f'rows must be a class and numbers, got {row[:60]!r} (in {path}, row {number})'
                ) from error
            if len(values) < 6 or len(values) % 2:
                report.notes['rows that are no polygon are left out (a box has no mask)'] += 1
                continue
            points = np.reshape(values, (-1, 2)) * (photo.width, photo.height)
            photo.instances.append(Instance(names.get(int(label), str(int(label))), [points.reshape(-1).tolist()]))
        return photo

    return sorted(path for path in source.rglob('*.txt') if 'labels' in path.relative_to(source).parts), read


def _yolo_names(source: Path) -> dict[int, str]:
    for folder in (source, source.parent):
        for file in sorted(folder.glob('*.yaml')):
            names = (yaml.safe_load(file.read_text()) or {}).get('names', {})
            return dict(enumerate(names)) if isinstance(names, list) else {int(k): v for k, v in names.items()}
    raise InputError(f'YOLO data must have a data.yaml with the names of the classes, got none in {str(source)!r}')


FORMATS: dict[str, Callable[..., tuple[list[Path], Read]]] = {
    'labelme': labelme,
    'label-images': label_images,
    'yolo': yolo,
}


def _photo(folders: Sequence[Path], name: str, annotations: Path, size: tuple[int, int] = (0, 0)) -> Photo:
    """The image of a name, or of a name without its suffix, in the first folder that has it; its size if not known."""
    for folder in folders:
        for path in (folder / name, *(folder / f'{name}{s}' for suffix in SUFFIXES for s in (suffix, suffix.upper()))):
            if path.is_file():
                height, width = size if all(size) else image_size(read_bytes(path), path)
                return Photo(path, height, width)
    raise InputError(
        f'image {name!r} must lie in {" or ".join(map(str, folders))}, got no such file (for {annotations}); '
        f'name the folder with --images'
    )


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _OfImage(msgspec.Struct):
    image_id: int


def cut(source: Path, out: Path, *, names: Sequence[str] | None = None, fraction: float = 1.0, seed: int = 0) -> Report:
    """Write a part of a COCO file: its images of some names, or a share of them.

    A share is drawn so that empty and full images stay as common as they are: images in order of how many annotations
    they have, at equal distances, from a random start.

    Args:
        source: The file.
        out: The file to write.
        names: File names of the images, as in the file.
        fraction: Share of the images, in (0, 1], if no names are given.
        seed: Of the share.

    Raises:
        InputError: A name is not in the file, or the share is out of range.
    """
    try:
        content = msgspec.json.decode(source.read_bytes(), type=dict[str, msgspec.Raw])
        raw = {key: msgspec.json.decode(content[key], type=list[msgspec.Raw]) for key in ('images', 'annotations')}
        images = [msgspec.json.decode(row, type=_Image) for row in raw['images']]
        owners = [msgspec.json.decode(row, type=_OfImage).image_id for row in raw['annotations']]
    except (OSError, KeyError, msgspec.MsgspecError) as error:
        raise InputError(f'annotation file must be a COCO file, got {error} (in {source})') from error
    if names is not None:
        if missing := sorted(set(names) - {image.file_name for image in images}):
            raise InputError(f'images must be in the file, got {missing[0]!r}, one of {len(missing)} (in {source})')
        kept = {image.id for image in images if image.file_name in set(names)}
    elif 0 < fraction <= 1:
        counts, rng = Counter(owners), np.random.default_rng(seed)
        order = sorted(images, key=lambda image: (counts[image.id], rng.random()))
        wanted = max(1, round(fraction * len(order)))
        kept = {order[int(place * len(order) / wanted)].id for place in np.arange(wanted) + rng.random()}
    else:
        raise InputError(f'fraction must be above 0 and at most 1, got {fraction!r}')
    rows = {
        'images': [row for row, image in zip(raw['images'], images, strict=True) if image.id in kept],
        'annotations': [row for row, owner in zip(raw['annotations'], owners, strict=True) if owner in kept],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, msgspec.json.encode({**content, **rows}))
    return Report(out, len(rows['images']), Counter(annotations=len(rows['annotations'])))
