from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import coco_files
import numpy as np
import pytest
from PIL import ExifTags, Image
from shapely.geometry import Polygon

from armbench_mmdet.audit.audit import audit_data_set, format_audit
from armbench_mmdet.audit.checks import polygon_areas
from armbench_mmdet.audit.findings import KINDS, Findings
from armbench_mmdet.audit.statistics import measure_split, plot_statistics
from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.errors import InputError

REPO = Path(__file__).resolve().parents[2]
MIX = 'mix-object-tote'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'cache'))


def split_document(prefix: str) -> dict:
    document = coco_files.document()
    for image in document['images']:
        image['file_name'] = prefix + image['file_name']
    return document


@pytest.fixture
def root(tmp_path) -> Path:
    """A clean data set: three splits of all subsets, all images different."""
    root = tmp_path / 'data'
    seed = 0
    for subset in (MIX, 'zoomed-out-tote-transfer-set', 'same-object-transfer-set'):
        for split in ('train', 'val', 'test'):
            document = split_document(f'{split}-')
            coco_files.write_json(root / subset / f'{split}.json', document)
            for image in document['images']:
                coco_files.write_image(root / subset / 'images' / image['file_name'], seed)
                seed += 1
    return root


def found(root: Path, **options) -> dict[tuple[str, str], int]:
    audit = audit_data_set(root, **{'workers': 1, **options})
    return {(f.kind, f.place): f.count for f in audit.findings.sorted()}


def test_a_clean_data_set_has_no_findings(root):
    assert found(root) == {}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rotate(path: Path) -> None:
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = 6
        image.save(path, exif=exif)


@pytest.mark.parametrize(
    ('damage', 'kind', 'example'),
    [
        (lambda p: p.unlink(), 'image-missing', 'train-A.jpg'),
        (truncate, 'image-truncated', 'train-A.jpg: .*truncated'),
        (lambda p: p.write_bytes(b''), 'image-truncated', 'train-A.jpg: the file is empty'),
        (lambda p: p.write_bytes(b'GIF89a'), 'image-unreadable', 'train-A.jpg: '),
        (lambda p: p.write_bytes(b'some text'), 'image-unreadable', 'train-A.jpg: no image format'),
        (lambda p: (p.unlink(), p.mkdir()), 'image-unreadable', 'train-A.jpg: '),
        (lambda p: coco_files.write_image(p, 99, (48, 64)), 'image-size', '48×64 px, the JSON says 64×48'),
        (rotate, 'image-exif-rotation', 'orientation 6'),
    ],
)
def test_a_damaged_image_is_found(root, damage, kind, example):
    damage(root / MIX / 'images' / 'train-A.jpg')
    audit = audit_data_set(root, workers=1)
    (finding,) = audit.findings.sorted()
    assert (finding.kind, finding.place, finding.count) == (kind, f'{MIX}/train', 1)
    assert re.search(example, finding.examples[0])


def test_an_image_that_exif_turns_into_place_is_explained(root):
    rotate(coco_files.write_image(root / MIX / 'images' / 'train-A.jpg', 99, (48, 64)))
    text = format_audit(audit_data_set(root, workers=1))
    assert 'turned by EXIF it fits' in text
    assert 'image-exif-rotation' in text


def test_the_same_image_in_two_splits_is_found_by_name_and_by_content(root):
    folder = root / MIX / 'images'
    document = split_document('test-')
    document['images'][0]['file_name'] = 'train-A.jpg'
    coco_files.write_json(root / MIX / 'test.json', document)
    shutil.copy(folder / 'train-B.jpg', folder / 'val-B.jpg')
    zoomed = root / 'zoomed-out-tote-transfer-set' / 'images'
    shutil.copy(folder / 'val-A.jpg', zoomed / 'test-A.jpg')
    assert found(root) == {
        ('same-name-in-splits', MIX): 1,
        ('same-content-in-splits', f'{MIX}/train + {MIX}/test'): 1,
        ('same-content-in-splits', f'{MIX}/train + {MIX}/val'): 1,
        ('same-content-in-splits', f'{MIX}/val + zoomed-out-tote-transfer-set/test'): 1,
        ('image-unused', MIX): 1,
    }


