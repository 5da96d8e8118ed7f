"""Export: an ONNX file that says on real images what the model says, or none."""

import copy
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from armbench_mmdet.datasets.images import find_images
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import val_thresholds
from armbench_mmdet.export.mask2former import make_traceable, mask2former
from armbench_mmdet.export.mask_rcnn import TRANSLATIONS, mask_rcnn
from armbench_mmdet.files import draft_of, sha256_of
from armbench_mmdet.inference import Detector
from armbench_mmdet.minibench import make_minibench
from armbench_mmdet.minibench.scene import MIX
from armbench_mmdet.run_folder import RESULTS
from armbench_mmdet.system import installed_versions
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime import Prediction
from armbench_runtime.detector import FORMAT, METADATA
from armbench_runtime.images import network_size

FAMILIES = {'MaskRCNN': mask_rcnn, 'Mask2Former': mask2former}
OPSET = 18
CHECK_IMAGES, CHECK_SIZE, LEAST_INSTANCES = 8, (256, 320), 20
SCORE_TOLERANCE, LEAST_IOU = 1e-3, 0.99
_FAR = 1e6


class Parity(NamedTuple):
    """A comparison of two detectors: its numbers, what is outside the tolerances, how many pairs, the worst image."""

    line: str
    faults: list[str]
    instances: int
    image: Path


def export(
    detector: Detector, out: Path, size: tuple[int, int] | None, check: list[str] | None = None, force: bool = False
) -> Parity:
    """Write an ONNX file once it is known to say what the model says.

    Args:
        detector: The model, on the CPU.
        out: The file.
        size: Height and width of the images; None for any.
        check: Images to compare on, as :func:`~armbench_mmdet.datasets.images.find_images` takes them. By default a
            few totes are made.
        force: Write the file whatever the comparison says.

    Raises:
        InputError: Model and file differ, or there was too little to compare; nothing is written then.
    """
    with tempfile.TemporaryDirectory() as folder, draft_of(out) as draft:
        if not check:
            sides = dict(zip(('height_px', 'width_px'), size or CHECK_SIZE, strict=True))
            make_minibench(Path(folder), counts={(MIX, 'test'): CHECK_IMAGES}, **sides, workers=1)
            check = [f'{folder}/{MIX}/test.json']
        images = find_images(check)
        write_onnx(detector, draft, size)
        exported = ExportedDetector.from_onnx(draft)
        fixed, scale = exported.metadata['input']['size'], exported.metadata['input']['scale']
        predicted = detector.predict(images, batch_size=1)
        expected = [one for one in predicted if fixed in (None, [*network_size(scale, one.height, one.width)])]
        if not expected:
            raise InputError(f'--check must have images that scale to {fixed[1]}x{fixed[0]} as --size says, got none')
        got = list(exported.predict([one.path for one in expected], ids=[one.image_id for one in expected]))
        parity = compare(expected, got)
        if parity.faults and not force:
            raise InputError(
                f'the exported file must say what the model says, got: {"; ".join(parity.faults)} (worst on '
                f'{parity.image}); nothing is written, unless with --force'
            )
    return parity


def compare(expected: Sequence[Prediction], got: Sequence[Prediction]) -> Parity:
    """Compare a model's predictions with a file's of the same images."""
    rows = np.array([_differences(*pair) for pair in zip(expected, got, strict=True)])
    pairs, alone, scores, ious = rows.T
    worst = int(np.argmax(alone + scores / SCORE_TOLERANCE + (1 - ious) / (1 - LEAST_IOU)))
    count, unpaired, score, iou = int(pairs.sum()), int(alone.sum()), scores.max(), ious.min()
    outside = {
        f'{unpaired} instances have no counterpart': unpaired > 0,
        f'scores differ by up to {score:.2g}, allowed is {SCORE_TOLERANCE:g}': score > SCORE_TOLERANCE,
        f'masks overlap by as little as IoU {iou:.4f}, needed is {LEAST_IOU:g}': iou < LEAST_IOU,
        f'this proves nothing: {count} instances were compared, needed are {LEAST_INSTANCES}': count < LEAST_INSTANCES,
    }
    line = f'{count} instances of {len(rows)} images compared: scores within {score:.1e}, mask IoU ≥ {iou:.4f}'
    return Parity(line, [fault for fault, is_outside in outside.items() if is_outside], count, expected[worst].path)


