"""What an inference leaves behind: overlays and COCO results, in one folder.

- ``overlays/…jpg``: each image with its instances drawn on it, under its path below the folder that all images share.
- ``results.segm.json`` and ``results.bbox.json``: COCO results (``image_id``, ``category_id``, ``score`` and
  ``segmentation`` or ``bbox``) of the instances with at least the score threshold. An average precision needs them
  all: threshold 0.
- ``images.json``: what the ids mean, as a COCO file without annotations (``pycocotools.coco.COCO`` loads it, and its
  ``loadRes`` the results): ``images`` with ``id``, ``file_name`` as found, ``width``, ``height`` and ``overlay``;
  ``categories``; ``info`` with config, checkpoint and threshold; ``left_out`` with ``file_name`` and ``reason``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
from tqdm import tqdm

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.predictions import coco_detections, write_coco_results
from armbench_mmdet.inference.detector import Detector, Prediction
from armbench_mmdet.inference.images import find_images

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Inference:
    """How an inference went.

    Attributes:
        images: How many were predicted.
        instances: How many instances reached the threshold.
        left_out: Reason by image or input that was not predicted.
    """

    images: int
    instances: int
    left_out: dict[str, str]


def infer(
    detector: Detector,
    inputs: str | Path | Iterable[str | Path],
    out_dir: Path,
    score_threshold: float = 0.5,
    batch_size: int | None = None,
) -> Inference:
    """Predict images and write overlays and COCO results, see the module; a bar with an ETA goes to standard error.

    Args:
        detector: The model.
        inputs: Files, folders and patterns; earlier overlays in ``out_dir`` that lie below a folder are not taken.
        out_dir: Made if need be; files of an earlier inference in it are replaced.
        score_threshold: Instances below it are neither drawn nor written.
        batch_size: As for :meth:`~armbench_mmdet.inference.detector.Detector.predict`.

    Raises:
        InputError: No image could be read, the threshold is no score, or ``out_dir`` cannot be written.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f'score threshold must be from 0 to 1, got {score_threshold!r}')
    found = find_images(inputs, skip=out_dir / 'overlays')
    left_out = dict(found.left_out)
    overlays = overlay_paths(found.paths)
    predictions: list[Prediction] = []
    try:
        (out_dir / 'overlays').mkdir(parents=True, exist_ok=True)
        with _progress(len(found.paths)) as bar:

            def report(path: str, reason: str) -> None:
                left_out[path] = reason
                bar.update()

            for prediction in detector.predict(found.paths, batch_size, report):
                predictions.append(prediction.above(score_threshold))
                _write_overlay(out_dir / overlays[prediction.path], predictions[-1])
                bar.update()
        if not predictions:
            faults = '; '.join(f'{name}: {reason}' for name, reason in list(left_out.items())[:5])
            raise InputError(f'images must be readable, got none of {len(left_out)} that is: {faults}')
        _write_results(out_dir, detector, predictions, left_out, overlays, score_threshold)
    except OSError as error:
        raise InputError(f'--out must be a folder that can be written, got {str(out_dir)!r}: {error}') from error
    return Inference(len(predictions), sum(map(len, predictions)), left_out)


def overlay_paths(paths: Sequence[Path]) -> dict[Path, Path]:
    """Where the overlay of each image goes below the output folder; no two share a place.

    Images keep their folders below the deepest one that all are in. Names that differ only in their suffix, or in
    upper and lower case, get a number.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in absolute])
    taken: set[str] = set()
    places = {}
    for path, whole in zip(paths, absolute, strict=True):
        place, number = whole.relative_to(common).with_suffix('.jpg'), 1
        while str(place).casefold() in taken:
            number += 1
            place = place.with_name(f'{whole.stem}-{number}.jpg')
        taken.add(str(place).casefold())
        places[path] = Path('overlays') / place
    return places


def category_ids(classes: Sequence[str]) -> list[int]:
    """The COCO category id of each label: as in the ground truth, else counted from 1."""
    known = set(classes) <= set(CLASSES)
    return [CLASSES.index(name) + 1 if known else label for label, name in enumerate(classes, 1)]


def _write_overlay(path: Path, prediction: Prediction) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    jpeg = cv2.imencode('.jpg', prediction.overlay(), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    path.write_bytes(jpeg.tobytes())


def _write_results(
    out_dir: Path,
    detector: Detector,
    predictions: Sequence[Prediction],
    left_out: dict[str, str],
    overlays: dict[Path, Path],
    score_threshold: float,
) -> None:
    ids = category_ids(detector.classes)
    evaluated = [
        {'img_id': one.image_id, 'bboxes': one.boxes, 'scores': one.scores, 'labels': one.labels, 'masks': one.masks}
        for one in predictions
    ]
    for iou_type in ('segm', 'bbox'):
        write_coco_results(out_dir / f'results.{iou_type}.json', coco_detections(evaluated, ids, iou_type))
    index: dict[str, Any] = {
        'info': {
            'config': str(detector.config.filename),
            'checkpoint': str(detector.checkpoint),
            'score_threshold': score_threshold,
        },
        'images': [
            {
                'id': one.image_id,
                'file_name': str(one.path),
                'width': one.width,
                'height': one.height,
                'overlay': overlays[one.path].as_posix(),
            }
            for one in predictions
        ],
        'categories': [{'id': number, 'name': name} for number, name in zip(ids, detector.classes, strict=True)],
        'left_out': [{'file_name': name, 'reason': reason} for name, reason in left_out.items()],
    }
    (out_dir / 'images.json').write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2) + b'\n')


def _progress(images: int) -> tqdm:
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=images,
        desc='infer',
        unit='img',
        dynamic_ncols=is_terminal,
        ncols=None if is_terminal else 100,
        mininterval=0.2 if is_terminal else 15.0,
        ascii=None if is_terminal else ' #',
    )
