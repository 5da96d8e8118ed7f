"""COCO annotation files of any size without images, to measure start-up at ARMBench's full size."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

FULL_SIZE = (44_253, 467_225)
"""Images and annotations of ARMBench's ``mix-object-tote`` (arXiv 2303.16382)."""

_IMAGE_SIZE_PX = (2448, 2048)
_POINTS = (20, 69)


def write_synthetic_annotations(
    path: Path, images: int = FULL_SIZE[0], annotations: int = FULL_SIZE[1], seed: int = 0
) -> None:
    """Write a COCO file of star-shaped polygons, one tote and some objects an image.

    The file is written image by image, so memory does not grow with its size. At :data:`FULL_SIZE`
    it has about 380 MB, as ARMBench's own files would have.

    Args:
        path: File to write.
        images: Number of images, each 2448×2048 px.
        annotations: Number of annotations over all images, at least ``images``.
        seed: Same seed, same file.
    """
    rng = np.random.default_rng(seed)
    others = rng.multinomial(annotations - images, np.full(images, 1 / images)) if images else np.zeros(0, int)
    encode = msgspec.json.encode
    categories = [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}]
    width, height = _IMAGE_SIZE_PX
    with path.open('wb') as file:
        file.write(b'{"info":{},"categories":' + encode(categories) + b',"images":[')
        for row in range(images):
            image = {'id': row + 1, 'file_name': f'{row:010X}.jpg', 'width': width, 'height': height}
            file.write((b',\n' if row else b'\n') + encode(image))
        file.write(b'],\n"annotations":[')
        next_id = 1
        for row in range(images):
            records = _records(rng, row + 1, next_id, 1 + int(others[row]))
            next_id += len(records)
            file.write((b',\n' if row else b'\n') + b',\n'.join(map(encode, records)))
        file.write(b']}\n')


def _records(rng: np.random.Generator, image_id: int, first_id: int, count: int) -> list[dict[str, Any]]:
    """Annotations of one image: a tote and ``count - 1`` objects."""
    width, height = _IMAGE_SIZE_PX
    points = rng.integers(*_POINTS, count)
    angle = np.concatenate([np.linspace(0, 2 * np.pi, n, endpoint=False) for n in points])
    radius_frac = rng.uniform(0.7, 1.0, len(angle))
    size_px = rng.uniform(20, 300, count)
    size_px[0] = rng.uniform(700, 1000)
    center_x, center_y = rng.uniform(320, width - 320, count), rng.uniform(320, height - 320, count)
    center_x[0], center_y[0] = width / 2, height / 2
    reach_px = np.repeat(size_px, points) * radius_frac
    x = np.round(np.repeat(center_x, points) + reach_px * np.cos(angle), 2)
    y = np.round(np.repeat(center_y, points) + reach_px * np.sin(angle), 2)
    rings = np.split(np.stack([x, y], 1), np.cumsum(points)[:-1])
    records = []
    for offset, ring in enumerate(rings):
        x1, y1 = ring.min(0)
        w, h = np.round(np.ptp(ring, 0), 2)
        following = np.roll(ring, -1, 0)
        area = abs(float(np.sum(ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]))) / 2
        records.append(
            {
                'id': first_id + offset,
                'image_id': image_id,
                'category_id': 1 if offset == 0 else 2,
                'bbox': [float(x1), float(y1), float(w), float(h)],
                'area': round(area, 2),
                'iscrowd': 0,
                'segmentation': [ring.ravel().tolist()],
            }
        )
    return records
