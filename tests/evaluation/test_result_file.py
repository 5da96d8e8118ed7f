"""The result file: types, schema, older files, errors that name the file."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import jsonschema
import msgspec
import pytest
from coco_random import as_samples, random_dataset, run

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import Result, read_result, result_table, shown, write_result

VERSION_1 = Path(__file__).with_name('result_version_1.json')
"""Written by the first edition, which knew no types in memory."""
WITH_ANATOMY = Path(__file__).with_name('result_version_1_anatomy.json')
"""Written when operating points, picks and the anatomy of errors had come to it."""


@pytest.fixture(scope='module')
def result() -> Result:
    truth, detections = random_dataset(1)
    return run(truth, as_samples(truth, detections))[1].result


def test_a_result_comes_back_as_it_was_and_follows_its_json_schema(result, tmp_path):
    path = tmp_path / 'a' / 'mix_test.json'
    write_result(path, result)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    jsonschema.validate(content, msgspec.json.schema(Result))
    assert read_result(path) == result
    assert not [p for p in path.parent.iterdir() if p != path], 'no draft left behind'


def with_keys_of_today(old: dict) -> dict:
    """What has been added since is empty; what nothing read is no longer kept."""
    for lrp in old.get('anatomy', {}).get('lrp', {}).values():
        for part in ('localisation', 'false_positives', 'false_negatives'):
            del lrp[part]
    speed = old['speed'] and {'stages': {}, 'parameters': None, 'gflops': None, 'threads': None, **old['speed']}
    return {'operation': None, 'picks': None, 'anatomy': None, **old, 'speed': speed}


@pytest.mark.parametrize('file', [VERSION_1, WITH_ANATOMY], ids=lambda file: file.stem)
def test_a_file_of_an_older_version_is_read_and_has_the_keys_of_today(file, tmp_path):
    old = json.loads(file.read_text())
    jsonschema.validate(old, msgspec.json.schema(Result))
    write_result(tmp_path / 'again.json', read_result(file))
    assert json.loads((tmp_path / 'again.json').read_text()) == with_keys_of_today(old)


def test_what_does_not_exist_is_null_and_shown_as_a_dash(result, tmp_path):
    empty = msgspec.structs.replace(result, segm=msgspec.structs.replace(result.segm, mAP_s=math.nan))
    path = tmp_path / 'r.json'
    write_result(path, empty)
    assert json.loads(path.read_text())['segm']['mAP_s'] is None
    assert (shown(None), shown(0.61749)) == ('–', '0.617')
    assert '–' in result_table(read_result(path)).splitlines()[2]


def changed(change: Callable[[dict], object]) -> str:
    content = json.loads(VERSION_1.read_text())
    change(content)
    return json.dumps(content)


FAULTS = [
    (changed(lambda r: r.update(schema_version=99)), r'99 - at `\$.schema_version`'),
    (changed(lambda r: r.pop('schema_version')), 'missing required field `schema_version`'),
    (changed(lambda r: r['segm'].update(mAP='0.5')), r'\$.segm.mAP'),
    ('', 'JSON'),
    (VERSION_1.read_text().replace('mix', 'm\xfcx').encode('latin-1'), "can't decode byte 0xfc"),
    ('[]', 'got `array`'),
    (None, 'must be readable'),
]


@pytest.mark.parametrize(('text', 'message'), FAULTS)
def test_a_damaged_result_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / 'damaged.json'
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_result(path)
    assert 'damaged.json' in str(caught.value)