def test_copies_in_one_split_are_found(root):
    folder = root / MIX / 'images'
    shutil.copy(folder / 'train-A.jpg', folder / 'train-B.jpg')
    assert found(root) == {('image-copied', f'{MIX}/train'): 1}


def test_missing_files_and_folders_are_found(root):
    shutil.rmtree(root / 'same-object-transfer-set')
    (root / 'zoomed-out-tote-transfer-set' / 'train.json').unlink()
    (root / MIX / 'val.json').unlink()
    assert found(root) == {
        ('split-missing', f'{MIX}/val'): 1,
        ('split-absent', 'zoomed-out-tote-transfer-set/train'): 1,
        ('subset-missing', 'same-object-transfer-set'): 1,
        ('image-unused', MIX): 2,
        ('image-unused', 'zoomed-out-tote-transfer-set'): 2,
    }


def test_everything_is_collected_and_only_the_first_are_shown(root):
    document = split_document('train-')
    orphan = {'category_id': 2, 'bbox': [1, 1, 5, 5]}
    document['annotations'] += [
        {**orphan, 'id': 10 + i, 'image_id': 77 + i % 2, 'segmentation': 7 if i % 3 else []} for i in range(30)
    ]
    document['annotations'][1]['area'] = 'large'
    coco_files.write_json(root / MIX / 'train.json', document)
    (root / MIX / 'val.json').write_text('{')
    audit = audit_data_set(root, workers=1)
    counts = {(f.kind, f.place): f.count for f in audit.findings.sorted()}
    assert counts[('orphan-annotation', f'{MIX}/train')] == 30
    assert counts[('json-structure', f'{MIX}/train')] == 1
    assert counts[('json-malformed', f'{MIX}/val')] == 1
    orphans = next(f for f in audit.findings.sorted() if f.kind == 'orphan-annotation')
    assert len(orphans.examples) == 5
    assert '… and 25 more' in format_audit(audit)
    assert len(audit.statistics) == 8


@pytest.mark.parametrize('workers', [1, 2])
def test_any_number_of_processes_finds_the_same(tmp_path, workers):
    size = {'width': coco_files.WIDTH, 'height': coco_files.HEIGHT}
    images = [{'id': i, 'file_name': f'{i}.jpg', **size} for i in range(1, 60)]
    coco_files.write_json(tmp_path / MIX / 'train.json', coco_files.document() | {'images': images})
    for i in range(1, 60, 2):
        coco_files.write_image(tmp_path / MIX / 'images' / f'{i}.jpg', i)
    counts = found(tmp_path, workers=workers)
    assert counts[('image-missing', f'{MIX}/train')] == 29
    assert ('image-unreadable', f'{MIX}/train') not in counts


@pytest.mark.parametrize(
    ('kinds', 'strict', 'status'),
    [
        ((), False, 0),
        ((), True, 0),
        (('crowd',), True, 0),
        (('box-missing',), False, 0),
        (('box-missing',), True, 1),
        (('box-missing', 'image-missing'), False, 2),
    ],
)
def test_the_exit_status_follows_the_worst_finding(kinds, strict, status):
    findings = Findings()
    for kind in kinds:
        findings.add(kind, 'somewhere', ['something'])
    assert findings.exit_status(strict) == status


def test_every_kind_has_a_severity_and_errors_come_first():
    findings = Findings()
    for kind in reversed(KINDS):
        findings.add(kind, 'somewhere', ['something'], 3)
    severities = [f.severity for f in findings.sorted()]
    assert severities == sorted(severities, key=['error', 'warning', 'note'].index)
    assert len(severities) == len(KINDS)


