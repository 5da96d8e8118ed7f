import json

from _annotations import write_synthetic_annotations
from pycocotools import mask as coco_mask


def test_the_file_has_the_size_asked_for_and_is_sound(tmp_path):
    write_synthetic_annotations(tmp_path / 'a.json', 20, 200, seed=1)
    write_synthetic_annotations(tmp_path / 'b.json', 20, 200, seed=1)
    assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()
    document = json.loads((tmp_path / 'a.json').read_text())
    assert (len(document['images']), len(document['annotations'])) == (20, 200)
    assert [a['id'] for a in document['annotations']] == list(range(1, 201))
    assert sum(a['category_id'] == 1 for a in document['annotations']) == 20
    for annotation in document['annotations'][:20]:
        rle = coco_mask.frPyObjects(annotation['segmentation'], 2048, 2448)
        assert abs(coco_mask.area(rle)[0] - annotation['area']) < 0.05 * annotation['area'] + 100
