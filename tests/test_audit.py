"""The audit of folders and images, and its tool; what it says of annotations is in ``datasets/test_malformed.py``."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import coco_files
import numpy as np
import pytest
from PIL import ExifTags, Image

from armbench_mmdet.audit import audit_data_set, format_audit
from armbench_mmdet.datasets import SUBSETS

MIX, ZOOMED, SAME = SUBSETS


def split_document(prefix: str) -> dict:
    document = coco_files.document()
    for image in document['images']:
        image['file_name'] = prefix + image['file_name']
    return document


@pytest.fixture
def root(tmp_path) -> Path:
    """A clean data set: three splits of all subsets, all images different."""
    root = tmp_path / 'data'
    for seed, (subset, split) in enumerate((subset, split) for subset in SUBSETS for split in ('train', 'val', 'test')):
        document = split_document(f'{split}-')
        coco_files.write_json(root / subset / f'{split}.json', document)
        for number, image in enumerate(document['images']):
            coco_files.write_image(root / subset / 'images' / image['file_name'], 2 * seed + number)
    return root


def rotate(path: Path, orientation: int = 3) -> None:
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        image.save(path, exif=exif)


def dark(path: Path) -> None:
    with Image.open(path) as image:
        Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 16).save(path, 'PNG')


@pytest.mark.parametrize(
    ('damage', 'kind', 'example'),
    [
        (lambda p: p.unlink(), 'image-missing', 'train-A.jpg'),
        (lambda p: p.write_bytes(p.read_bytes()[:-200]), 'image-unreadable', 'truncated.*train-A.jpg'),
        (lambda p: (p.unlink(), p.mkdir()), 'image-unreadable', 'train-A.jpg'),
        (lambda p: coco_files.write_image(p, 99, (48, 64)), 'image-size', '64x48 as annotated, got 48x64'),
        (lambda p: rotate(p, 6), 'image-size', r'64x48 as annotated, got 48x64: its EXIF orientation \(6\) turns it'),
        (rotate, 'image-exif-rotation', r'EXIF orientation \(3\)'),
        (dark, 'image-dark', 'train-A.jpg'),
    ],
)
def test_a_damaged_image_is_found(root, damage, kind, example):
    damage(root / MIX / 'images' / 'train-A.jpg')
    (finding,) = audit_data_set(root, workers=1).findings
    assert (finding.kind, finding.place, finding.count) == (kind, f'{MIX}/train', 1)
    assert re.search(example, finding.examples[0])


def same_in_two_splits(root: Path) -> None:
    folder = root / MIX / 'images'
    document = split_document('test-')
    document['images'][0]['file_name'] = 'train-A.jpg'
    coco_files.write_json(root / MIX / 'test.json', document)
    shutil.copy(folder / 'train-B.jpg', folder / 'val-B.jpg')
    shutil.copy(folder / 'val-A.jpg', root / ZOOMED / 'images' / 'test-A.jpg')


def copy_within_a_split(root: Path) -> None:
    shutil.copy(root / MIX / 'images/train-A.jpg', root / MIX / 'images/train-B.jpg')


def remove_files(root: Path) -> None:
    shutil.rmtree(root / SAME)
    (root / ZOOMED / 'train.json').unlink()
    (root / MIX / 'val.json').unlink()


def video_frames(root: Path) -> None:
    """Each split in a folder of its own, with names of its own."""
    for split in ('train', 'val', 'test'):
        document = coco_files.document()
        for image in document['images']:
            old = root / MIX / 'images' / f'{split}-{image["file_name"]}'
            image['file_name'] = f'{split}/frame_{image["id"]}.jpg'
            (root / MIX / 'images' / split).mkdir(exist_ok=True)
            old.rename(root / MIX / 'images' / image['file_name'])
        coco_files.write_json(root / MIX / f'{split}.json', document)


def roboflow(root: Path) -> None:
    shutil.rmtree(root)
    for split in ('train', 'valid'):
        document = split_document(f'{split}-')
        document['categories'] = [{'id': i, 'name': name} for i, name in enumerate(('all', 'Tote', 'object'))]
        coco_files.write_json(root / split / '_annotations.coco.json', document)
        for image in document['images']:
            coco_files.write_image(root / split / image['file_name'], ord(split[0]) + image['id'])


LAYOUTS = {
    same_in_two_splits: {
        ('same-name-in-splits', f'{MIX}/train + {MIX}/test'): 1,
        ('same-content-in-splits', f'{MIX}/train + {MIX}/test'): 1,
        ('same-content-in-splits', f'{MIX}/train + {MIX}/val'): 1,
        ('same-content-in-splits', f'{MIX}/val + {ZOOMED}/test'): 1,
        ('image-unused', f'{MIX}/images'): 1,
    },
    copy_within_a_split: {('image-copied', f'{MIX}/train'): 1},
    remove_files: {
        ('split-missing', f'{MIX}/val'): 1,
        ('split-absent', f'{ZOOMED}/train'): 1,
        ('subset-missing', SAME): 1,
        ('image-unused', f'{MIX}/images'): 2,
        ('image-unused', f'{ZOOMED}/images'): 2,
    },
    video_frames: {},
    roboflow: {('category-assumed', f'{split}/_annotations.coco.json'): 1 for split in ('train', 'valid')},
}


@pytest.mark.parametrize('change', LAYOUTS)
def test_what_is_wrong_between_files(root: Path, change: Callable) -> None:
    change(root)
    audit = audit_data_set(root, workers=2)
    assert audit.root == root
    assert {(f.kind, f.place.removeprefix(f'{root}/')): f.count for f in audit.findings} == LAYOUTS[change]


def test_everything_is_collected_and_only_the_first_are_shown(root):
    document = split_document('train-')
    orphan = {'category_id': 2, 'bbox': [1, 1, 5, 5], 'segmentation': []}
    document['annotations'] += [{**orphan, 'id': 10 + i, 'image_id': 77 + i % 2} for i in range(30)]
    coco_files.write_json(root / MIX / 'train.json', document)
    coco_files.write_json(root / MIX / 'test.json', {'images': [], 'annotations': [{}]})
    (root / MIX / 'val.json').write_text('{')
    audit = audit_data_set(root, workers=1)
    counts = [(f.kind, f.place, f.count) for f in audit.findings[:3]]
    expected = [('json-malformed', 'val', 1), ('json-structure', 'test', 1), ('orphan-annotation', 'train', 30)]
    assert counts == [(kind, f'{MIX}/{split}', count) for kind, split, count in expected]
    severities = [f.severity for f in audit.findings]
    assert severities == sorted(severities, key=['error', 'warning', 'note'].index)
    assert '… and 25 more' in format_audit(audit)
    assert len(audit.splits) == 7


def test_the_tool_prints_and_writes_and_exits_with_what_it_found(root, tmp_path, tool):
    status, out, err = tool('check_data.py', root, '--strict', '--json', tmp_path / 'a.json', '--workers', 1)
    assert status == 0
    assert '0 errors, 0 warnings' in out
    assert 'images: 100%' in err
    written = json.loads((tmp_path / 'a.json').read_text())
    assert written['errors'] == 0
    assert written['splits'][0] == {'place': f'{MIX}/train', 'images': 2, 'instances': {'tote': 1, 'object': 2}}
    (root / MIX / 'val.json').unlink()
    assert tool('check_data.py', root, '--workers', 1)[0] == 0
    assert tool('check_data.py', root, '--workers', 1, '--strict')[0] == 1
    (root / MIX / 'images' / 'train-A.jpg').unlink()
    status, out, _ = tool('check_data.py', root, '--workers', 1, '--subset', MIX)
    assert status == 2
    assert 'image-missing' in out
    assert 'zoomed-out' not in out


def test_the_tool_checks_files_of_ones_own(root, tmp_path, tool):
    document = split_document('train-')
    document['categories'][1]['name'] = 'parcel'
    file = coco_files.write_json(tmp_path / 'mine.json', document)
    arguments = ('--ann-file', file, '--images', root / MIX / 'images', '--workers', 1)
    status, out, _ = tool('check_data.py', *arguments)
    assert status == 2
    (offered,) = re.findall(r'category_map=(\{.*?\})', out)
    status, out, _ = tool('check_data.py', *arguments, '--category-map', offered)
    assert status == 0
    assert re.search(rf'{file} +2 +1 tote \+ 2 object', out)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--ann-file', 'nowhere.json'], '--ann-file and --images must be existing'),
        (['.', '--images', 'a'], '--images must come with --ann-file'),
        (['.', '--category-map', 'parcel=object'], '--category-map must be a dict'),
        (['nowhere'], 'must exist'),
        (['.'], 'at least one of the folders'),
        (['.', '--subset', 'mix'], '--subset must be one of'),
        (['.', '--workers', '0'], '--workers must be'),
        (['.', '--json', 'nowhere/a.json'], '--json must be'),
    ],
)
def test_wrong_usage_of_the_tool_is_one_message(tool, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = tool('check_data.py', *arguments)
    assert (status, out) == (2, '')
    assert err.startswith('error: ')
    assert message in err
