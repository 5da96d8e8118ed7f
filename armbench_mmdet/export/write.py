"""The ONNX file of a detector."""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.export.graph import DetectorGraph
from armbench_mmdet.export.operators import TRANSLATIONS
from armbench_mmdet.files import sha256_of
from armbench_mmdet.inference.detector import Detector
from armbench_mmdet.run_folder import RESULTS
from armbench_mmdet.system import installed_versions
from armbench_runtime.detector import FORMAT, METADATA
from armbench_runtime.images import ImageScale

OPSET = 18
_SMALL = 1024
_RESIZES, _READERS = ('LazyResize', 'Resize'), ('RenderImage', 'LoadImageFromFile')
_WITHOUT_EFFECT = ('LoadPolygons', 'LoadAnnotations', 'PackDetInputs')


def write_onnx(
    detector: Detector,
    file: Path,
    image_size: tuple[int, int] | None,
    resizing: str = 'inside',
    half: bool = False,
    with_stages: bool = False,
) -> None:
    """Write a detector as ONNX, without any check.

    Args:
        detector: The detector.
        file: To write.
        image_size: Height and width of the images; None for any, which are then resized outside.
        resizing: ``inside`` or ``outside`` of the file.
        half: Store the weights in half precision.
        with_stages: Give the stages on the way as outputs too.

    Raises:
        InputError: The model or its test pipeline is of a kind that cannot be exported.
    """
    scale = scale_of(detector)
    network_size = ImageScale(**scale).network_size(*image_size) if image_size else None
    inside = network_size is not None and resizing == 'inside'
    graph = DetectorGraph(detector.model, network_size if inside else None).eval()
    height, width = image_size if image_size and inside else network_size or (256, 320)
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    is_free = inside or network_size is None
    shapes = {'image': {0: dynamic, 1: dynamic} if is_free else {}}
    with torch.no_grad(), _quiet():
        outputs, stages = graph(image)
        program = torch.export.export(_Outputs(graph, with_stages), (image,), dynamic_shapes=shapes)
        onnx: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            input_names=['image'],
            output_names=[*outputs, *(stages if with_stages else ())],
        )
    model = onnx.model
    if half:
        _halve(model)
    contract = {
        'channels': 'RGB',
        'resizing': 'inside' if inside else 'outside',
        'size': network_size,
        'divisor': detector.model.data_preprocessor.pad_size_divisor,
        'scale': scale,
    }
    model.metadata_props[METADATA] = json.dumps({**_identity(detector), 'input': contract, 'half': half})
    onnx_ir.save(model, file)


class _Outputs(torch.nn.Module):
    def __init__(self, graph: DetectorGraph, with_stages: bool) -> None:
        super().__init__()
        self.whole, self.with_stages = graph, with_stages

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs, stages = self.whole(image)
        return {**outputs, **stages} if self.with_stages else outputs


def scale_of(detector: Detector) -> dict[str, Any]:
    """The arguments of :class:`~armbench_runtime.images.ImageScale` for a detector's test pipeline.

    Raises:
        InputError: It does something else than to read and resize.
    """
    steps = detector.config.test_dataloader.dataset.pipeline
    resizes = [step for step in steps if step.type in _RESIZES]
    other = [step.type for step in steps if step.type not in (*_RESIZES, *_READERS, *_WITHOUT_EFFECT)]
    if other or len(resizes) != 1:
        raise InputError(
            'the test pipeline must read an image and resize it once to be exported, got '
            f'{", ".join(step.type for step in steps)} (in {detector.config.filename})'
        )
    width, height = resizes[0].scale
    reduced = any(step.type == 'RenderImage' and step.get('reduced_decoding', True) for step in steps)
    keep_ratio = resizes[0].get('keep_ratio', False)
    return {'width': width, 'height': height, 'keep_ratio': keep_ratio, 'reduced_decoding': reduced}


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


def _halve(model: onnx_ir.Model) -> None:
    """Store weights in half precision; a Cast brings each back to single, which the network computes in."""
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < _SMALL:
            continue
        stored = onnx_ir.Value(
            name=f'{name}.half',
            shape=value.shape,
            type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT16),
            const_value=onnx_ir.tensor(tensor.numpy().astype(np.float16), name=f'{name}.half'),
        )
        cast = onnx_ir.node('Cast', [stored], attributes={'to': onnx_ir.DataType.FLOAT})
        graph.initializers.pop(name)
        graph.register_initializer(stored)
        graph.insert_before(graph[0], cast)
        value.replace_all_uses_with(cast.outputs[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of operators that are not used here."""
    exporter, folding = logging.getLogger('torch.onnx'), logging.getLogger('onnxscript')
    levels = exporter.level, folding.level
    exporter.setLevel(logging.ERROR)
    folding.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        exporter.setLevel(levels[0])
        folding.setLevel(levels[1])