def _differences(a: Prediction, b: Prediction) -> tuple[int, int, float, float]:
    """Pairs, instances without one, the largest difference of scores and the smallest IoU."""
    gaps = np.abs(a.scores[:, None] - b.scores)
    overlaps = np.reshape(coco_mask.iou(a.masks, b.masks, [0] * len(b)), gaps.shape)
    own, other = (np.asarray(coco_mask.area(one.masks), np.float64) for one in (a, b))
    # On one pixel a rounding decides.
    overlaps[(own[:, None] + other) * (1 - overlaps) / (1 + overlaps) < 1.5] = 1
    costs = gaps / SCORE_TOLERANCE + (1 - overlaps) / (1 - LEAST_IOU) + _FAR * (a.labels[:, None] != b.labels)
    rows, columns = linear_sum_assignment(costs)
    pairs = tuple(places[costs[rows, columns] < _FAR] for places in (rows, columns))
    left = np.concatenate([np.delete(one.scores, places) for one, places in zip((a, b), pairs, strict=True)])
    # At the end of a list, of the best hundred or of scores that are high enough, a rounding decides who is in it.
    end = max((one.scores.min() for one in (a, b) if len(one)), default=0.0) + SCORE_TOLERANCE
    alone = int((left > end).sum())
    return len(pairs[0]), alone, float(gaps[pairs].max(initial=0)), float(overlaps[pairs].min(initial=1))


class DetectorGraph(nn.Module):
    """Normalisation, padding and the network of a Mask R-CNN or Mask2Former of mmdet."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.predict, self.model = FAMILIES[type(model).__name__], copy.deepcopy(model)
        make_traceable(self.model)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Outputs, see docs/export.md, of an image ``(h, w, 3) uint8``, RGB, of the network's size."""
        own = self.model.data_preprocessor
        channels = image.permute(2, 0, 1)
        values = (channels if own._channel_conversion else channels.flip(0)).float()  # no public name says so
        (height, width), divisor = image.shape[:2], own.pad_size_divisor
        # Multiples, not remainders: of these the exporter knows what divides them. And ONNX rounds towards zero.
        right, lower = ((side + divisor - 1) // divisor * divisor - side for side in (width, height))
        pixels = F.pad((values - own.mean) / own.std, (0, right, 0, lower), value=own.pad_value)
        return self.predict(self.model, pixels[None], (height, width))


def write_onnx(detector: Detector, file: Path, image_size: tuple[int, int] | None) -> None:
    """Write a detector as ONNX, without any check.

    Raises:
        InputError: The model or its test pipeline is of a kind that cannot be exported.
    """
    config, checkpoint, family = detector.config, detector.checkpoint, type(detector.model).__name__
    if family not in FAMILIES:
        raise InputError(f'model.type must be one of {", ".join(FAMILIES)} to be exported, got {family!r}')
    steps = config.test_dataloader.dataset.pipeline
    resizes = [step for step in steps if step.type in ('LazyResize', 'Resize')]
    if len(resizes) != 1:
        raise InputError(
            'the test pipeline must resize an image once to be exported, got '
            f'{", ".join(step.type for step in steps)} (in {config.filename})'
        )
    width, height = resizes[0].scale
    scale = {'width': width, 'height': height, 'keep_ratio': resizes[0].get('keep_ratio', False)}
    scale['reduced_decoding'] = any(step.type == 'RenderImage' and step.get('reduced_decoding', True) for step in steps)
    size, digest = network_size(scale, *image_size) if image_size else None, sha256_of(checkpoint)
    config_digest = hashlib.sha256(config.pretty_text.encode()).hexdigest()
    metadata = {
        'format': FORMAT,
        'classes': detector.classes,
        'config': {'name': Path(config.filename).name, 'sha256': config_digest},
        'checkpoint': {'name': checkpoint.name, 'sha256': digest},
        'input': {'channels': 'RGB', 'size': size, 'scale': scale},
        'mask_threshold': config.model.test_cfg.get('rcnn', {}).get('mask_thr_binary', 0.5),
        'thresholds': val_thresholds(checkpoint.parent / RESULTS, digest),
        'versions': installed_versions(('armbench-mmdet', 'torch', 'onnx', 'onnxscript', 'onedl-mmdetection')),
    }
    image = torch.zeros((*(size or CHECK_SIZE), 3), dtype=torch.uint8)
    free = {} if size else dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(DetectorGraph(detector.model).eval(), (image,), dynamic_shapes={'image': free})
        names = program.call_spec.out_spec.context
        options: dict[str, Any] = {'opset_version': OPSET, 'custom_translation_table': TRANSLATIONS, 'verbose': False}
        exported: Any = torch.onnx.export(program, input_names=['image'], output_names=names, **options)
    exported.model.metadata_props[METADATA] = json.dumps(metadata)
    onnx_ir.save(exported.model, file)
