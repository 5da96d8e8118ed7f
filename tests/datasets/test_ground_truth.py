import json

import coco_files
import numpy as np
import pytest

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource


def test_it_holds_what_the_file_holds(tmp_path):
    document = coco_files.random_document(0)
    truth = GroundTruthSource(str(coco_files.write_json(tmp_path / 'a.json', document))).load()
    given = GroundTruth.of(document)
    assert (truth.images, truth.categories) == (given.images, given.categories)
    rows = np.argsort(truth.image_ids, kind='stable'), np.argsort(given.image_ids, kind='stable')
    (*ours, own), (*theirs, other) = truth.take(rows[0])[2:], given.take(rows[1])[2:]
    assert [column.tolist() for column in ours] == [column.tolist() for column in theirs]
    assert list(own) == list(other)


@pytest.mark.parametrize(
    'segmentation', [None, [], [[1, 2, 3, 4]], {'size': [1, 1], 'counts': [1]}, [[1e9, 0, 1, 1, 0, 0]]]
)
def test_what_has_no_mask_cannot_be_scored(tmp_path, segmentation):
    document = coco_files.document()
    document['annotations'][1]['segmentation'] = segmentation
    truth = GroundTruthSource(str(coco_files.write_json(tmp_path / 'a.json', document))).load()
    assert truth.ids.tolist() == [1, 3]


def test_the_cache_folder_of_the_data_set_is_everyones(minibench_root, tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'default'))
    data_set = ArmbenchDataset(data_root=minibench_root, split='test', cache_dir=tmp_path / 'mine')
    of_a_checkpoint = GroundTruthSource.of(json.loads(json.dumps(data_set.metainfo)))
    of_a_result = GroundTruthSource.from_location(of_a_checkpoint.location())
    assert of_a_checkpoint == data_set.ground_truth == of_a_result
    assert of_a_result.load().ids.tolist() == data_set.columns.annotation_ids.tolist()
    assert (tmp_path / 'mine').is_dir()
    assert not (tmp_path / 'default').exists()
