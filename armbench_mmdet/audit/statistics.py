"""Statistics of a data set: images, instances, mask sizes, class balance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets.index import ColumnIndex
from armbench_mmdet.datasets.release import CLASSES, IGNORED

_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_COCO_EDGES_PX2 = (32**2, 96**2)


@dataclass
class SplitStatistics:
    """Numbers of one split.

    Attributes:
        place: ``subset/split``.
        images: Number of images.
        sizes: Image size in px to number of images.
        per_image: ``(I,)`` annotations of each image that are no crowds.
        sides_px: Class to ``(N,)`` square roots of the mask areas.
        sides_frac: Class to ``(N,)`` the same, relative to the square root of the image area.
    """

    place: str
    images: int
    sizes: dict[str, int]
    per_image: NDArray[np.int64]
    sides_px: dict[str, NDArray[np.float64]]
    sides_frac: dict[str, NDArray[np.float64]]

    @property
    def instances(self) -> dict[str, int]:
        """Class to number of instances."""
        return {name: len(sides) for name, sides in self.sides_px.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'place': self.place,
            'images': self.images,
            'image_sizes_px': self.sizes,
            'instances': self.instances,
            'instances_per_image': _quantiles(self.per_image),
            'classes': {
                name: {
                    'mask_side_px': _quantiles(sides),
                    'mask_side_frac': _quantiles(self.sides_frac[name]),
                    'coco_small_medium_large': np.histogram(sides**2, (0, *_COCO_EDGES_PX2, np.inf))[0].tolist(),
                }
                for name, sides in self.sides_px.items()
            },
        }


def measure_split(index: ColumnIndex, labels: NDArray[np.int64] | None, place: str) -> SplitStatistics:
    """Measure one annotation file.

    Args:
        index: The file.
        labels: ``(A,) int64`` labels; None when the categories are unknown, and everything counts as ``unknown``.
        place: ``subset/split``.

    Returns:
        The numbers, of annotations that have a mask and are no crowds.
    """
    used = index.usable_masks & ~index.crowds & (index.areas > 0)
    names = dict(enumerate(CLASSES))
    if labels is None:
        labels, names = np.zeros(index.num_annotations, np.int64), {0: 'unknown'}
    used &= labels != IGNORED
    sides_px = np.sqrt(np.where(used, index.areas, 0))
    image_sides_px = np.sqrt(index.widths.astype(float) * index.heights)
    sides_frac = sides_px / image_sides_px[index.image_rows]
    sizes, counts = np.unique(np.column_stack([index.widths, index.heights]), axis=0, return_counts=True)
    return SplitStatistics(
        place=place,
        images=index.num_images,
        sizes={f'{w}x{h}': int(n) for (w, h), n in zip(sizes.tolist(), counts.tolist(), strict=True)},
        per_image=np.bincount(index.image_rows[used], minlength=index.num_images),
        sides_px={name: sides_px[used & (labels == label)] for label, name in names.items()},
        sides_frac={name: sides_frac[used & (labels == label)] for label, name in names.items()},
    )


def plot_statistics(statistics: list[SplitStatistics], path: Path) -> None:
    """Draw instances per image, mask sizes in px and relative to the image, and class balance.

    Args:
        statistics: The splits, one colour each.
        path: Picture to write; the suffix chooses the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout='constrained')
    FigureCanvasAgg(figure)
    (counts, pixels), (relative, balance) = figure.subplots(2, 2)
    for split in (split for split in statistics if any(split.instances.values())):
        sides_px, sides_frac = (np.concatenate(list(one.values())) for one in (split.sides_px, split.sides_frac))
        style = {'histtype': 'step', 'density': True, 'label': split.place}
        counts.hist(split.per_image, bins=np.arange(-0.5, split.per_image.max() + 1.5), **style)
        pixels.hist(sides_px, bins=np.geomspace(1, max(2, sides_px.max()), 40), **style)
        relative.hist(sides_frac, bins=np.linspace(0, 1, 41), **style)
    counts.set(title='Instances per image', xlabel='instances', ylabel='share of images')
    pixels.set(title='Mask size', xlabel='√area in px', xscale='log', ylabel='density')
    relative.set(title='Mask size relative to the image', xlabel='√(mask area / image area)', ylabel='density')
    places = [split.place for split in statistics]
    left = np.zeros(len(places))
    for name in dict.fromkeys(name for split in statistics for name in split.instances):
        widths = np.array([split.instances.get(name, 0) for split in statistics])
        balance.barh(places, widths, left=left, label=name)
        left += widths
    balance.set(title='Class balance', xlabel='instances')
    for axes in (counts, balance):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize='small')
    figure.savefig(path, dpi=120)


def _quantiles(values: NDArray[Any]) -> dict[str, float] | None:
    """Percentiles and mean of some values, None of no values."""
    if len(values) == 0:
        return None
    found = dict(zip([f'p{q}' for q in _QUANTILES], np.percentile(values, _QUANTILES), strict=True))
    return {name: round(float(value), 4) for name, value in {**found, 'mean': np.mean(values)}.items()}
