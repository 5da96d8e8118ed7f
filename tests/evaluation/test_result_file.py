"""The result file: schema, atomic writing, errors that name the file."""

from __future__ import annotations

import copy
import json
import math

import jsonschema
import pytest
from coco_random import random_dataset
from metric_runs import as_samples, run

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import SCHEMA, read_result, result_table, shown, write_result
from armbench_mmdet.system import installed_versions


@pytest.fixture(scope='module')
def result():
    truth, detections = random_dataset(1)
    return run(truth, as_samples(truth, detections))[1].result


def test_a_result_follows_its_json_schema(result, tmp_path):
    path = write_result(tmp_path / 'a' / 'mix_test.json', result)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    jsonschema.validate(content, SCHEMA)
    assert read_result(path) == content == result
    assert not [p for p in path.parent.iterdir() if p != path], 'no draft left behind'


def test_the_shape_is_the_contracts(result):
    numbers = {'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR_1', 'AR_10', 'AR_100'}
    for iou_type in ('bbox', 'segm'):
        scores = result[iou_type]
        assert scores.keys() == numbers | {'per_class', 'per_size', 'per_density', 'confidence'}
        assert scores['per_class'].keys() == {'tote', 'object'}
        assert scores['per_class']['object'].keys() == numbers | {'instances'}
        assert scores['per_size'].keys() == {'coco', 'relative'}
        assert list(scores['per_size']['coco']) == ['s', 'm', 'l']
        assert list(scores['per_density']) == ['1-5', '6-10', '11-15', '16-20', '21-30', '31+']
    assert {'config', 'checkpoint', 'data_fingerprint', 'versions', 'seed'} <= result['identity'].keys()


def test_what_does_not_exist_is_null_and_shown_as_a_dash(result, tmp_path):
    empty = copy.deepcopy(result)
    empty['segm']['mAP_s'] = math.nan
    path = write_result(tmp_path / 'r.json', empty)
    assert json.loads(path.read_text())['segm']['mAP_s'] is None
    assert (shown(None), shown(0.61749)) == ('–', '0.617')
    assert '–' in result_table(read_result(path)).splitlines()[2]


FAULTS = [
    (lambda r: r.pop('segm'), None),  # a box-only model has none
    (lambda r: r.pop('identity'), 'identity'),
    (lambda r: r.update(schema_version=99), 'schema_version must be 1, got 99'),
    (lambda r: r.pop('schema_version'), 'schema_version must be 1, got None'),
    (lambda r: r['segm'].update(mAP='0.5'), r'\$.segm.mAP'),
    (lambda r: r['bbox'].pop('AR_100'), 'AR_100'),
    (lambda r: r['segm']['per_class']['tote'].update(instances=1.5), 'instances'),
]


@pytest.mark.parametrize(('damage', 'message'), FAULTS)
def test_a_damaged_result_is_refused_by_name(result, tmp_path, damage, message):
    content = copy.deepcopy(result)
    damage(content)
    path = tmp_path / 'damaged.json'
    path.write_text(json.dumps(content))
    if message is None:
        assert read_result(path)['segm'] is None
        return
    with pytest.raises(InputError, match=message) as caught:
        read_result(path)
    assert 'damaged.json' in str(caught.value)
    with pytest.raises(InputError, match=message):
        write_result(tmp_path / 'new.json', content)
    assert not (tmp_path / 'new.json').exists()


@pytest.mark.parametrize(('text', 'message'), [('', 'JSON'), ('{"a": ', 'JSON'), ('[]', 'schema_version')])
def test_a_malformed_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / 'broken.json'
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_result(path)
    assert 'broken.json' in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r'readable.*nowhere\.json'):
        read_result(tmp_path / 'nowhere.json')


def test_versions_name_what_the_numbers_depend_on():
    assert {'torch', 'faster-coco-eval', 'numpy'} <= installed_versions().keys()
    assert installed_versions(['no-such-package']) == {}
