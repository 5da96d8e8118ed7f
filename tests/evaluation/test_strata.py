"""Size and density bins against pycocotools on the part of the data they stand for."""

import numpy as np
import pytest
from coco_random import matching_of, random_dataset
from coco_reference import twelve_numbers

from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.result import TypeScores
from armbench_mmdet.evaluation.strata import scores_of_type


def scores_of(truth, detections, iou_type: str) -> TypeScores:
    matching = matching_of(truth, detections, iou_type)
    return scores_of_type(matching, match_table(matching))


def same(value, reference):
    return value is None if reference == -1 else value == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_a_density_bin_is_the_evaluation_of_its_images(iou_type):
    checked = 0
    for seed in range(12):
        truth, detections = random_dataset(seed, images=8)
        table = match_table(matching_of(truth, detections, iou_type))
        density = dict(zip(table.image_ids.tolist(), table.density.tolist(), strict=True))
        scores = scores_of(truth, detections, iou_type).per_density
        for name, stratum in scores.items():
            images = {i for i, own in density.items() if own == name}
            assert stratum.images == len(images)
            if not images:
                assert stratum.mAP is None
                continue
            part = {**truth, 'images': [i for i in truth['images'] if i['id'] in images]}
            part['annotations'] = [a for a in truth['annotations'] if a['image_id'] in images]
            reference = twelve_numbers(part, [d for d in detections if d['image_id'] in images], iou_type)
            assert stratum.instances == sum(not a['iscrowd'] for a in part['annotations'])
            assert same(stratum.mAP, reference[0])
            assert same(stratum.mAP_50, reference[1])
            assert same(stratum.AR_100, reference[8])
            checked += 1
    assert checked > 12


def test_size_bins_are_cocos_and_count_their_instances():
    truth, detections = random_dataset(4, images=6)
    sizes = scores_of(truth, detections, 'segm').per_size['coco']
    reference = twelve_numbers(truth, detections, 'segm')
    assert same(sizes['s'].mAP, reference[3])
    assert same(sizes['m'].mAP, reference[4])
    assert same(sizes['l'].mAP, reference[5])
    assert same(sizes['m'].AR_100, reference[10])
    areas = np.array([a['area'] for a in truth['annotations'] if not a['iscrowd']])
    assert [sizes[name].instances for name in 'sml'] == [
        int((areas <= 32**2).sum()),
        int(((areas >= 32**2) & (areas <= 96**2)).sum()),
        int((areas >= 96**2).sum()),
    ]


def test_relative_bins_of_a_large_photo_are_those_of_the_photo_made_small():
    """Every length times 4: COCO's bins change, the relative ones do not."""
    truth, detections = random_dataset(7, images=5)
    before = scores_of(truth, detections, 'bbox').per_size
    for image in truth['images']:
        image['height'], image['width'] = 4 * image['height'], 4 * image['width']
    for shape in truth['annotations'] + detections:
        shape['bbox'] = [4 * side for side in shape['bbox']]
    for annotation in truth['annotations']:
        annotation['area'] *= 16
    after = scores_of(truth, detections, 'bbox').per_size
    assert after['relative'] == before['relative']
    assert after['coco'] != before['coco']
