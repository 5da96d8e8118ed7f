"""What an inference writes."""

import json
import shutil
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config
from pycocotools.coco import COCO

from armbench_mmdet.errors import InputError
from armbench_mmdet.inference import Detector, infer, overlay_path


@pytest.fixture(scope='module')
def detector(mask_rcnn: tuple[Config, Path]) -> Detector:
    return Detector(*mask_rcnn, device='cpu')


@pytest.fixture
def photos(minibench_root: Path, tmp_path: Path) -> Path:
    """Two images of the same name in two folders, and a broken one."""
    files = sorted((minibench_root / 'mix-object-tote/images').glob('*.jpg'))
    for folder, file in zip(('left', 'right'), files, strict=False):
        (tmp_path / 'photos' / folder).mkdir(parents=True)
        shutil.copy(file, tmp_path / 'photos' / folder / 'a.jpg')
    (tmp_path / 'photos/right/b.jpg').write_bytes(b'broken')
    return tmp_path / 'photos'


def test_overlays_results_and_their_index(
    detector: Detector, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = photos / 'out'
    done = infer(detector, [photos, tmp_path / 'nowhere'], out, score_threshold=0.3)
    assert done.images == 2
    assert {Path(name).name: reason for name, reason in done.left_out.items()} == {
        'b.jpg': 'image must be readable, got no image format',
        'nowhere': 'no such file or folder',
    }
    index = json.loads((out / 'images.json').read_text())
    assert [image['overlay'] for image in index['images']] == ['overlays/left/a.jpg', 'overlays/right/a.jpg']
    overlays = [cv2.imread(str(out / image['overlay'])) for image in index['images']]
    assert (overlays[0] != overlays[1]).any()
    assert {Path(one['file_name']).name for one in index['left_out']} == {'b.jpg', 'nowhere'}
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


def test_no_readable_image_is_an_error_that_says_why(detector: Detector, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'got none of 2 .*nowhere: no such.*b\.jpg: image must be .*no image format'):
        infer(detector, [photos / 'right/b.jpg', tmp_path / 'nowhere'], tmp_path / 'out')
    assert not (tmp_path / 'out/images.json').exists()


@pytest.mark.parametrize('threshold', [-0.1, 1.5, float('nan')])
def test_a_threshold_that_is_no_score_is_refused(threshold: float, detector: Detector, photos: Path) -> None:
    with pytest.raises(InputError, match='score threshold must be from 0 to 1'):
        infer(detector, photos, photos / 'out', threshold)


def test_an_output_folder_that_is_a_file_is_refused(detector: Detector, photos: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'--out must be a folder that can be written, got .*file'):
        infer(detector, photos, tmp_path / 'file')


def test_overlays_lie_as_their_images() -> None:
    places = [
        overlay_path(Path(name), '/p').as_posix() for name in ('/p/a.jpg', '/p/x/a.jpg', '/p/a.png', '/p/a.b.tif')
    ]
    assert places == ['overlays/a.jpg', 'overlays/x/a.jpg', 'overlays/a.png.jpg', 'overlays/a.b.tif.jpg']
