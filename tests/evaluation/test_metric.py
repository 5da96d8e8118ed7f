"""The metric as mmengine calls it."""

import contextlib
import logging

import coco_files
import pytest
from coco_random import random_dataset, truth_of
from coco_reference import twelve_numbers
from metric_runs import META, as_samples, run
from mmdet.datasets import ConcatDataset

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.result import read_result


def close(value: float | None, reference: float) -> bool:
    return value is None if reference == -1 else value == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize('masks', ['bitmaps', 'rle'])
@pytest.mark.parametrize('seed', [1, 8])
def test_logged_numbers_are_pycocotools_numbers(seed, masks):
    truth, detections = random_dataset(seed)
    logged, _ = run(truth, as_samples(truth, detections, masks))
    keys = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR_1', 'AR_10', 'AR_100')
    for iou_type in ('bbox', 'segm'):
        reference = twelve_numbers(truth, detections, iou_type)
        for key, value in zip(keys, reference[:9], strict=True):
            assert close(logged[f'coco/{iou_type}_{key}'], value), (iou_type, key)


def test_each_class_is_logged_apart():
    truth, detections = random_dataset(1)
    logged, metric = run(truth, as_samples(truth, detections))
    assert set(logged) == set(metric.logged_names())
    for class_id, name in ((1, 'tote'), (2, 'object')):
        own = {**truth, 'categories': [c for c in truth['categories'] if c['id'] == class_id]}
        own['annotations'] = [a for a in truth['annotations'] if a['category_id'] == class_id]
        reference = twelve_numbers(own, [d for d in detections if d['category_id'] == class_id], 'segm')
        assert close(logged[f'coco/segm_{name}_mAP'], reference[0])
        assert close(logged[f'coco/segm_{name}_mAP_50'], reference[1])
        assert close(logged[f'coco/segm_{name}_AR_100'], reference[8])


def test_an_image_processed_twice_counts_once():
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    once, _ = run(truth, samples)
    metric = ArmbenchMetric(ground_truth=truth_of(truth))
    metric.dataset_meta = META
    for sample in [*samples, samples[0], samples[1]]:
        metric.process({}, [sample])
    assert metric.evaluate(len(samples) + 2) == once
    assert metric.result.images.repeated == 2


def test_images_not_seen_are_reported_and_count_as_missed(caplog):
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    seen = [s['img_id'] for s in samples[1:]]
    with caplog.at_level(logging.WARNING):
        logged, metric = run(truth, samples[1:])
    assert metric.result.images.not_seen == 1
    reference = twelve_numbers(truth, [d for d in detections if d['image_id'] in seen], 'segm')
    assert close(logged['coco/segm_mAP'], reference[0])


def test_no_predictions_at_all_is_an_error():
    with pytest.raises(InputError, match='at least one image'):
        run(random_dataset(1)[0], [])


def transpose(sample):
    sample['pred_instances']['masks'] = sample['pred_instances']['masks'].transpose(1, 2)


FAULTS = [
    (transpose, 'mask size must be that of the image'),
    (lambda sample: (sample.pop('ori_shape'), transpose(sample)), 'mask size must be that of the image'),
    (lambda sample: sample['pred_instances']['scores'].fill_(float('nan')), 'scores must be finite'),
    (lambda sample: sample['pred_instances'].update(masks=[]), 'as many of each'),
    (lambda sample: sample.update(img_id=4711), 'image_id must be an image of the ground truth'),
]


@pytest.mark.parametrize(('fault', 'message'), FAULTS)
def test_faulty_predictions_are_refused(fault, message):
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    sample = next(s for s in samples if (s['pred_instances']['labels'] == 1).any())
    fault(sample)
    with pytest.raises(InputError, match=message):
        run(truth, samples)


def test_boxes_alone_are_enough_for_bbox():
    truth, detections = random_dataset(1)
    logged, metric = run(truth, as_samples(truth, detections, masks='none'), metric='bbox')
    assert close(logged['coco/bbox_mAP'], twelve_numbers(truth, detections, 'bbox')[0])
    assert metric.result.segm is None


