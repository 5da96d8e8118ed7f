"""ARMBench as a data set: the column index, the data set classes, ground truth, and procedural totes."""

from armbench_mmdet.datasets.armbench import ArmbenchDataset, MinibenchDataset
from armbench_mmdet.datasets.index import ColumnIndex, open_index
from armbench_mmdet.datasets.release import SPLITS, SUBSETS, resolve_data_root

__all__ = ['SPLITS', 'SUBSETS', 'ArmbenchDataset', 'ColumnIndex', 'MinibenchDataset', 'open_index', 'resolve_data_root']
