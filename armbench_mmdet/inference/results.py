"""The output of an inference: overlays and COCO results, in one folder.

- ``overlays/…jpg``: each image with its instances drawn on it, under its path below the folder that all images share.
- ``results.segm.json`` and ``results.bbox.json``: COCO results (``image_id``, ``category_id``, ``score`` and
  ``segmentation`` or ``bbox``) of the instances with at least the score threshold. An average precision needs them
  all: threshold 0.
- ``images.json``: what the ids mean, as a COCO file without annotations (``pycocotools.coco.COCO`` loads it, and its
  ``loadRes`` the results): ``images`` with ``id``, ``file_name`` as found, ``width``, ``height`` and ``overlay``;
  ``categories``; ``info`` with config, checkpoint and threshold; ``left_out`` with ``file_name`` and ``reason``.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
from tqdm import tqdm

from armbench_mmdet.datasets.images import Inputs, find_images, folder_of_images
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.predictions import shapes_of, write_coco_results
from armbench_mmdet.files import write_atomically
from armbench_mmdet.inference.detector import Detector
from armbench_runtime import Detector as ExportedDetector

JPEG_QUALITY = 90


class Inference(NamedTuple):
    """How many images were predicted, how many instances reached the threshold, and why what was left out was."""

    images: int
    instances: int
    left_out: dict[str, str]


def infer(
    detector: Detector | ExportedDetector,
    inputs: Inputs,
    out_dir: Path,
    score_threshold: float = 0.5,
    batch_size: int | None = None,
) -> Inference:
    """Predict images and write overlays and COCO results, see the module; a bar with an ETA goes to standard error.

    Earlier overlays in ``out_dir`` are not predicted; files of an earlier inference there are replaced.

    Raises:
        InputError: No image could be read, the threshold is no score, or ``out_dir`` cannot be written.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f'score threshold must be from 0 to 1, got {score_threshold!r}')
    found = find_images(inputs, skip=out_dir / 'overlays')
    left_out = dict(found.left_out)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    common = os.path.commonpath([os.path.abspath(path.parent) for path in found.paths])
    # In a log, a line every quarter of a minute.
    often_s = 0.2 if sys.stderr.isatty() else 15.0
    try:
        with tqdm(total=len(found.paths), desc='infer', unit='img', mininterval=often_s) as bar:

            def report(path: str, reason: str) -> None:
                left_out[path] = reason
                bar.update(path not in found.left_out)

            if isinstance(detector, Detector):
                predictions = detector.predict(found, batch_size, report)
            else:
                predictions = detector.predict(found.paths, score_threshold, found.ids, report)
            for prediction in predictions:
                kept = prediction.above(score_threshold)
                rows.append(kept.for_evaluation())
                place = overlay_path(kept.path, common)
                (out_dir / place).parent.mkdir(parents=True, exist_ok=True)
                jpeg = cv2.imencode('.jpg', kept.overlay(), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
                (out_dir / place).write_bytes(jpeg.tobytes())
                size = {'width': kept.width, 'height': kept.height}
                images.append({'id': kept.image_id, 'file_name': str(kept.path), **size, 'overlay': place.as_posix()})
                bar.update()
        if not images:
            faults = '; '.join(f'{name}: {reason}' for name, reason in list(left_out.items())[:5])
            raise InputError(f'images must be readable, got none of {len(left_out)} that is: {faults}')
        detections = shapes_of(rows, category_ids(detector.classes))
        for kind in ('segm', 'bbox'):
            write_coco_results(out_dir / f'results.{kind}.json', detections, kind)
        _write_index(out_dir, detector, images, left_out, score_threshold)
    except OSError as error:
        raise InputError(f'--out must be a folder that can be written, got {str(out_dir)!r}: {error}') from error
    return Inference(len(images), sum(len(row['scores']) for row in rows), left_out)


def predict_file(model: Path, ann_file: Path, image_folder: Path, out: Path) -> None:
    """Predict the images of a COCO file with an exported model, and write COCO results for an evaluation.

    Raises:
        InputError: Model or COCO file cannot be read.
    """
    detector, found = ExportedDetector.from_onnx(model), find_images(str(ann_file))
    usual = folder_of_images(ann_file)
    paths = [image_folder / path.relative_to(usual) for path in found.paths]
    bar = tqdm(detector.predict(paths, ids=found.ids), desc='predict', unit='img', total=len(paths), mininterval=15.0)
    # Classes by name: ids are the annotation file's own.
    write_coco_results(out, shapes_of([one.for_evaluation() for one in bar], detector.classes), 'segm')


def overlay_path(path: Path, common: str) -> Path:
    """Where the overlay of an image goes below the output folder: as the image below the folder common to all."""
    place = Path('overlays') / os.path.relpath(os.path.abspath(path), common)
    return place if place.suffix == '.jpg' else place.with_name(f'{place.name}.jpg')


def category_ids(classes: Sequence[str]) -> list[int]:
    """The COCO category id of each label: as in the ground truth, else counted from 1."""
    known = set(classes) <= set(CLASSES)
    return [CLASSES.index(name) + 1 if known else label for label, name in enumerate(classes, 1)]


def _write_index(
    out_dir: Path,
    detector: Detector | ExportedDetector,
    images: list[dict[str, Any]],
    left_out: dict[str, str],
    score_threshold: float,
) -> None:
    categories = zip(category_ids(detector.classes), detector.classes, strict=True)
    if isinstance(detector, Detector):
        model = {'config': str(detector.config.filename), 'checkpoint': str(detector.checkpoint)}
    else:
        model = {'model': str(detector.path)}
    index: dict[str, Any] = {
        'info': {**model, 'score_threshold': score_threshold},
        'images': images,
        'categories': [{'id': number, 'name': name} for number, name in categories],
        'left_out': [{'file_name': name, 'reason': reason} for name, reason in left_out.items()],
    }
    write_atomically(out_dir / 'images.json', msgspec.json.format(msgspec.json.encode(index), indent=2) + b'\n')
