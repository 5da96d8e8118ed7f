"""Conversions: what comes out draws the masks that went in; cuts keep what they should."""

import json
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from armbench_mmdet.convert.data import convert, cut
from armbench_mmdet.errors import InputError
from armbench_mmdet.minibench import make_minibench
from armbench_mmdet.minibench.scene import MIX
from tools import convert as tool

IMAGES, SIZE = 12, {'width_px': 320, 'height_px': 256}


@pytest.fixture(scope='module')
def minibench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data')
    make_minibench(root, counts={(MIX, 'test'): IMAGES}, workers=1, **SIZE)
    return root / MIX


@pytest.fixture(scope='module')
def stem(minibench: Path) -> str:
    """The name of an image."""
    return min(path.stem for path in (minibench / 'images').iterdir())


def write_as(form: str, folder: Path, truth: COCO) -> None:
    """Write minibench's annotations in another format, each object as often as it has parts."""
    (folder / 'labels').mkdir(parents=True)
    (folder / 'data.yaml').write_text('names: [Tote, Object]\n')
    for image in truth.imgs.values():
        size, name = (image['width'], image['height']), image['file_name']
        shapes, rows, ids = [], [], np.zeros(size[::-1], np.uint8)
        for number, one in enumerate(truth.imgToAnns[image['id']], 1):
            ids[truth.annToMask(one) > 0] = number  # an object hides what the tote shows there
            label = truth.cats[one['category_id']]['name']
            for polygon in one['segmentation']:
                points = np.reshape(polygon, (-1, 2))
                shapes.append({'label': label, 'points': points.tolist(), 'shape_type': 'polygon', 'group_id': number})
                rows.append(' '.join(map(repr, [one['category_id'] - 1, *(points / size).reshape(-1).tolist()])))
        file = folder / 'labels' / Path(name).with_suffix({'labelme': '.json', 'yolo': '.txt'}.get(form, '.png'))
        if form == 'labelme':
            content = {'shapes': shapes, 'imagePath': f'..\\images\\{name}', 'imageData': None, 'version': '5.2.1'}
            file.write_text(json.dumps(content))
        elif form == 'yolo':
            file.write_text('\n'.join(rows))
        else:
            cv2.imwrite(str(file), ids)


@pytest.mark.parametrize('form', ['labelme', 'label-images', 'yolo'])
def test_masks_survive_and_are_audited(form: str, minibench: Path, tmp_path: Path, capsys) -> None:
    truth, is_picture = COCO(str(minibench / 'test.json')), form == 'label-images'
    write_as(form, tmp_path / 'in', truth)
    source = tmp_path / 'in/labels' if is_picture else tmp_path / 'in'
    options = {'format': form, 'split': 'test', 'images': minibench / 'images', 'tote_value': 1}
    assert tool.main(Namespace(what='data', source=source, out=tmp_path / 'out', **options)) == 0
    assert '0 errors' in capsys.readouterr().out
    found = COCO(str(tmp_path / 'out/test.json'))
    images = {row['file_name']: row['id'] for row in found.imgs.values()}
    assert len(images) == IMAGES
    for image in truth.imgs.values():
        assert (tmp_path / 'out/images' / image['file_name']).samefile(minibench / 'images' / image['file_name'])
        mine = found.imgToAnns[images[image['file_name']]]
        for one in truth.imgToAnns[image['id']]:
            name = truth.cats[one['category_id']]['name']
            if is_picture and name == 'Tote':
                continue
            same = [a for a in mine if found.cats[a['category_id']]['name'].title() == name]
            overlaps = [coco_mask.iou([found.annToRLE(a)], [truth.annToRLE(one)], [0])[0, 0] for a in same]
            # A part of a YOLO row is an object of its own.
            assert max(overlaps) >= (0.99 if form != 'yolo' or len(one['segmentation']) == 1 else 0.1)


SHAPE = {'label': 'Object', 'points': [[10, 10], [60, 10], [60, 90]]}


@pytest.mark.parametrize(
    ('shapes', 'kept', 'left_out'),
    [
        ([{**SHAPE, 'shape_type': None}], 1, {}),
        ([{**SHAPE, 'shape_type': 'rectangle', 'points': [[10, 10], [60, 90]]}], 1, {}),
        ([{**SHAPE, 'shape_type': 'circle'}], 0, {"shapes of type 'circle' with 3 points are left out": 1}),
        ([{**SHAPE, 'points': [[10, 10], [60, 10]]}], 0, {"shapes of type 'polygon' with 2 points are left out": 1}),
        ([{**SHAPE, 'points': [[-9, -9], [-5, -9], [-5, -2]]}], 0, {'instances that cover no pixel are left out': 1}),
        ([{**SHAPE, 'group_id': 3}, {**SHAPE, 'group_id': 3}, SHAPE, SHAPE], 3, {}),
    ],
    ids=['no type', 'rectangle', 'circle', 'two points', 'outside', 'groups'],
)
def test_labelme_shapes(shapes: list, kept: int, left_out: dict, minibench: Path, stem: str, tmp_path: Path) -> None:
    (tmp_path / 'one.json').write_text(json.dumps({'shapes': shapes, 'imagePath': f'{stem}.jpg'}))
    report = convert('labelme', tmp_path, tmp_path / 'out', 'val', minibench / 'images')
    assert (report.categories.total(), dict(report.notes)) == (kept, left_out)


