"""The picture of what helps against the two shifts: ``python docs/shift.py`` draws docs/shift.svg from docs/results."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from armbench_mmdet.ablation import BASELINE, read_tables
from armbench_mmdet.evaluation.matches import difference_intervals

DOCS = Path(__file__).resolve().parent
MODELS = {'Mask R-CNN': 'mask-rcnn_minibench-shift', 'Mask2Former': 'mask2former_minibench-shift'}
SUBSETS = {
    'mix-object-tote': 'mix',
    'zoomed-out-tote-transfer-set': 'zoomed-out',
    'same-object-transfer-set': 'same-object',
}
BEFORE, AFTER = '#9aa3ad', '#0b6e4f'


def main() -> None:
    """Draw both models side by side: from the baseline's mask mAP to that of `final`, with the gain's interval."""
    mpl.rcParams.update({'svg.hashsalt': 'shift', 'font.size': 10})
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharex=True, sharey=True, layout='constrained')
    for axis, (model, folder) in zip(axes, MODELS.items(), strict=True):
        rows = []
        for subset, tables in read_tables(DOCS / 'results' / folder).items():
            gains = difference_intervals(tables['final'], tables[BASELINE])
            for name in tables[BASELINE][0].classes:
                gain = gains[name]
                if gain.value is None or gain.low is None or gain.high is None:
                    continue
                start = np.mean([one.ap(class_name=name) or 0 for one in tables[BASELINE]])
                rows.append((f'{SUBSETS[subset]}, {name}', *(100 * np.array([start, gain.value, gain.low, gain.high]))))
        for row, (_, start, gain, low, high) in enumerate(rows):
            axis.plot([start, start + gain], [row, row], color=AFTER, lw=2, alpha=0.35)
            axis.plot([start], [row], 'o', color=BEFORE, label='baseline' if not row else None)
            spread = [[gain - low], [high - gain]]
            axis.errorbar(
                [start + gain], [row], xerr=spread, fmt='o', color=AFTER, capsize=3, label='' if row else 'final'
            )
        axis.set(title=model, xlabel='mask mAP, %', yticks=range(len(rows)), yticklabels=[row[0] for row in rows])
        axis.grid(axis='x', alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].invert_yaxis()
    axes[0].legend(loc='lower right', frameon=False)
    figure.savefig(DOCS / 'shift.svg', metadata={'Date': None})


if __name__ == '__main__':
    main()
