"""The ONNX file of a detector: from the pixels of an image to instances with small masks."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import onnx_ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.export.mask2former import Mask2FormerGraph
from armbench_mmdet.export.mask_rcnn import MaskRCNNGraph
from armbench_mmdet.export.operators import TRANSLATIONS
from armbench_mmdet.export.swin import trace_windows
from armbench_mmdet.files import sha256_of
from armbench_mmdet.inference import Detector
from armbench_mmdet.run_folder import RESULTS
from armbench_mmdet.system import installed_versions
from armbench_runtime.detector import FORMAT, METADATA
from armbench_runtime.images import network_size

OPSET = 18
_EXAMPLE = (256, 320)
FAMILIES = {'MaskRCNN': MaskRCNNGraph, 'Mask2Former': Mask2FormerGraph}


class DetectorGraph(nn.Module):
    """Normalisation, padding and the network.

    Args:
        model: mmdet's Mask R-CNN or Mask2Former.
        with_stages: Give what is computed on the way, too.

    Raises:
        InputError: The model is of another type.
    """

    def __init__(self, model: Any, with_stages: bool = False) -> None:
        super().__init__()
        family = type(model).__name__
        if family not in FAMILIES:
            raise InputError(f'model.type must be one of {", ".join(FAMILIES)} to be exported, got {family!r}')
        self.network = FAMILIES[family](copy.deepcopy(model))
        trace_windows(self.network)
        self.preprocessor = model.data_preprocessor
        self.with_stages = with_stages

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Predict one image.

        Args:
            image: ``(H, W, 3) uint8``, RGB, at the size at which the network sees it.

        Returns:
            The outputs of the file, see docs/export.md; before them the stages on the way, in order, if asked for.
        """
        own = self.preprocessor
        channels = image.permute(2, 0, 1)
        values = (channels if own._channel_conversion else channels.flip(0)).float()  # no public name says so
        (height, width), divisor = image.shape[:2], own.pad_size_divisor
        # Multiples, not remainders: of these the exporter knows what divides them. And ONNX rounds towards zero.
        right, lower = ((side + divisor - 1) // divisor * divisor - side for side in (width, height))
        border = 0, right, 0, lower
        pixels = F.pad((values - own.mean) / own.std, border, value=own.pad_value)
        outputs, stages = self.network(pixels[None], *image.shape[:2])
        return {'input': pixels, **stages, **outputs} if self.with_stages else outputs


def write_onnx(detector: Detector, file: Path, image_size: tuple[int, int] | None, with_stages: bool = False) -> None:
    """Write a detector as ONNX, without any check.

    Args:
        detector: The detector.
        file: To write.
        image_size: Height and width of the images; None for any.
        with_stages: Give what is computed on the way as outputs too.

    Raises:
        InputError: The model or its test pipeline is of a kind that cannot be exported.
    """
    steps = detector.config.test_dataloader.dataset.pipeline
    resizes = [step for step in steps if step.type in ('LazyResize', 'Resize')]
    if len(resizes) != 1:
        raise InputError(
            'the test pipeline must resize an image once to be exported, got '
            f'{", ".join(step.type for step in steps)} (in {detector.config.filename})'
        )
    width, height = resizes[0].scale
    scale = {
        'width': width,
        'height': height,
        'keep_ratio': resizes[0].get('keep_ratio', False),
        'reduced_decoding': any(step.type == 'RenderImage' and step.get('reduced_decoding', True) for step in steps),
    }
    size = network_size(scale, *image_size) if image_size else None
    graph = DetectorGraph(detector.model, with_stages).eval()
    image = torch.randint(0, 256, (*(size or _EXAMPLE), 3), dtype=torch.uint8)
    free = {} if size else dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        names = list(graph(image))
        exported: Any = torch.onnx.export(
            torch.export.export(graph, (image,), dynamic_shapes={'image': free}),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            input_names=['image'],
            output_names=names,
        )
    divisor = detector.model.data_preprocessor.pad_size_divisor
    contract = {'channels': 'RGB', 'size': size, 'divisor': divisor, 'scale': scale}
    exported.model.metadata_props[METADATA] = json.dumps({**_identity(detector), 'input': contract})
    onnx_ir.save(exported.model, file)


def _identity(detector: Detector) -> dict[str, Any]:
    model_cfg, sha256 = detector.config.model.test_cfg, sha256_of(detector.checkpoint)
    config_sha256 = hashlib.sha256(detector.config.pretty_text.encode()).hexdigest()
    return {
        'format': FORMAT,
        'classes': detector.classes,
        'config': {'name': Path(detector.config.filename).name, 'sha256': config_sha256},
        'checkpoint': {'name': detector.checkpoint.name, 'sha256': sha256},
        'mask_threshold': model_cfg.get('rcnn', {}).get('mask_thr_binary', 0.5),
        'thresholds': _operating_thresholds(detector.checkpoint, sha256),
        'versions': installed_versions(('armbench-mmdet', 'torch', 'onnx', 'onnxscript', 'onedl-mmdetection')),
    }


def _operating_thresholds(checkpoint: Path, sha256: str) -> dict[str, float]:
    """The best threshold of each class on ``val``, if a result of this checkpoint lies beside it."""
    for file in sorted((checkpoint.parent / RESULTS).glob('*_val.json')):
        result = read_result(file)
        if result.identity.extra.get('checkpoint_sha256') == sha256:
            return {name: one.best.threshold for name, one in (result.operation or {}).items() if one.best}
    return {}
