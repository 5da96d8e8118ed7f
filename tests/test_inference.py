"""The detector: the predictions of tools/test.py, whatever the images; and what an inference writes."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools.coco import COCO
from small_models import untrained

from armbench_mmdet.errors import InputError
from armbench_mmdet.inference import Detector, infer, overlay_path
from armbench_mmdet.launch import evaluate

SUBSET = 'mix-object-tote'


@pytest.fixture(scope='module')
def mask_rcnn(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A Mask R-CNN's config and checkpoint."""
    return untrained('mask_rcnn', minibench_root, tmp_path_factory.mktemp('mask_rcnn'))


@pytest.fixture(scope='module')
def detector(mask_rcnn: tuple[Config, Path]) -> Detector:
    return Detector(*mask_rcnn, device='cpu')


@pytest.fixture(scope='module')
def images(minibench_root: Path) -> Path:
    return minibench_root / SUBSET / 'images'


def by_file(results: list[dict], images: list[dict]) -> dict[str, list[tuple]]:
    names = {image['id']: Path(image['file_name']).name for image in images}
    found = defaultdict(list)
    for one in results:
        shape = one['segmentation']['counts'] if 'segmentation' in one else tuple(one['bbox'])
        found[names[one['image_id']]].append((one['category_id'], one['score'], shape))
    return found


@pytest.mark.parametrize('name', ['mask_rcnn', pytest.param('mask2former', marks=pytest.mark.slow)])
def test_predictions_are_those_of_tools_test(name: str, minibench_root: Path, tmp_path: Path) -> None:
    config, checkpoint = untrained(name, minibench_root, tmp_path)
    evaluate(config, checkpoint, [SUBSET], 'test', tmp_path / 'test')
    truth = json.loads((minibench_root / SUBSET / 'test.json').read_text())
    files = [minibench_root / SUBSET / 'images' / image['file_name'] for image in truth['images']]
    done = infer(Detector(config, checkpoint, 'cpu'), files[::-1], tmp_path / 'infer', score_threshold=0)
    assert (done.images, done.left_out) == (len(files), {})
    index = json.loads((tmp_path / 'infer/images.json').read_text())
    for iou_type in ('segm', 'bbox'):
        tested = json.loads((tmp_path / f'test/{SUBSET}_test.{iou_type}.json').read_text())
        inferred = json.loads((tmp_path / f'infer/results.{iou_type}.json').read_text())
        assert len(tested) > 20
        assert by_file(inferred, index['images']) == by_file(tested, truth['images'])


