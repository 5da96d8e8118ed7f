"""An exported file says what the model says, or there is none; and the runtime and the tools take it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import LEAVES, REPO, VARIED, write_weights

pytest.importorskip('onnxscript', reason='the extra onnx of the package')
from armbench_mmdet.configs import load_config
from armbench_mmdet.errors import InputError
from armbench_mmdet.export.mask_rcnn import OPERATORS, TRANSLATIONS
from armbench_mmdet.export.onnx import compare, export
from armbench_mmdet.inference import Detector, infer
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime.images import read_image

SIZE = (128, 160)  # height and width of most images of the tests' minibench
NMS = OPERATORS.nms.default
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]
FULL = ('mask-rcnn_r50_fpn_1x_armbench-mix', 'mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_armbench-mix')


def untrained_detector(name: str, folder: Path) -> Detector:
    """A detector by ``mask_rcnn`` or ``mask2former``, which are small, or by the name of a config."""
    config = load_config(LEAVES.get(name, name))
    config.model.backbone.init_cfg = None
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    if name not in LEAVES:
        config.test_dataloader.dataset.pipeline[1].scale = (320, 256)
    return Detector(config, write_weights(config, folder / f'{name}.pth', VARIED), 'cpu')


@pytest.fixture(scope='module')
def photos(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, two of :data:`SIZE`, an upright and a wide one."""
    folder = tmp_path_factory.mktemp('photos')
    paths = sorted((minibench_root / 'mix-object-tote/images').glob('*.jpg'))
    for number, (height, width) in enumerate((SIZE, SIZE, SIZE[::-1], (72, 160))):
        Image.open(paths[number]).resize((width, height)).save(folder / f'{number}.jpg')
    return folder


