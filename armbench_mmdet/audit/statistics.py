"""Statistics of a data set: images, instances, mask sizes, class balance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets.index import ColumnIndex
from armbench_mmdet.datasets.release import CLASSES

_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_COCO_EDGES_PX2 = (0, 32**2, 96**2, np.inf)


def measure_split(index: ColumnIndex, labels: NDArray[np.int64] | None, place: str) -> dict[str, Any]:
    """Measure the annotations of a file that have a mask and are no crowds.

    Args:
        index: The file.
        labels: ``(A,) int64`` labels; None when the categories are unknown, and everything counts as ``unknown``.
        place: ``subset/split``.

    Returns:
        For JSON: number of images and of images of each size, instances by class and in an image, and for each class
        and for ``all`` the sides of the masks (√area in px, and relative to √image area) and COCO's size bins.
    """
    used = index.usable_masks & ~index.crowds & (index.areas > 0)
    if labels is None:
        chosen = {'unknown': used}
    else:
        used = used & (labels >= 0)
        chosen = {name: used & (labels == label) for label, name in enumerate(CLASSES)}
    sides_px = np.sqrt(np.where(used, index.areas, 0))
    sides_frac = sides_px / np.sqrt(index.widths.astype(float) * index.heights)[index.image_rows]
    sizes, counts = np.unique(np.column_stack([index.widths, index.heights]), axis=0, return_counts=True)
    return {
        'place': place,
        'images': index.num_images,
        'image_sizes_px': {f'{w}x{h}': n for (w, h), n in zip(sizes.tolist(), counts.tolist(), strict=True)},
        'instances': {name: int(rows.sum()) for name, rows in chosen.items()},
        'instances_per_image': _quantiles(np.bincount(index.image_rows[used], minlength=index.num_images)),
        'classes': {
            name: {
                'mask_side_px': _quantiles(sides_px[rows]),
                'mask_side_frac': _quantiles(sides_frac[rows]),
                'coco_small_medium_large': np.histogram(sides_px[rows] ** 2, _COCO_EDGES_PX2)[0].tolist(),
            }
            for name, rows in {**chosen, 'all': used}.items()
        },
    }


def _quantiles(values: NDArray[Any]) -> dict[str, float] | None:
    """Percentiles and mean of some values, None of no values."""
    if len(values) == 0:
        return None
    found = dict(zip([f'p{q}' for q in _QUANTILES], np.percentile(values, _QUANTILES), strict=True))
    return {name: round(float(value), 4) for name, value in {**found, 'mean': np.mean(values)}.items()}