def test_batches_and_workers_give_the_same(detector: Detector, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(images.glob('*.jpg'))[:3]
    one_by_one, together = (list(detector.predict(files, batch_size=size)) for size in (1, 3))
    for a, b in zip(one_by_one, together, strict=True):
        assert len(a) == len(b) > 0
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    monkeypatch.setitem(detector.config.test_dataloader, 'num_workers', 2)
    assert [one.masks for one in detector.predict(files, batch_size=1)] == [one.masks for one in one_by_one]


def test_any_size_is_predicted_or_reported(detector: Detector, tmp_path: Path) -> None:
    for size in ((1, 1), (3, 700), (700, 3), (2500, 40), (1, 5000)):
        cv2.imwrite(str(tmp_path / f'{size[0]:04}x{size[1]}.png'), np.full((*size, 3), 99, np.uint8))
    reported: dict[str, str] = {}
    found = [(one.height, one.width) for one in detector.predict(tmp_path, report=reported.__setitem__)]
    assert found == [(1, 1), (3, 700), (700, 3), (2500, 40)]
    assert list(reported.values()) == ['5000x1 is too narrow: nothing is left at the input size']


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """Two images of the same name in two folders, and a broken one."""
    for folder, file in zip(('left', 'right'), sorted(images.glob('*.jpg')), strict=False):
        (tmp_path / 'photos' / folder).mkdir(parents=True)
        shutil.copy(file, tmp_path / 'photos' / folder / 'a.jpg')
    (tmp_path / 'photos/right/b.jpg').write_bytes(b'broken')
    return tmp_path / 'photos'


def test_overlays_results_and_their_index(detector: Detector, photos: Path, tmp_path: Path, capsys) -> None:
    out = photos / 'out'
    done = infer(detector, [photos, tmp_path / 'nowhere'], out, score_threshold=0.3)
    assert done.images == 2
    left_out = {'b.jpg': 'image must be readable, got no image format', 'nowhere': 'no such file or folder'}
    assert {Path(name).name: reason for name, reason in done.left_out.items()} == left_out
    index = json.loads((out / 'images.json').read_text())
    assert [image['overlay'] for image in index['images']] == ['overlays/left/a.jpg', 'overlays/right/a.jpg']
    overlays = [cv2.imread(str(out / image['overlay'])) for image in index['images']]
    assert (overlays[0] != overlays[1]).any()
    assert {one['file_name']: one['reason'] for one in index['left_out']} == done.left_out
    assert index['info']['score_threshold'] == 0.3

    # As another tool would read them.
    coco = COCO(str(out / 'images.json'))
    for kind in ('segm', 'bbox'):
        results = coco.loadRes(str(out / f'results.{kind}.json'))
        assert len(results.anns) == done.instances > 0
        assert {one['category_id'] for one in results.anns.values()} <= set(coco.getCatIds())
    scores = [one['score'] for one in json.loads((out / 'results.segm.json').read_text())]
    assert min(scores) >= 0.3
    assert coco.loadCats(coco.getCatIds()) == [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}]

    # Its own overlays are no input the next time; a higher threshold leaves less.
    fewer = infer(detector, photos, out, score_threshold=max(scores))
    assert (fewer.images, 0 < fewer.instances < done.instances) == (2, True)
    bar = capsys.readouterr().err
    assert '3/3' in bar
    assert 'img/s' in bar


def test_bad_input_is_named(detector: Detector, mask_rcnn: tuple[Config, Path], photos: Path, tmp_path: Path) -> None:
    inputs, file = [photos / 'right/b.jpg', tmp_path / 'nowhere'], photos / 'left/a.jpg'
    with pytest.raises(InputError, match=r'got none of 2 .*nowhere: no such.*b\.jpg: image must be .*no image format'):
        infer(detector, inputs, tmp_path / 'out')
    assert not (tmp_path / 'out/images.json').exists()
    for threshold in (-0.1, 1.5, float('nan')):
        with pytest.raises(InputError, match='score threshold must be from 0 to 1'):
            infer(detector, photos, tmp_path / 'out', threshold)
    with pytest.raises(InputError, match='batch_size must be at least 1, got 0'):
        infer(detector, photos, tmp_path / 'out', batch_size=0)
    with pytest.raises(InputError, match=r'--out must be a folder that can be written, got .*a\.jpg'):
        infer(detector, photos, file)
    for device in ('gpu', 'cuda:99', 'cpu:x'):
        with pytest.raises(InputError, match=f"device must be .*{device}'"):
            Detector(*mask_rcnn, device=device)


def test_overlays_lie_as_their_images() -> None:
    places = {'a.jpg': 'a.jpg', 'x/a.jpg': 'x/a.jpg', 'a.png': 'a.png.jpg', 'a.b.tif': 'a.b.tif.jpg'}
    assert {name: overlay_path(Path('/p') / name, '/p').as_posix() for name in places} == {
        name: f'overlays/{place}' for name, place in places.items()
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_finds_what_the_cpu_finds(mask_rcnn: tuple[Config, Path], images: Path) -> None:
    on_gpu, on_cpu = (list(Detector(*mask_rcnn, device=device).predict(images)) for device in ('cuda', 'cpu'))
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert len(a) == pytest.approx(len(b), abs=3)
        np.testing.assert_allclose(a.scores[:5], b.scores[:5], atol=1e-2)