@pytest.fixture(scope='module')
def exported(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportedDetector:
    """A Mask R-CNN's file for images of one size, which says what the model says."""
    folder = tmp_path_factory.mktemp('exported')
    export(untrained_detector('mask_rcnn', folder), folder / 'mask_rcnn.onnx', SIZE, [str(photos)])
    return ExportedDetector.from_onnx(folder / 'mask_rcnn.onnx')


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('mask2former', SIZE),
        *(pytest.param(name, None, marks=SLOW) for name in ('mask_rcnn', 'mask2former', *FULL)),
        *(pytest.param(name, (256, 320), marks=SLOW) for name in FULL),
    ],
)
def test_the_file_says_what_the_model_says(name: str, size: Any, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr('armbench_mmdet.export.onnx.CHECK_IMAGES', 2)
    detector, out = untrained_detector(name, tmp_path), tmp_path / 'out/model.onnx'
    parity = export(detector, out, size, None if size == (256, 320) else [str(photos)])
    assert parity.faults == []
    assert parity.instances >= 100
    assert list(out.parent.iterdir()) == [out]


def test_every_difference_is_seen(exported: ExportedDetector, photos: Path) -> None:
    (one,) = exported.predict(photos / '0.jpg')
    assert compare([one], [one]).faults == []
    assert compare([one], [one]).line.startswith(f'{len(one)} instances of 1 images compared: scores within 0')
    without_best = replace(one, **{key: getattr(one, key)[1:] for key in ('boxes', 'scores', 'labels', 'masks')})
    for expected, changed, fault in (
        (one, replace(one, scores=one.scores + np.float32(0.01)), 'scores differ by up to 0.0'),
        (one, replace(one, masks=one.masks[:1] * len(one)), 'masks overlap by as little as IoU'),
        (one, without_best, '1 instances have no counterpart'),
        (one.above(float(one.scores[1])), one, 'this proves nothing: '),
    ):
        assert any(said.startswith(fault) for said in compare([expected], [changed]).faults), fault


@pytest.mark.slow
def test_a_file_that_differs_is_not_written_unless_it_must(photos: Path, tmp_path: Path, monkeypatch) -> None:
    def without_suppression(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
        return TRANSLATIONS[NMS](boxes, scores, 1.0, limit)

    monkeypatch.setattr('armbench_mmdet.export.onnx.TRANSLATIONS', {**TRANSLATIONS, NMS: without_suppression})
    detector, out, check = untrained_detector('mask_rcnn', tmp_path), tmp_path / 'a/model.onnx', [str(photos)]
    with pytest.raises(InputError, match=r'model says, got: .* \(worst on .*\.jpg\); nothing is written.*force'):
        export(detector, out, SIZE, check=check)
    assert list(out.parent.iterdir()) == []
    assert export(detector, out, SIZE, check=check, force=True).faults
    assert out.is_file()


def test_the_file_says_what_it_is(exported: ExportedDetector) -> None:
    assert exported.classes == ('tote', 'object')
    assert exported.metadata['checkpoint']['name'] == 'mask_rcnn.pth'
    assert len(exported.metadata['config']['sha256']) == 64
    assert exported.metadata['input']['channels'] == 'RGB'
    assert exported.metadata['thresholds'] == {}


def test_files_and_arrays_give_the_same_prediction(exported: ExportedDetector, photos: Path) -> None:
    image = photos / '0.jpg'
    (of_file,), (of_array,) = exported.predict(image), exported.predict(read_image(image)[0])
    assert of_file.masks == of_array.masks
    assert (of_file.path, of_array.path) == (image, Path())
    (sure,) = exported.predict(image, min_score=0.9)
    assert 0 < len(sure) < len(of_file)
    np.testing.assert_array_equal(sure.scores, of_file.above(0.9).scores)


def test_what_cannot_be_predicted_is_said(exported: ExportedDetector, photos: Path, tmp_path: Path) -> None:
    files = [tmp_path / 'broken.jpg', tmp_path / 'nowhere.jpg', photos / '0.jpg']
    files[0].write_bytes(files[2].read_bytes()[:500])
    said: dict[str, str] = {}
    assert [one.image_id for one in exported.predict(files, report=said.__setitem__)] == [3]
    assert [Path(name).name for name in said] == ['broken.jpg', 'nowhere.jpg']
    with pytest.warns(UserWarning, match='nowhere.jpg is left out: image must be readable'):
        assert list(exported.predict(files[1])) == []
    with pytest.raises(InputError, match=r'image must be \(H, W, 3\) uint8, got \(3, 4\) float64'):
        list(exported.predict(np.zeros((3, 4))))
    with pytest.raises(InputError, match=r'of a size that scales to 320x256, .* got 30x40 .*--size 40 30, or'):
        list(exported.predict(np.zeros((40, 30, 3), np.uint8)))


def test_infer_takes_it(exported: ExportedDetector, photos: Path, tmp_path: Path) -> None:
    done = infer(exported, photos / '0.jpg', tmp_path / 'out', score_threshold=0.9)
    index = json.loads((tmp_path / 'out/images.json').read_text())
    assert (done.images, index['info']) == (1, {'model': str(exported.path), 'score_threshold': 0.9})
    assert len(json.loads((tmp_path / 'out/results.segm.json').read_text())) == done.instances > 0


@pytest.mark.slow
def test_evaluate_takes_it(exported: ExportedDetector, photos: Path, minibench_root: Path, tmp_path: Path) -> None:
    truth = json.loads((minibench_root / 'mix-object-tote/test.json').read_text())
    truth['images'] = [{'id': 1, 'file_name': '0.jpg', 'height': SIZE[0], 'width': SIZE[1]}]
    truth['annotations'] = [one for one in truth['annotations'] if one['image_id'] == 1]
    (tmp_path / 'one.json').write_text(json.dumps(truth))
    command = [sys.executable, REPO / 'tools/evaluate.py', '--model', exported.path, '--ground-truth', 'one.json']
    options = ['--images', photos, '--out', 'run/results']
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / 'run/results').glob('*.json'))
