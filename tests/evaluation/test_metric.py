"""The metric as mmengine calls it."""

import contextlib
import json

import coco_files
import numpy as np
import pytest
from coco_random import META, as_samples, random_dataset, run, truth_of
from coco_reference import our_numbers, twelve_numbers
from mmdet.datasets import ConcatDataset

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.result import SUMMARY_KEYS, read_result, result_table


@pytest.mark.parametrize('masks', ['bitmaps', 'rle', 'none'])
@pytest.mark.parametrize('seed', [1, 8])
def test_logged_numbers_are_pycocotools_numbers(seed, masks):
    truth, detections = random_dataset(seed)
    types = ['bbox'] if masks == 'none' else ['bbox', 'segm']
    logged, metric = run(truth, as_samples(truth, detections, masks), metric=types)
    assert list(metric.result.scores) == types[::-1]
    assert set(logged) == set(metric.logged_names())
    for iou_type in types:
        for name in ('', 'tote_', 'object_'):
            own = {**truth, 'categories': [c for c in truth['categories'] if c['name'] in (name or 'tote_object')]}
            known = [c['id'] for c in own['categories']]
            own['annotations'] = [a for a in truth['annotations'] if a['category_id'] in known]
            reference = twelve_numbers(own, [d for d in detections if d['category_id'] in known], iou_type)[:9]
            values = [logged[f'coco/{iou_type}_{name}{key}'] for key in SUMMARY_KEYS]
            np.testing.assert_allclose([-1 if one is None else one for one in values], reference, rtol=0, atol=1e-9)


def test_an_image_processed_twice_counts_once_and_one_that_was_not_as_missed():
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    metric = ArmbenchMetric(ground_truth=truth_of(truth))
    metric.dataset_meta = META
    metric.process({}, [*samples[1:], samples[1], samples[2]])
    metric.evaluate(len(samples) + 1)
    assert (metric.result.images.repeated, metric.result.images.not_seen) == (2, 1)
    seen = [d for d in detections if d['image_id'] != samples[0]['img_id']]
    reference = twelve_numbers(truth, seen, 'segm')
    np.testing.assert_allclose(our_numbers(metric.result.segm), reference, rtol=0, atol=1e-9)


def test_the_truth_scores_one_where_no_tote_is_annotated():
    """As in same-object, where predicting one is neither right nor wrong."""
    truth, _ = random_dataset(1)
    perfect = [{**one, 'score': 0.9} for one in truth['annotations']]
    for one in truth['annotations']:
        one['iscrowd'] = 0
    truth['annotations'] = [one for one in truth['annotations'] if one['category_id'] == 2]
    logged, metric = run(truth, as_samples(truth, perfect))
    assert logged['coco/segm_mAP'] == logged['coco/segm_object_mAP'] == 1.0
    assert logged['coco/segm_tote_mAP'] is None
    assert metric.result.not_annotated == ['tote']
    assert 'no tote is annotated' in result_table(metric.result)


def transpose(sample):
    sample['pred_instances']['masks'] = sample['pred_instances']['masks'].transpose(1, 2)


FAULTS = [
    (transpose, 'mask size must be that of the image'),
    (lambda sample: (sample.pop('ori_shape'), transpose(sample)), 'mask size must be that of the image'),
    (lambda sample: sample['pred_instances']['scores'].fill_(float('nan')), 'scores must be finite'),
    (lambda sample: sample['pred_instances'].update(masks=[]), 'as many of each'),
    (lambda sample: sample['pred_instances']['labels'].fill_(2), 'labels must be from 0 to 1, got 2'),
    (lambda sample: sample['pred_instances'].pop('masks'), 'a box is no mask'),
    (lambda sample: sample.update(img_id=4711), 'image_id must be an image of the ground truth'),
]


@pytest.mark.parametrize(('fault', 'message'), FAULTS)
def test_faulty_predictions_are_refused(fault, message):
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    fault(next(s for s in samples if (s['pred_instances']['labels'] == 1).any()))
    with pytest.raises(InputError, match=message):
        run(truth, samples)


