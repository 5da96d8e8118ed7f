"""Whether an exported file says what the model says, on real images: no file without this."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.predictions import shapes_of
from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.evaluation.strata import sized_tables, summary
from armbench_mmdet.export.write import DetectorGraph, write_onnx
from armbench_mmdet.inference.detector import Detector
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime import Prediction

LEAST_INSTANCES = 20
SCORE_TOLERANCE = AP_TOLERANCE = 1e-3
LEAST_IOU = 0.99


@dataclass(frozen=True)
class Parity:
    """A comparison of two detectors.

    Attributes:
        instances: How many pairs were compared.
        images: How many were predicted.
        image: The image that is farthest off.
        score: The largest difference of scores.
        iou: The smallest IoU of two masks.
        ap: The largest difference of any average precision or recall; None without ground truth.
        differences: What is outside the tolerances.
    """

    instances: int
    images: int
    image: Path
    score: float
    iou: float
    ap: float | None
    differences: list[str]

    @property
    def faults(self) -> list[str]:
        """The differences, and whether too little was compared."""
        few = f'this proves nothing: {self.instances} instances were compared, needed are {LEAST_INSTANCES}'
        return [*self.differences, *([few] if self.instances < LEAST_INSTANCES else [])]

    def __str__(self) -> str:
        """The numbers in one line."""
        ap = 'no ground truth' if self.ap is None else f'AP within {self.ap:.1e}'
        found = f'{self.instances} instances of {self.images} images compared'
        return f'{found}: scores within {self.score:.1e}, mask IoU ≥ {self.iou:.4f}, {ap}'


def compare(
    expected: Sequence[Prediction], got: Sequence[Prediction], ground_truth: GroundTruth | None = None
) -> Parity:
    """Compare two predictions of the same images.

    Args:
        expected: The model's.
        got: The file's.
        ground_truth: Of these images and perhaps more, with the classes of the model; or None.
    """
    rows = [_differences(*pair) for pair in zip(expected, got, strict=True)]
    worst = max(rows, key=lambda row: (row[1], row[2] / SCORE_TOLERANCE + (1 - row[3]) / (1 - LEAST_IOU)))
    pairs, alone, scores, ious = zip(*rows, strict=True)
    unpaired, score, iou, ap = sum(alone), max(scores), min(ious), None
    if ground_truth is not None:
        numbers = (_average_precisions(one, ground_truth) for one in (expected, got))
        ap = max((abs(a - b) for a, b in zip(*numbers, strict=True) if a is not None and b is not None), default=0.0)
    outside = {
        f'{unpaired} instances have no counterpart': unpaired,
        f'scores differ by up to {score:.2g}, allowed is {SCORE_TOLERANCE:g}': score > SCORE_TOLERANCE,
        f'masks overlap by as little as IoU {iou:.4f}, needed is {LEAST_IOU:g}': iou < LEAST_IOU,
        f'average precision differs by up to {ap or 0:.2g}, allowed is {AP_TOLERANCE:g}': (ap or 0) > AP_TOLERANCE,
    }
    differences = [fault for fault, is_outside in outside.items() if is_outside]
    return Parity(sum(pairs), len(rows), expected[rows.index(worst)].path, score, iou, ap, differences)


def _differences(a: Prediction, b: Prediction) -> tuple[int, int, float, float]:
    """Pairs, instances without one, the largest difference of scores and the smallest IoU."""
    pairs, score, iou = 0, 0.0, 1.0
    paired = np.zeros(len(a), bool), np.zeros(len(b), bool)
    for label in set(a.labels) & set(b.labels):
        own, other = np.flatnonzero(a.labels == label), np.flatnonzero(b.labels == label)
        overlaps = _overlaps([a.masks[i] for i in own], [b.masks[i] for i in other])
        gaps = np.abs(a.scores[own, None] - b.scores[other])
        rows, columns = linear_sum_assignment(gaps / SCORE_TOLERANCE + (1 - overlaps) / (1 - LEAST_IOU))
        paired[0][own[rows]], paired[1][other[columns]] = True, True
        pairs += len(rows)
        score, iou = max(score, gaps[rows, columns].max()), min(iou, overlaps[rows, columns].min())
    # At the end of a list, of the best hundred or of scores that are high enough, a rounding decides who is in it.
    end = max((one.scores.min() for one in (a, b) if len(one)), default=0.0) + SCORE_TOLERANCE
    alone = sum(int((one.scores[~has] > end).sum()) for one, has in zip((a, b), paired, strict=True))
    return pairs, alone, float(score), float(iou)


def _overlaps(a: list, b: list) -> np.ndarray:
    """IoU of all pairs; masks that differ by no more than one pixel, on which a rounding decides, count as equal."""
    overlaps = np.asarray(coco_mask.iou(a, b, [0] * len(b)))
    own, other = (np.array([coco_mask.area(mask) for mask in masks], np.float64) for masks in (a, b))
    total = own[:, None] + other
    different = total * (1 - overlaps) / (1 + overlaps)
    return np.where(different < 1.5, 1.0, overlaps)


def _average_precisions(predictions: Sequence[Prediction], ground_truth: GroundTruth) -> list[float | None]:
    """COCO's numbers, of masks and of boxes."""
    truth = ground_truth.of_images(one.image_id for one in predictions)
    found = shapes_of([one.for_evaluation() for one in predictions], list(truth.categories))
    numbers: list[float | None] = []
    for kind in ('segm', 'bbox'):
        matching = Matching(truth, found, kind)
        numbers.extend(summary(match_table(matching), sized_tables(matching)).values())
    return numbers


def first_diverging_stage(detector: Detector, image: Path, image_size: tuple[int, int] | None) -> str:
    """The stage at which the file leaves the model, on the way from the image to the instances.

    Args:
        detector: The model.
        image: An image on which they differ.
        image_size: As for :func:`~armbench_mmdet.export.write.write_onnx`.
    """
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / 'stages.onnx'
        write_onnx(detector, file, image_size, with_stages=True)
        exported = ExportedDetector.from_onnx(file, threads=1)
        pixels = exported.pixels(image)[0]
        found = exported.run(pixels)
        stages = DetectorGraph(detector.model, with_stages=True).eval()(torch.from_numpy(pixels.copy()))
    eager = detector.preprocessed(image)
    if eager.shape != stages['input'].shape or not torch.allclose(eager, stages['input'], atol=0.02):
        return 'image (decoding, resizing or normalisation)'
    for name, value in stages.items():
        wanted = value.numpy()
        bound = 1e-3 * np.abs(wanted).max(initial=0)
        if found[name].shape != wanted.shape or np.abs(found[name] - wanted).max(initial=0) > bound:
            return name
    return 'instances (the graph agrees with itself in PyTorch, but not with the model)'