def test_the_result_file_is_written(tmp_path):
    truth, detections = random_dataset(1)
    path = tmp_path / 'results' / 'mix_test.json'
    identity = {'config': 'c.py', 'checkpoint': 'last.pth', 'seed': 3}
    logged, metric = run(truth, as_samples(truth, detections), result_file=str(path), identity=identity)
    assert read_result(path) == metric.result
    assert len(list(path.parent.iterdir())) == 6, 'COCO results and match tables lie beside'
    assert 0 < metric.result.boundary.mAP < metric.result.segm.mAP
    assert set(logged) == set(metric.logged_names())
    stored = metric.result.identity
    assert {'config': stored.config, 'checkpoint': stored.checkpoint, 'seed': stored.seed} == identity
    assert (stored.subset, stored.split) == ('mix-object-tote', 'test')
    assert 'torch' in stored.versions


def test_ground_truth_is_loaded_once_from_the_data_sets_file(tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'cache'))
    truth, detections = random_dataset(1)
    categories = [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'item'}]
    ann_file = coco_files.write_json(tmp_path / 'test.json', {**truth, 'categories': categories})
    source = GroundTruthSource(str(ann_file), category_map={'item': 'object'})
    metric = ArmbenchMetric()
    metric.dataset_meta = {'classes': ('tote', 'object'), **source.as_metainfo()}
    metric.process({}, as_samples(truth, detections))
    first = metric.evaluate(len(truth['images']))
    ann_file.unlink()
    metric.process({}, as_samples(truth, detections))
    second = metric.evaluate(len(truth['images']))
    assert first == second
    assert all('counts' in mask for mask in metric.ground_truth.masks)
    assert first['coco/segm_object_mAP'] is not None


def test_missing_ground_truth_is_one_clear_error():
    metric = ArmbenchMetric()
    with pytest.raises(InputError, match='got a data set of another type'):
        metric.ground_truth  # noqa: B018


@pytest.mark.parametrize(
    ('file', 'subset', 'split'),
    [
        ('mix-object-tote/val.json', 'mix-object-tote', 'val'),
        ('valid/_annotations.coco.json', 'valid', '_annotations.coco'),
        ('coins/instances_2026.json', 'coins', 'instances_2026'),
    ],
)
def test_a_result_is_named_after_the_file_it_was_measured_on(tmp_path, monkeypatch, file, subset, split):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'cache'))
    truth, detections = random_dataset(1)
    (tmp_path / file).parent.mkdir()
    coco_files.write_json(tmp_path / file, truth)
    metric = ArmbenchMetric(log_table=False)
    metric.dataset_meta = {**META, **GroundTruthSource(str(tmp_path / file)).as_metainfo()}
    metric.write_to(tmp_path / 'results', {'seed': 3, 'extra': {'checkpoint_sha256': 'feed'}})
    metric.process({}, as_samples(truth, detections))
    metric.evaluate(len(truth['images']))
    identity = read_result(tmp_path / f'results/{subset}_{split}.json').identity
    assert (identity.subset, identity.split, identity.seed) == (subset, split, 3)
    assert identity.extra['ann_file'] == str(tmp_path / file)
    assert identity.extra['checkpoint_sha256'] == 'feed'
    assert identity.data_fingerprint.startswith('sha256:')


SEVERAL = [(['val', 'test'], ['ground_truth']), (['val', 'val'], []), (['val'], [])]


@pytest.mark.parametrize(('parts', 'ignored'), SEVERAL)
def test_data_of_several_files_are_refused_not_scored_in_part(tmp_path, monkeypatch, parts, ignored):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'images').mkdir()
    for seed, split in enumerate(('val', 'test'), 1):
        coco_files.write_json(tmp_path / f'{split}.json', random_dataset(seed)[0])
    options = {'data_root': tmp_path, 'test_mode': True, 'pipeline': []}
    joined = ConcatDataset([ArmbenchDataset(ann_file=f'{part}.json', **options) for part in parts], ignore_keys=ignored)
    metric = ArmbenchMetric()
    metric.dataset_meta = joined.metainfo
    with pytest.raises(InputError, match='one annotation file') if parts[1:] else contextlib.nullcontext():
        assert metric.ground_truth.images
