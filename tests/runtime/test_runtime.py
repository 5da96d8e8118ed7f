"""The runtime alone: no torch, the decoder's pixels, the model's masks, and one message for whatever is wrong."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from armbench_mmdet.datasets.images import decode_image
from armbench_mmdet.masks.upsample import encode_boxed_masks, upsample_masks
from armbench_runtime import Detector, InputError
from armbench_runtime.images import read_image, resized
from armbench_runtime.masks import pasted

HEAVY = ('torch', 'mmdet', 'mmengine', 'mmcv', 'numba', 'cv2', 'armbench_mmdet')


def test_importing_it_loads_nothing_heavy() -> None:
    code = f'import sys, armbench_runtime; print([name for name in {HEAVY} if name in sys.modules])'
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip() == '[]'


@pytest.mark.parametrize('seed', range(8))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(30):
        bitmap = generator.random(generator.integers(1, 70, 2)) < generator.random() * 1.2
        code, values = pasted(bitmap.astype(np.float32), (0, 0, *bitmap.shape[::-1]), bitmap.shape, 0.5)
        expected = coco_mask.encode(np.asfortranarray(bitmap))
        assert code == {'size': list(bitmap.shape), 'counts': expected['counts'].decode()}
        assert len(values) == bitmap.sum()


def test_masks_in_boxes_are_the_models() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((40, 28, 28), np.float32)
    corners = np.sort(generator.uniform(-20, 220, (40, 2, 2)), axis=1).astype(np.float32)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], 1)
    boxes[0, 2:] = boxes[0, :2]  # without extent
    boxes[1, 3] = boxes[1, 1]  # without height
    expected = encode_boxed_masks(torch.from_numpy(masks), torch.from_numpy(boxes), 170, 200)
    for mask, box, other in zip(masks, boxes, expected, strict=True):
        cell = (box[2:] - box[:2]) / 28
        code, _ = pasted(np.pad(mask, 1), (*(box[:2] - cell), *(box[2:] + cell)), (170, 200), 0.5)
        assert (coco_mask.decode(code) != coco_mask.decode(other)).sum() <= 1


@pytest.mark.parametrize('size', [(97, 130), (512, 640), (20, 24)])
def test_masks_of_images_are_the_models(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(-0.5, 1, (6, 32, 40)).astype(np.float32)
    logits[0] = -1
    logits[1, 10:] = logits[2, :, :20] = -1
    expected = upsample_masks(list(torch.from_numpy(logits)), size)
    for own, other in zip(logits, expected, strict=True):
        code, sure = pasted(own, (0, 0, *size[::-1]), size, 0)
        assert (coco_mask.decode(code) != coco_mask.decode(other.rle)).sum() <= 1
        assert (1 / (1 + np.exp(-sure))).sum() / (len(sure) + 1e-6) == pytest.approx(other.score, abs=1e-5)


@pytest.mark.parametrize('size', [(51, 77), (100, 130), (50, 65), (400, 300), (1, 1)])
def test_images_are_resized_as_by_opencv(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 130, 3), np.uint8)
    np.testing.assert_array_equal(resized(image, *size), cv2.resize(image, size[::-1]))


@pytest.mark.parametrize('reduction', [1, 2, 4, 8])
def test_jpegs_are_decoded_as_by_opencv(reduction: int, minibench_root: Path) -> None:
    path = next((minibench_root / 'mix-object-tote/images').glob('*.jpg'))
    scale = {'width': 160 // reduction, 'height': 160 // reduction, 'keep_ratio': True, 'reduced_decoding': True}
    image, (height, width) = read_image(path, scale)
    np.testing.assert_array_equal(image[..., ::-1], decode_image(path.read_bytes(), path, reduction))
    assert Image.open(path).size == (width, height)


def test_images_of_other_kinds_are_read_as_by_opencv(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (20, 30, 4), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6  # shown turned by 90° clockwise
    Image.fromarray(colours).save(tmp_path / 'transparent.png')
    Image.fromarray(colours[..., 0]).save(tmp_path / 'grey.png')
    Image.fromarray(colours[..., :3]).save(tmp_path / 'turned.png', exif=exif)
    cv2.imwrite(str(tmp_path / 'deep.png'), generator.integers(0, 65536, (20, 30), np.uint16))
    for path in tmp_path.iterdir():
        image, size = read_image(path)
        np.testing.assert_array_equal(image[..., ::-1], decode_image(path.read_bytes(), path), str(path))
        assert image.shape[:2] == size


@pytest.mark.parametrize('content', [None, '', 'no model'])
def test_a_file_that_is_no_model_is_refused(content: str | None, tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    if content is not None:
        (tmp_path / 'a.onnx').write_text(content)
    with pytest.raises(InputError, match=r'must be an ONNX file that onnxruntime .* runs, got .*a\.onnx'):
        Detector.from_onnx(tmp_path / 'a.onnx')


@pytest.mark.parametrize(
    ('opset', 'metadata', 'message'),
    [
        (18, {}, "must have the metadata 'armbench' of format 3, as tools/export.py writes them, got None"),
        (18, {'armbench': '{"format": 9}'}, 'of format 3, .* got 9 .*: export it again'),
        (999, {}, r'that onnxruntime .* runs, got .*opset'),
    ],
)
def test_a_model_of_another_kind_is_refused(opset: int, metadata: dict, message: str, tmp_path: Path) -> None:
    helper = pytest.importorskip('onnx').helper
    tensors = [helper.make_tensor_value_info(name, 1, [1]) for name in ('x', 'y')]
    graph = helper.make_graph([helper.make_node('Neg', ['x'], ['y'])], 'g', tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=10)
    helper.set_model_props(model, metadata)
    (tmp_path / 'model.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=message):
        Detector.from_onnx(tmp_path / 'model.onnx')