@pytest.mark.parametrize(
    ('form', 'files', 'said'),
    [
        ('labelme', {}, r'must have annotation files \(\.json …\), got none'),
        ('labelme', {'nothing.json': '{"shapes": []}'}, r'LabelMe files, got .*imagePath.*nothing\.json'),
        ('labelme', {'a.json': '{"shapes": [], "imagePath": "a.jpg"}'}, r"image 'a\.jpg' must lie in .*--images"),
        (
            'labelme',
            {'a.json': b'{"shapes": [{"label": "Schl\xfcssel"}], "imagePath": "a.jpg"}'},
            r'LabelMe files.*0xfc.*a\.json',
        ),
        ('yolo', {'labels/a.txt': '0 1 2'}, r'data\.yaml with the names'),
        ('yolo', {'labels/a.txt': '0 1 2', 'data.yaml': 'names: [a'}, r'names of the classes, got .*data\.yaml'),
        ('yolo', {'labels/a.txt': '0 1 2', 'data.yaml': 'nc: 2'}, r'missing required field `names`.*data\.yaml'),
        ('yolo', {'labels/X.txt': 'tote 1 2', 'data.yaml': 'names: [a]'}, r"got 'tote 1 2' .*row 1"),
        ('yolo', {'labels/X.txt': b'0 \xff', 'data.yaml': 'names: [a]'}, r'rows must be numbers.*row 1'),
        ('label-images', {'X.png': np.zeros((3, 3), np.uint8)}, r'label image must be 320x256 as its photo, got 3x3'),
        ('label-images', {'X.png': b'no picture'}, r'label image must be readable, got cannot identify'),
    ],
)
def test_bad_input(form: str, files: dict, said: str, minibench: Path, stem: str, tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / 'in' / name.replace('X', stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            cv2.imwrite(str(path), content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said):
        convert(form, tmp_path / 'in', tmp_path / 'out', 'test', minibench / 'images')
    assert not (tmp_path / 'out/test.json').exists()


def test_a_lossy_label_image_is_said(minibench: Path, stem: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / f'{stem}.jpg'), np.zeros((SIZE['height_px'], SIZE['width_px']), np.uint8))
    report = convert('label-images', tmp_path, tmp_path / 'out', 'test', minibench / 'images')
    assert 'do not evaluate on them' in report.text()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A file of 400 images with 0…19 annotations each, and keys that are not COCO's."""
    rng = np.random.default_rng(0)
    images = [{'id': 3 * i, 'file_name': f'{i}.jpg', 'width': 9, 'height': 9, 'camera': 'left'} for i in range(400)]
    owners = [image['id'] for image in images for _ in range(int(rng.integers(20)))]
    rows = [{'id': i, 'image_id': owner, 'category_id': 1, 'note': 'é'} for i, owner in enumerate(owners)]
    content = {'info': {'year': 2026}, 'images': images, 'annotations': rows, 'categories': [{'id': 1, 'name': 'x'}]}
    (tmp_path / 'all.json').write_text(json.dumps(content))
    return tmp_path / 'all.json'


@pytest.mark.parametrize('fraction', [0.01, 0.05, 0.1, 1.0])
def test_a_share_keeps_density_and_everything_else(fraction: float, many: Path) -> None:
    whole, parts = json.loads(many.read_text()), []
    for seed in (0, 0, 1):
        cut(many, many.with_name('part.json'), fraction=fraction, seed=seed)
        parts.append(json.loads(many.with_name('part.json').read_text()))
    assert parts[0] == parts[1]
    assert (parts[0] != parts[2]) == (fraction < 1)
    part, ids = parts[0], {image['id'] for image in parts[0]['images']}
    assert len(ids) == round(400 * fraction)
    for key, owner in (('images', 'id'), ('annotations', 'image_id')):
        rows, kept = whole.pop(key), part.pop(key)
        assert kept == [row for row in rows if row[owner] in ids]
    assert part == whole
    density = len(kept) / len(ids) / (len(rows) / 400)
    assert density == pytest.approx(1, abs=0.5 if fraction == 0.01 else 0.1)


def test_a_list_of_images(many: Path) -> None:
    many.with_name('empty.json').write_text('{"images": [], "annotations": []}')
    report = cut(many, many.with_name('part.json'), names=['7.jpg', '5.jpg'])
    assert report.images == 2
    assert [image['id'] for image in json.loads(report.ann_file.read_text())['images']] == [15, 21]
    for file, options, said in (
        (many, {'names': ['no.jpg']}, "got 'no.jpg'"),
        (many, {'names': []}, '--list must name images'),
        (many, {'fraction': 0.0}, 'fraction must be above 0'),
        (many, {'fraction': 0.5, 'seed': -1}, 'seed must be at least 1 and 0, got .* and -1'),
        (many.with_name('empty.json'), {}, 'images and seed must be at least 1 and 0, got 0'),
        (many.with_name('none.json'), {}, 'must be a COCO file'),
    ):
        with pytest.raises(InputError, match=said):
            cut(file, many.with_name('other.json'), **options)