@pytest.fixture
def measured(tmp_path):
    """Evaluates random predictions on an annotation file; the folder and the split of the result are its names."""

    def measure(file: str, seed: int = 1) -> tuple[ArmbenchMetric, dict, dict]:
        truth, detections = random_dataset(seed, images=8)
        coco_files.write_json(tmp_path / file, truth)
        metric = ArmbenchMetric(log_table=False)
        metric.dataset_meta = {**META, **GroundTruthSource(str(tmp_path / file)).as_metainfo()}
        metric.write_to(tmp_path / 'results', {'seed': 3, 'extra': {'checkpoint_sha256': 'feed'}})
        metric.process({}, as_samples(truth, detections))
        return metric, metric.evaluate(len(truth['images'])), truth

    return measure


def test_a_result_lies_with_all_it_needs_under_the_name_of_its_data(tmp_path, measured):
    metric, _, truth = measured('valid/_annotations.coco.json')
    path = tmp_path / 'results/valid__annotations.coco.json'
    result = read_result(path)
    assert result == metric.result
    assert (result.identity.subset, result.identity.split, result.identity.seed) == ('valid', '_annotations.coco', 3)
    assert result.identity.extra == {**metric.source.location(), 'checkpoint_sha256': 'feed'}
    assert result.identity.data_fingerprint.startswith('sha256:')
    assert 'torch' in result.identity.versions
    assert 0 < result.boundary.mAP < result.segm.mAP
    assert len(list(path.parent.iterdir())) == 6, 'COCO results and match tables lie beside'
    for iou_type in ('bbox', 'segm'):  # as a reviewer would, with nothing of ours
        written = json.loads(path.with_suffix(f'.{iou_type}.json').read_text())
        assert all(('segmentation' in one) == (iou_type == 'segm') for one in written)
        reference = twelve_numbers(truth, written, iou_type)
        np.testing.assert_allclose(our_numbers(result.scores[iou_type]), reference, rtol=0, atol=1e-9)


def test_a_test_uses_the_threshold_of_val(measured):
    splits = measured('mix/val.json', seed=4)[0], measured('mix/test.json', seed=6)[0]
    val, test = (metric.result.operation['object'] for metric in splits)
    assert val.of_val is None
    assert test.of_val.threshold == val.best.threshold != test.best.threshold


def test_ground_truth_is_loaded_once_from_the_data_sets_file(tmp_path, measured):
    metric, logged, truth = measured('mix/test.json')
    (tmp_path / 'mix/test.json').unlink()
    metric.process({}, as_samples(truth, random_dataset(1, images=8)[1]))
    assert metric.evaluate(len(truth['images'])) == logged


def test_missing_predictions_and_ground_truth_are_errors():
    with pytest.raises(InputError, match='at least one image'):
        run(random_dataset(1)[0], [])
    with pytest.raises(InputError, match='got a data set of another type'):
        ArmbenchMetric().ground_truth  # noqa: B018


SEVERAL = [(['val', 'test'], ['ground_truth']), (['val', 'val'], []), (['val'], [])]


@pytest.mark.parametrize(('parts', 'ignored'), SEVERAL)
def test_data_of_several_files_are_refused_not_scored_in_part(tmp_path, parts, ignored):
    (tmp_path / 'images').mkdir()
    for seed, split in enumerate(('val', 'test'), 1):
        coco_files.write_json(tmp_path / f'{split}.json', random_dataset(seed)[0])
    options = {'data_root': tmp_path, 'test_mode': True, 'pipeline': []}
    joined = ConcatDataset([ArmbenchDataset(ann_file=f'{part}.json', **options) for part in parts], ignore_keys=ignored)
    metric = ArmbenchMetric()
    metric.dataset_meta = joined.metainfo
    with pytest.raises(InputError, match='one annotation file') if parts[1:] else contextlib.nullcontext():
        assert metric.ground_truth.images
