"""Pictures of instances with labels and a legend, and contact sheets of training samples and augmentations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as mask_api

from armbench_mmdet.configs import dataset_of
from armbench_mmdet.errors import InputError
from armbench_mmdet.files import write_atomically
from armbench_mmdet.transforms import loading

Colour = tuple[int, int, int]
Label = tuple[str, Colour, tuple[int, int, int, int], bool]
"""Text, BGR of its background, x, y, width and height in px of what it belongs to, whether only the corners serve."""

OUTLINED = ('tote',)  # classes that hold the others: drawn as an outline, so that what lies inside stays visible

FOUND, MISSED, CORRECT, FALSE_POSITIVE, NOT_COUNTED = 'found', 'missed', 'correct', 'false positive', 'not counted'

# From Okabe & Ito's palette for every kind of colour vision (jfly.uni-koeln.de/color): in each panel blue stands
# against one warm colour. What is wrong is hatched too, for print without colour. BGR.
_BLUE, _YELLOW, _VERMILLION, _GREY = (233, 180, 86), (66, 228, 240), (0, 94, 213), (170, 170, 170)
_COLOURS = {FOUND: _BLUE, CORRECT: _BLUE, MISSED: _YELLOW, FALSE_POSITIVE: _VERMILLION, NOT_COUNTED: _GREY}
_HATCHED = (MISSED, FALSE_POSITIVE)
_WHITE = (255, 255, 255)

_OPACITY = 0.4
_LEGIBLE_PX = 768
_NARROWEST_PANEL_PX = 300
_LEGEND_TEXT_PX, _LEGEND_ROW_PX = 15, 21
_GAP_PX = 6

AUGMENTATIONS = ('ToteCropJitter', 'ZoomOutTote', 'ToteCopyPaste', 'ReplaceBackground', 'WarehouseLighting')
_TITLE_PX = 22


class Instance(NamedTuple):
    """An instance to draw: its mask as compressed COCO RLE of any size, and a box x1, y1, x2, y2 in px of the image.

    In a comparison its verdict is ``found``, ``missed`` or, for a prediction, ``correct``, ``false positive``; or
    ``not counted``.
    """

    mask: Mapping[str, Any]
    class_name: str
    score: float | None = None
    verdict: str = ''
    box: Sequence[float] | None = None


def draw_overlay(image: np.ndarray, instances: Sequence[Instance]) -> np.ndarray:
    """Draw instances on their image (H, W, 3) uint8, BGR, each in a colour of its own, with its class and score.

    Classes in :data:`OUTLINED` get an outline, the others are filled as well.

    Returns:
        (H', W', 3) uint8, BGR: the image's size, or enlarged to 768 px on the longer side if it is smaller.
    """
    canvas = resized(image, max(_LEGIBLE_PX, *image.shape[:2]))
    texts = [f'{one.class_name} {one.score:.2f}' if one.score is not None else one.class_name for one in instances]
    return _draw(canvas, instances, distinct_colours(len(instances)), texts, canvas.shape[1] / image.shape[1])


def draw_comparison(
    image: np.ndarray, truth: Sequence[Instance], predictions: Sequence[Instance], title: str, panel_px: int = 640
) -> np.ndarray:
    """Draw ground truth beside prediction, coloured by verdict, under a legend that counts them.

    Each panel is ``panel_px`` on its longer side; ``title`` is put over the predictions.
    """
    panels = []
    sides = ('ground truth', truth, (FOUND, MISSED)), (title, predictions, (CORRECT, FALSE_POSITIVE))
    for heading, instances, verdicts in sides:
        colours = [_COLOURS[one.verdict] for one in instances]
        texts = ['' if one.score is None else f'{one.score:.2f}' for one in instances]
        drawn = _draw(resized(image, panel_px), instances, colours, texts)
        spare = max(_NARROWEST_PANEL_PX - drawn.shape[1], 0) + _GAP_PX
        drawn = cv2.copyMakeBorder(drawn, 2 * _LEGEND_ROW_PX, 0, 0, spare, cv2.BORDER_CONSTANT, value=_WHITE)
        counts = Counter(one.verdict for one in instances)
        shown = [*verdicts, *([NOT_COUNTED] if counts[NOT_COUNTED] else [])]
        width = drawn.shape[1] // len(shown)
        labels: list[Label] = [(heading, _WHITE, (0, 0, drawn.shape[1], _LEGEND_ROW_PX), False)]
        for i, verdict in enumerate(shown):
            place = (i * width, _LEGEND_ROW_PX, width, _LEGEND_ROW_PX)
            labels.append((f'{verdict} {counts[verdict]}', _COLOURS[verdict], place, False))
        panels.append(write_labels(drawn, labels, _LEGEND_TEXT_PX))
    return np.concatenate(panels, axis=1)[:, :-_GAP_PX]


def write_labels(image: np.ndarray, labels: Sequence[Label], text_px: int) -> np.ndarray:
    """Write labels on a picture, each in its box's middle or at a corner, where it covers the least of earlier ones."""
    canvas = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(text_px)
    taken = np.zeros(image.shape[:2], bool)
    for text, colour, (x, y, box_width, box_height), at_corner in labels:
        width, height = round(pen.textlength(text, font=font)) + 4, text_px + 3
        right, bottom = x + box_width - width, y + box_height - height
        places = [((x + right) // 2, (y + bottom) // 2), (x, y), (right, y), (x, bottom), (right, bottom)]
        inside = np.clip(places[at_corner:], 0, np.maximum(np.subtract(canvas.size, (width, height)), 0)).tolist()
        left, top = min(inside, key=lambda place: taken[place[1] :, place[0] :][:height, :width].sum())
        taken[top : top + height, left : left + width] = True
        red, green, blue = colour[::-1]
        ink = 'black' if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else 'white'
        pen.rectangle((left, top, left + width - 1, top + height - 1), fill=(red, green, blue))
        pen.text((left + 2, top + height / 2), text, fill=ink, font=font, anchor='lm')
    return np.asarray(canvas)[..., ::-1]


def distinct_colours(count: int) -> list[Colour]:
    """Bright BGR colours, neighbours in the list far apart in hue, the same for every call."""
    steps = np.arange(max(count, 1))
    hues = (steps * 0.618034) % 1 * 180
    hsv = np.stack([hues, np.where(steps % 2, 150, 235), np.full(len(steps), 255)], axis=1)
    return [(b, g, r) for b, g, r in cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2BGR)[0].tolist()][:count]


def _draw(
    canvas: np.ndarray, instances: Sequence[Instance], colours: Sequence[Colour], texts: Sequence[str], scale: float = 1
) -> np.ndarray:
    """Draw on ``canvas``, the largest instance first, the texts over all of them; return the picture."""
    longest = max(canvas.shape[:2])
    line_px, text_px = max(round(longest / 450), 1), max(round(longest / 62), 11)
    areas = [float(mask_api.area(one.mask)) / np.prod(one.mask['size']) for one in instances]
    labels = []
    for i in sorted(range(len(instances)), key=lambda i: -areas[i]):
        one = instances[i]
        x, y, part = _fitted(one.mask, canvas.shape[:2])
        if not part.size:
            continue
        height, width = part.shape
        is_outline, is_hatched = one.class_name in OUTLINED, one.verdict in _HATCHED
        if not is_outline:
            region, covered = canvas[y : y + height, x : x + width], part > 0
            if is_hatched:
                covered &= np.add.outer(np.arange(height), np.arange(width)) // (4 * line_px) % 2 == 0
            tinted = cv2.addWeighted(region, 1 - _OPACITY, np.full_like(region, colours[i]), _OPACITY, 0)
            np.copyto(region, tinted, where=covered[..., None])
        contours = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))[0]
        thickness = line_px * (2 if is_outline or is_hatched else 1)
        cv2.drawContours(canvas, contours, -1, colours[i], thickness, cv2.LINE_AA)
        if one.box is not None:
            x1, y1, x2, y2 = (round(scale * side) for side in one.box)
            cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colours[i], line_px)
        if texts[i]:
            labels.append((texts[i], colours[i], (x, y, width, height), is_outline))
    return write_labels(canvas, labels, text_px)