def test_polygon_areas_are_those_of_shapely(tmp_path):
    index = open_index(coco_files.write_json(tmp_path / 'a.json', coco_files.random_document(0)))
    areas = polygon_areas(index)
    for row in range(index.num_annotations):
        expected = sum(Polygon(ring).area for ring in index.polygons(row)) or np.nan
        assert areas[row] == pytest.approx(expected, nan_ok=True)


def test_statistics_count_and_measure(root, tmp_path):
    audit = audit_data_set(root, workers=1)
    numbers = audit.statistics[0].to_dict()
    assert numbers['place'] == f'{MIX}/train'
    assert numbers['images'] == 2
    assert numbers['image_sizes_px'] == {'64x48': 2}
    assert numbers['instances'] == {'tote': 1, 'object': 2}
    assert numbers['instances_per_image']['p100'] == 2
    assert numbers['classes']['tote']['mask_side_px']['p50'] == pytest.approx(2091**0.5, abs=1e-3)
    assert numbers['classes']['tote']['mask_side_frac']['p50'] == pytest.approx((2091 / (64 * 48)) ** 0.5, abs=1e-3)
    assert numbers['classes']['tote']['coco_small_medium_large'] == [0, 1, 0]
    plot_statistics(audit.statistics, tmp_path / 'plot.png')
    with Image.open(tmp_path / 'plot.png') as picture:
        assert picture.size[0] > 800


def test_statistics_of_an_empty_split_can_be_shown(tmp_path):
    document = coco_files.document() | {'annotations': []}
    statistics = measure_split(open_index(coco_files.write_json(tmp_path / 'a.json', document)), None, 'x/y')
    assert statistics.to_dict()['instances'] == {'unknown': 0}
    plot_statistics([statistics], tmp_path / 'plot.png')
    plot_statistics([], tmp_path / 'plot.png')


@pytest.mark.parametrize('folder', ['nowhere', '.'])
def test_a_folder_without_data_is_one_clear_message(tmp_path, folder):
    with pytest.raises(InputError, match=r'must exist|at least one of the folders'):
        audit_data_set(tmp_path / folder)


@pytest.fixture
def check_data(monkeypatch, capsys):
    """Run ``tools/check_data.py`` with arguments; returns its exit status, output and error output."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['check_data.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(REPO / 'tools' / 'check_data.py'), run_name='__main__')
        return caught.value.code, *capsys.readouterr()

    return run


def test_the_tool_prints_and_writes(root, tmp_path, check_data):
    status, out, err = check_data(
        root, '--strict', '--json', tmp_path / 'a.json', '--plot', tmp_path / 'a.png', '--workers', 1
    )
    assert status == 0
    assert '0 errors, 0 warnings' in out
    assert 'mix-object-tote/train' in out
    assert 'images: 100%' in err
    assert json.loads((tmp_path / 'a.json').read_text())['errors'] == 0
    assert (tmp_path / 'a.png').stat().st_size > 1000


def test_the_tool_exits_with_what_it_found(root, check_data):
    (root / MIX / 'val.json').unlink()
    assert check_data(root, '--workers', 1)[0] == 0
    assert check_data(root, '--workers', 1, '--strict')[0] == 1
    (root / MIX / 'images' / 'train-A.jpg').unlink()
    status, out, _ = check_data(root, '--workers', 1, '--subset', MIX)
    assert status == 2
    assert 'image-missing' in out
    assert 'zoomed-out' not in out


@pytest.mark.parametrize(
    'arguments', [['nowhere'], ['.', '--subset', 'mix'], ['.', '--workers', '0'], ['.', '--json', 'nowhere/a.json']]
)
def test_wrong_usage_of_the_tool_is_one_message(check_data, arguments):
    status, out, err = check_data(*arguments)
    assert (status, out) == (2, '')
    assert err.startswith('error: ')
