"""An exported file in the runtime and in the tools."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from varied_weights import SIZE

from armbench_mmdet.inference import infer
from armbench_runtime import Detector, InputError, Prediction
from armbench_runtime.images import read_image

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def detector(mask_rcnn: Path) -> Detector:
    return Detector.from_onnx(mask_rcnn)


@pytest.fixture(scope='module')
def image(photos: Path) -> Path:
    return photos / '0.jpg'


def test_the_file_says_what_it_is(detector: Detector, mask_rcnn: Path) -> None:
    assert detector.classes == ('tote', 'object')
    assert detector.metadata['checkpoint']['name'] == 'mask_rcnn.pth'
    assert len(detector.metadata['config']['sha256']) == 64
    assert detector.metadata['input']['channels'] == 'RGB'
    assert detector.metadata['thresholds'] == {}


def test_files_and_arrays_give_the_same_prediction(detector: Detector, image: Path) -> None:
    (of_file,) = detector.predict(image)
    (of_array,) = detector.predict(read_image(image)[0])
    assert isinstance(of_file, Prediction)
    assert of_file.masks == of_array.masks
    assert (of_file.path, of_array.path) == (image, Path())
    (sure,) = detector.predict(image, min_score=0.9)
    assert 0 < len(sure) < len(of_file)
    np.testing.assert_array_equal(sure.scores, of_file.above(0.9).scores)


def test_what_cannot_be_predicted_is_said(detector: Detector, image: Path, tmp_path: Path) -> None:
    (tmp_path / 'broken.jpg').write_bytes(image.read_bytes()[:500])
    said: dict[str, str] = {}
    found = list(detector.predict([tmp_path / 'broken.jpg', tmp_path / 'nowhere.jpg', image], report=said.__setitem__))
    assert [one.image_id for one in found] == [3]
    assert [Path(name).name for name in said] == ['broken.jpg', 'nowhere.jpg']
    with pytest.warns(UserWarning, match='nowhere.jpg is left out: image must be readable'):
        assert list(detector.predict(tmp_path / 'nowhere.jpg')) == []
    with pytest.raises(InputError, match=r'image must be \(H, W, 3\) uint8, got \(3, 4\) float64'):
        list(detector.predict(np.zeros((3, 4))))
    with pytest.raises(InputError, match=r'of a size that scales to 320x256, .* got 30x40 .*--size 40 30, or'):
        list(detector.predict(np.zeros((40, 30, 3), np.uint8)))


def test_infer_takes_it(detector: Detector, image: Path, tmp_path: Path) -> None:
    done = infer(detector, image, tmp_path / 'out', score_threshold=0.9)
    index = json.loads((tmp_path / 'out/images.json').read_text())
    assert (done.images, index['info']) == (1, {'model': str(detector.path), 'score_threshold': 0.9})
    assert len(json.loads((tmp_path / 'out/results.segm.json').read_text())) == done.instances > 0


@pytest.mark.slow
def test_the_tools_take_it(mask_rcnn: Path, image: Path, minibench_root: Path, tmp_path: Path) -> None:
    def start(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, REPO / f'tools/{tool}.py', *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    truth = json.loads((minibench_root / 'mix-object-tote/test.json').read_text())
    truth['images'] = [{'id': 1, 'file_name': image.name, 'height': SIZE[0], 'width': SIZE[1]}]
    truth['annotations'] = [{**one, 'image_id': 1} for one in truth['annotations'] if one['image_id'] == 1]
    (tmp_path / 'one.json').write_text(json.dumps(truth))
    options = ('--ground-truth', tmp_path / 'one.json', '--images', image.parent, '--out', tmp_path / 'run/results')
    done = start('evaluate', '--model', mask_rcnn, *options)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'run/results').glob('*.json'))) >= 1
    wrong = start('infer', mask_rcnn, image, '--out', tmp_path, '--device', 'cpu')
    assert (wrong.returncode, '--device is not for an exported model' in wrong.stderr) == (2, True)