def _fitted(mask: Mapping[str, Any], shape: Sequence[int]) -> tuple[int, int, np.ndarray]:
    """The mask scaled to ``shape``: x and y of its box, and the bitmap (h, w) uint8 of 0 and 1 inside.

    Something of a small mask always stays.
    """
    bitmap = mask_api.decode(mask)  # in columns: transposed, OpenCV reads it without a copy
    if bitmap.shape != tuple(shape):
        interpolation = cv2.INTER_AREA if bitmap.shape[0] > shape[0] else cv2.INTER_LINEAR
        grey = cv2.resize(bitmap.T * np.uint8(255), tuple(shape), interpolation=interpolation)
        inside = grey >= 128
        bitmap = (inside if inside.any() else grey > 0).T.astype(np.uint8)
    y, x, height, width = cv2.boundingRect(np.ascontiguousarray(bitmap.T))
    return x, y, np.ascontiguousarray(bitmap[y : y + height, x : x + width])


def resized(image: np.ndarray, longest_px: int) -> np.ndarray:
    """A copy of the image with a longer side of so many pixels."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def pipeline_sheet(config: Config, num: int, columns: int, cell_px: int, seed: int) -> np.ndarray:
    """At most ``num`` samples exactly as the training data set of ``config`` yields them; ``seed`` decides which."""
    data_set, chosen = _chosen_samples(config, num, seed)
    cells, titles = [], []
    for index in chosen:
        np.random.seed(seed + index)  # noqa: NPY002 - the transforms draw from the global state
        packed = data_set[index]
        found, image = packed['data_samples'].gt_instances, packed['inputs'].permute(1, 2, 0)
        image = image.clamp(0, 255).byte().numpy()
        cells.append(draw_sample(image, found.masks, found.bboxes, found.labels, data_set.metainfo['classes']))
        titles.append(f'{index}: {image.shape[1]}x{image.shape[0]}, {len(found)} instances')
    return make_sheet(cells, titles, columns, cell_px)


def augmentation_sheet(config: Config, columns: int, cell_px: int, seed: int) -> np.ndarray:
    """A row for each custom augmentation, always applied, below one of the images as they are."""
    data_set, chosen = _chosen_samples(config, columns, seed)
    np.random.seed(seed)  # noqa: NPY002 - the transforms draw from the global state
    cells, titles = [], []
    for name in ('unchanged', *AUGMENTATIONS):
        step = [TRANSFORMS.build({'type': name, 'prob': 1.0})] if name in AUGMENTATIONS else []
        render = [loading.LazyResize(scale=(512, 512), keep_ratio=True), loading.RenderImage()]
        # The crop comes first, where it gains resolution; the others work on the final image.
        steps = [*step, *render] if name == 'ToteCropJitter' else [*render, *step]
        for index in chosen:
            results = data_set.get_data_info(index)
            for transform in (loading.LoadPolygons(), *steps):
                results = transform(results)
            truth = results['gt_masks'], results['gt_bboxes'], results['gt_bboxes_labels']
            cells.append(draw_sample(results['img'], *truth, data_set.metainfo['classes']))
            titles.append(name)
    return make_sheet(cells, titles, len(chosen), cell_px)


def _chosen_samples(config: Config, num: int, seed: int) -> tuple[Any, list[int]]:
    """The training data set, and ``num`` of its indices, ascending, without repetition."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        data_set = DATASETS.build(dataset_of(config, 'train_dataloader'))
        data_set.full_init()
    size = len(data_set)
    return data_set, sorted(np.random.default_rng(seed).choice(size, min(num, size), replace=False).tolist())


