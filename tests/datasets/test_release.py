"""The release's categories: a file gets the right labels, or is refused with a map that gives them."""

import re
from pathlib import Path

import coco_files
import pytest

from armbench_mmdet.configs import parse_options
from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.errors import InputError

MIX, ZOOMED, SAME = 'mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set'
BOTH, ONE = [(1, 'Tote'), (2, 'Object')], [(1, 'Object')]

LABELS = [  # folder, categories, ids of three annotations (the first two of one image), their labels, the map if any
    (MIX, BOTH, [1, 2, 2], [0, 1, 1]),
    (ZOOMED, BOTH, [1, 2, 1], [0, 1, 0]),
    (SAME, ONE, [1, 1, 1], [1, 1, 1]),
    (SAME, BOTH, [2, 2, 2], [1, 1, 1]),
    (MIX, None, [1, 2, 2], [0, 1, 1]),
    (MIX, [], [1, 2, 1], [0, 1, 0]),
    (ZOOMED, None, [2, 2, 1], [1, 1, 0]),
    (SAME, None, [1, 1, 1], [1, 1, 1]),
    (MIX, [(2, 'tote'), (1, ' OBJECT ')], [2, 1, 1], [0, 1, 1]),  # swapped
    (MIX, ONE, [1, 1, 1], [1, 1, 1]),  # one class only, by its name
    (MIX, [(0, 'background'), (1, 'Tote'), (2, 'Object')], [1, 2, 2], [0, 1, 1]),
    ('elsewhere', [(0, 'tote'), (1, 'object')], [0, 1, 1], [0, 1, 1]),
    ('elsewhere', ONE, [1, 1, 1], [1, 1, 1]),
    (MIX, [(1, 'tote'), (2, 'Tote')], [1, 2, 2], [0, 0, 0]),
    (MIX, [(1, 'bin'), (2, 'item')], [1, 2, 2], [0, 1, 1], {'Bin': 'tote', 'item': 'Object'}),
    (MIX, [(1, 'bin'), (2, 'item')], [1, 2, 2], [0, 1, 1], {1: 'tote', '2': 'object'}),
    (MIX, [(1, 'bin'), (2, 'object')], [1, 2, 2], [1, 1], {'bin': None}),
    (MIX, BOTH, [1, 2, 2], [1, 1, 1], {'tote': 'object'}),
    (MIX, None, [1, 2, 2], [0], {2: None}),
]

REFUSED = [  # folder, categories, ids, what is said
    (MIX, None, [1, 1, 1], 'have objects, id 2 in mix-object-tote, got id 1'),
    (ZOOMED, None, [1, 1, 1], 'have objects, id 2 in zoomed-out'),
    (MIX, None, [1, 1, 2], r'one tote, id 1 in mix-object-tote, an image \(several in 1 of 2 images\)'),
    (MIX, None, [0, 1, 1], 'no id but 1, 2, the ids of mix-object-tote, got id 0'),
    (SAME, None, [1, 2, 1], 'no id but 1, the ids of same-object-transfer-set, got id 1 .*, id 2'),
    (SAME, None, [2, 2, 2], 'no id but 1, the ids of same-object-transfer-set, got id 2'),
    (MIX, None, [1, 2, 3], 'no id but 1, 2'),
    ('elsewhere', None, [1, 2, 2], 'lie in the folder of its subset'),
    ('elsewhere', [], [1, 1, 1], 'lie in the folder of its subset'),
    (MIX, [(1, 'Behälter'), (2, 'Ware')], [1, 2, 2], "named tote or object, got 'Behälter'"),
    (MIX, [(1, '托盘'), (2, 'object')], [1, 2, 2], "named tote or object, got '托盘'"),
    (SAME, [(1, 'item')], [1, 1, 1], "named tote or object, got 'item'"),
]


def opened(root: Path, folder: str, categories: list | None, ids: list[int], category_map: dict | None = None):
    document = coco_files.document()
    del document['categories']
    if categories is not None:
        document['categories'] = [{'id': i, 'name': name} for i, name in categories]
    for annotation, category_id in zip(document['annotations'], ids, strict=True):
        annotation['category_id'] = category_id
    file = coco_files.write_split(root, document, folder)
    prefix = {'img': str(file.parent / 'images')}
    return ArmbenchDataset(ann_file=str(file), data_prefix=prefix, category_map=category_map, data_root=root)


@pytest.mark.parametrize('case', LABELS, ids=str)
def test_labels(case: tuple, tmp_path: Path) -> None:
    folder, categories, ids, labels, *category_map = case
    dataset = opened(tmp_path, folder, categories, ids, *category_map)
    assert [label for i in range(2) for label in dataset.get_cat_ids(i)] == labels


@pytest.mark.parametrize(('folder', 'categories', 'ids', 'said'), REFUSED)
def test_refusals_offer_a_map_for_each_reading(folder: str, categories, ids, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        opened(tmp_path, folder, categories, ids)
    texts = re.findall(r'category_map=(\{.*?\})', str(caught.value))
    maps = [parse_options([f'data.category_map={text}'])['data.category_map'] for text in texts]
    assert len(maps) == (2 if not categories and len(set(ids)) == 2 else 1)
    for category_map in maps:
        dataset = opened(tmp_path, folder, categories, ids, category_map)
        names = dict(categories or ())
        wanted = [category_map.get(i, category_map.get(names.get(i), names.get(i))) for i in ids]
        assert [('tote', 'object')[label] for i in range(2) for label in dataset.get_cat_ids(i)] == wanted
