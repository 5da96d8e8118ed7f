"""Small COCO files and data set folders for the tests of the data layer."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 64, 48

_TOTE = {'category_id': 1, 'bbox': [4, 4, 50, 40], 'segmentation': [[4, 4, 54, 4, 54, 44, 4, 44]]}
_BOX = {'category_id': 2, 'bbox': [10.5, 10, 20, 10], 'segmentation': [[10.5, 10, 30.5, 10, 30.5, 20, 10.5, 20]]}
_BAG = {'category_id': 2, 'bbox': [5, 5, 10, 10], 'segmentation': [[5, 5, 15, 5, 15, 15, 5, 15]]}
_DOCUMENT = {
    'images': [
        {'id': 1, 'file_name': 'A.jpg', 'width': WIDTH, 'height': HEIGHT},
        {'id': 2, 'file_name': 'B.jpg', 'width': WIDTH, 'height': HEIGHT},
    ],
    'annotations': [
        {'id': 1, 'image_id': 1, 'area': 2091, 'iscrowd': 0, **_TOTE},
        {'id': 2, 'image_id': 1, 'area': 200, 'iscrowd': 0, **_BOX},
        {'id': 3, 'image_id': 2, 'area': 121, 'iscrowd': 0, **_BAG},
    ],
    'categories': [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}],
}


def document() -> dict[str, Any]:
    """A well-formed file: two images, three annotations."""
    return copy.deepcopy(_DOCUMENT)


def write_json(path: Path, content: Any) -> Path:
    """Write bytes as they are and anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Path:
    """Write a picture of noise, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_split(root: Path, content: Any, subset: str = 'mix-object-tote', split: str = 'train') -> Path:
    """Write an annotation file into a data set folder, and images A.jpg and B.jpg beside it."""
    folder = root / subset
    for seed, name in enumerate(('A.jpg', 'B.jpg')):
        if not (folder / 'images' / name).exists():
            write_image(folder / 'images' / name, seed)
    return write_json(folder / f'{split}.json', content)


def random_document(seed: int, images: int = 12) -> dict[str, Any]:
    """A well-formed file with everything that stock ``CocoDataset`` understands, ids and order mixed up."""
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(images).tolist()
    records = [
        {'id': i, 'file_name': f'{rng.integers(1 << 40):010X}.jpg', 'width': WIDTH + i, 'height': HEIGHT + i % 3}
        for i in image_ids
    ]
    sizes = {record['id']: (record['width'], record['height']) for record in records}
    used = image_ids[: images - 2]
    annotations = []
    for ann_id in rng.permutation(6 * images).tolist():
        image_id = int(rng.choice(used))
        width, height = sizes[image_id]
        x, y = rng.uniform(-20, width), rng.uniform(-20, height)
        w, h = rng.choice([0.5, 8.0, 25.0], 2, p=[0.05, 0.5, 0.45])
        rings = [
            np.round(rng.uniform([x, y], [x + w, y + h], (int(rng.integers(3, 9)), 2)), 2).ravel().tolist()
            for _ in range(rng.integers(1, 3))
        ]
        runs = [int(rng.integers(0, 500)), 77, 100]
        size = [height, width]
        rle = coco_mask.frPyObjects({'size': size, 'counts': [*runs, height * width - sum(runs)]}, *size)
        crowd = bool(rng.random() < 0.2)
        one = {'id': ann_id, 'image_id': image_id, 'category_id': int(rng.integers(1, 3)), 'bbox': [x, y, w, h]}
        one |= {'area': float(rng.choice([0.0, 5.5, w * h])), 'iscrowd': int(crowd)}
        one |= {'ignore': int(rng.random() < 0.1), 'segmentation': rings}
        if crowd:
            one['segmentation'] = {'size': size, 'counts': rle['counts'].decode()}
        annotations.append(one)
    return {'images': records, 'annotations': annotations, 'categories': _DOCUMENT['categories']}