def draw_sample(image: np.ndarray, masks: Any, boxes: Any, labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """A training image (H, W, 3) uint8, BGR, with mmdet's masks and boxes, and classes; small ones are enlarged."""
    codes = mask_api.encode(np.asfortranarray(masks.to_ndarray().transpose(1, 2, 0), np.uint8))
    rows = getattr(boxes, 'tensor', boxes).tolist()
    found = zip(codes, labels, rows, strict=True)
    return draw_overlay(image, [Instance(code, class_names[label], box=box) for code, label, box in found])


def make_sheet(cells: Sequence[np.ndarray], titles: Sequence[str], columns: int, cell_px: int) -> np.ndarray:
    """Pictures (H, W, 3) uint8, BGR, in rows of ``columns``, scaled to a longest side of ``cell_px``, under titles."""
    rows, pitch = [], cell_px + _GAP_PX
    for start in range(0, len(cells), columns):
        pictures = [resized(cell, cell_px) for cell in cells[start : start + columns]]
        height = _TITLE_PX + max(picture.shape[0] for picture in pictures) + _GAP_PX
        row = np.full((height, columns * pitch + _GAP_PX, 3), 255, np.uint8)
        for x, picture, title in zip(range(_GAP_PX, row.shape[1], pitch), pictures, titles[start:], strict=False):
            row[_TITLE_PX : _TITLE_PX + picture.shape[0], x : x + picture.shape[1]] = picture
            where, style = (x + 1, _TITLE_PX - 7), (cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
            cv2.putText(row, title, where, *style)
        rows.append(row)
    return np.concatenate(rows)


def write_sheet(path: Path, sheet: np.ndarray) -> None:
    """Write a sheet to a ``.png`` or ``.jpg`` file; an ``InputError`` if it is of another kind or cannot be written."""
    if not cv2.haveImageWriter(str(path)):
        raise InputError(f'contact sheet must end in .png or .jpg, got {str(path)!r}')
    write_atomically(path, cv2.imencode(path.suffix, sheet, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
