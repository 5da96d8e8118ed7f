"""Data sets of other formats as a COCO file beside an image folder; cuts of a COCO file."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from armbench_mmdet.datasets.images import DECODE_ERRORS, SUFFIXES, image_size, read_bytes
from armbench_mmdet.datasets.release import IMAGE_FOLDER
from armbench_mmdet.errors import InputError
from armbench_mmdet.files import read_json, write_atomically
from armbench_mmdet.masks.encode import encode_masks

_LOSSLESS = ('.png', '.tif', '.tiff', '.bmp')

Instance = tuple[str, list[list[float]] | dict[str, Any]]  # a class, and COCO polygons in px or a run-length code
Photo = tuple[Path, int, int, Iterable[Instance]]  # an image file, its height and width in px, and its instances


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


def convert(
    form: str, source: Path, out: Path, split: str, images: Path | None = None, tote: int | None = None
) -> Report:
    """Convert a data set into ``out/<split>.json`` and ``out/images/``.

    Images are linked, or copied where the file system has no hard links; those that lie there already stay.

    Args:
        form: One of :data:`FORMATS`.
        source: The folder of annotation files, in subfolders too; for YOLO a folder with ``labels/`` below it.
        out: The folder to write.
        split: Name of the file.
        images: The folder of images; None for where the format has them.
        tote: The value in label images that is the tote.

    Raises:
        InputError: An annotation file cannot be read or its image is missing, or there is nothing to convert.
    """
    report, folder = Report(out / f'{split}.json'), out / IMAGE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    ids: dict[str, int] = {}
    rows: dict[str, dict[str, Any]] = {}
    annotations: list[msgspec.Raw] = []  # a few bytes for each number, not a few dozen
    for path, height, width, instances in FORMATS[form](source, images, report.notes, tote):
        if path.name in rows:
            raise InputError(f'an image must be annotated once, got two annotation files for {path.name!r}')
        _place(path, folder / path.name)
        image_id = len(rows) + 1
        rows[path.name] = {'id': image_id, 'file_name': path.name, 'width': width, 'height': height}
        for category, mask in instances:
            code = coco_mask.merge(coco_mask.frPyObjects(mask, height, width)) if isinstance(mask, list) else mask
            area = int(coco_mask.area(code))
            if not area:
                report.notes['instances that cover no pixel are left out'] += 1
                continue
            category_id = ids.setdefault(category, len(ids) + 1)
            owner = {'id': len(annotations) + 1, 'image_id': image_id, 'category_id': category_id}
            row = {**owner, 'iscrowd': 0, 'area': area, 'bbox': coco_mask.toBbox(code).tolist(), 'segmentation': mask}
            annotations.append(msgspec.Raw(msgspec.json.encode(row)))
            report.categories[category] += 1
    report.images = len(rows)
    categories = [{'id': category_id, 'name': name} for name, category_id in ids.items()]
    content = {'images': list(rows.values()), 'annotations': annotations, 'categories': categories}
    write_atomically(report.ann_file, msgspec.json.encode(content))
    return report


def _place(path: Path, target: Path) -> None:
    """Put an image into the folder, without a copy where that can be."""
    if not target.exists():
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copy2(path, target)
    elif target.stat().st_size != path.stat().st_size:
        raise InputError(f'out must not hold another image of that name, got {str(target)!r}; choose another folder')


class _Shape(msgspec.Struct):
    label: str
    points: list[tuple[float, float]] = []
    shape_type: str | None = None
    group_id: int | str | None = None


class _LabelMe(msgspec.Struct, rename='camel'):
    shapes: list[_Shape]
    image_path: str


def labelme(source: Path, images: Path | None, notes: Counter[str], tote: int | None) -> Iterator[Photo]:
    """LabelMe: one JSON file an image; polygons and rectangles, one object where they share label and ``group_id``."""
    for path in _files(source, '*', ('.json',)):
        content = read_json(path, _LabelMe, 'annotations must be LabelMe files')
        instances: dict[Any, tuple[str, list[list[float]]]] = {}
        for number, shape in enumerate(content.shapes):
            kind, points = shape.shape_type or 'polygon', shape.points
            if kind == 'rectangle' and len(points) == 2:
                (x0, y0), (x1, y1) = points
                points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
            if kind not in ('polygon', 'rectangle') or len(points) < 3:
                notes[f'shapes of type {kind!r} with {len(points)} points are left out'] += 1
                continue
            key = number if shape.group_id is None else (shape.label, shape.group_id)
            instances.setdefault(key, (shape.label, []))[1].append(np.ravel(points).tolist())
        name = Path(content.image_path.replace('\\', '/')).name
        folders = [images] if images else [path.parent, path.parent.parent / IMAGE_FOLDER]
        yield *_image_of(path, name, *folders), instances.values()


def label_images(source: Path, images: Path | None, notes: Counter[str], tote: int | None) -> Iterator[Photo]:
    """Label images: one picture an image whose pixels' values number the instances, 0 for none.

    Colours count as ``R + 256 G + 65536 B``, palette images by their index. Photos have the same names, whatever their
    suffixes; they lie in ``images`` beside the folder.
    """
    for path in _files(source, '*', SUFFIXES):
        try:
            with Image.open(path) as opened:
                pixels = np.asarray(opened)
        except DECODE_ERRORS as error:
            raise InputError(f'label image must be readable, got {error} (in {path})') from error
        if pixels.ndim == 3:
            pixels = pixels[..., :3] @ np.array([1, 256, 65536])
        if path.suffix.lower() not in _LOSSLESS:
            notes['label images have a lossy format: do not evaluate on them'] += 1
        photo, height, width = _image_of(path, path.stem, images or source.parent / IMAGE_FOLDER)
        if (height, width) != pixels.shape:
            found = f'{pixels.shape[1]}x{pixels.shape[0]}'
            raise InputError(f'label image must be {width}x{height} as its photo, got {found} (in {path})')
        values = np.unique(pixels[pixels > 0]).tolist()
        masks = (('tote' if v == tote else 'object', encode_masks((pixels == v)[None])[0]) for v in values)
        yield photo, height, width, masks


def yolo(source: Path, images: Path | None, notes: Counter[str], tote: int | None) -> Iterator[Photo]:
    """YOLO segmentation: ``labels/….txt`` beside ``images/…``; a row is a class and a polygon in shares of the size."""
    names = _yolo_names(source)
    for path in _files(source, 'labels/**/*', ('.txt',)):
        above, _, below = path.as_posix().rpartition('/labels/')
        photo, height, width = _image_of(path, path.stem, images or Path(above, IMAGE_FOLDER, below).parent)
        instances = []
        for number, row in enumerate(path.read_text(errors='replace').splitlines(), 1):
            try:
                label, *values = map(float, row.split())
            except ValueError as error:
                raise InputError(f'rows must be numbers, got {row[:60]!r} (in {path}, row {number})') from error
            if len(values) < 6 or len(values) % 2:
                notes['rows that are no polygon are left out (a box has no mask)'] += 1
                continue
            points = np.reshape(values, (-1, 2)) * (width, height)
            instances.append((names.get(int(label), str(int(label))), [points.ravel().tolist()]))
        yield photo, height, width, instances


class _YoloData(msgspec.Struct):
    names: list[str] | dict[int, str]


def _yolo_names(source: Path) -> dict[int, str]:
    for file in [*sorted(source.glob('*.yaml')), *sorted(source.parent.glob('*.yaml'))]:
        try:
            names = msgspec.yaml.decode(file.read_bytes(), type=_YoloData, strict=False).names
        except msgspec.DecodeError as error:
            reason = ' '.join(str(error).split())
            raise InputError(f'data.yaml must have the names of the classes, got {reason} (in {file})') from error
        return dict(enumerate(names)) if isinstance(names, list) else names
    raise InputError(f'YOLO data must have a data.yaml with the names of the classes, got none in {str(source)!r}')


FORMATS: dict[str, Callable[..., Iterator[Photo]]] = {'labelme': labelme, 'label-images': label_images, 'yolo': yolo}


def _files(source: Path, pattern: str, suffixes: Sequence[str]) -> Iterable[Path]:
    """Annotation files below a folder, with a progress bar."""
    files = sorted({path for path in source.rglob(pattern) if path.suffix.lower() in suffixes})
    if not files:
        raise InputError(f'IN must have annotation files ({suffixes[0]} …), got none below {str(source)!r}')
    return tqdm(files, 'images', unit='img')


def _image_of(annotations: Path, name: str, *folders: Path) -> tuple[Path, int, int]:
    """The image of a name, or of a name without its suffix, in the first folder that has it; its height and width."""
    for folder in folders:
        for suffix in ('', *SUFFIXES, *map(str.upper, SUFFIXES)):
            path = folder / f'{name}{suffix}'
            if path.is_file():
                return path, *image_size(read_bytes(path), path)
    places = ' or '.join(map(str, folders))
    raise InputError(f'image {name!r} must lie in {places} (for {annotations}), or name its folder with --images')


def cut(source: Path, out: Path, *, names: Sequence[str] | None = None, fraction: float = 1.0, seed: int = 0) -> Report:
    """Write a part of a COCO file: its images of some names, or a share of them.

    A share is drawn so that empty and full images stay as common as they are: images in order of how many annotations
    they have, at equal distances, from a random start.

    Raises:
        InputError: The file has no images or there are no names, one is not in the file, or the share not in (0, 1].
    """
    content = read_json(source, dict[str, Any], 'annotation file must be a COCO file')
    try:
        file_names = {image['id']: image['file_name'] for image in content['images']}
        counts = Counter(row['image_id'] for row in content['annotations'])
    except (KeyError, TypeError) as error:
        raise InputError(f'annotation file must be a COCO file, got {error!r} (in {source})') from error
    if not file_names or seed < 0:
        raise InputError(f'images and seed must be at least 1 and 0, got {len(file_names)} and {seed} (in {source})')
    if names is not None:
        if not names:
            raise InputError('--list must name images, one a line, got none')
        if missing := sorted(set(names) - set(file_names.values())):
            raise InputError(f'images must be in the file, got {missing[0]!r}, one of {len(missing)} (in {source})')
        kept = {image_id for image_id, name in file_names.items() if name in set(names)}
    elif 0 < fraction <= 1:
        rng = np.random.default_rng(seed)
        order = sorted(file_names, key=lambda image_id: (counts[image_id], rng.random()))
        wanted = max(1, round(fraction * len(order)))
        kept = {order[int(place * len(order) / wanted)] for place in np.arange(wanted) + rng.random()}
    else:
        raise InputError(f'fraction must be above 0 and at most 1, got {fraction!r}')
    content['images'] = [image for image in content['images'] if image['id'] in kept]
    content['annotations'] = [row for row in content['annotations'] if row['image_id'] in kept]
    write_atomically(out, msgspec.json.encode(content))
    return Report(out, len(content['images']), Counter(annotations=len(content['annotations'])))
