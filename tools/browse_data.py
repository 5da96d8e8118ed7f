"""Draw what the training pipeline really feeds the model: ``python tools/browse_data.py CONFIG --out sheet.png``."""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw samples of the training pipeline on one sheet')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', type=Path, required=True, help='picture to write, .png or .jpg')
    parser.add_argument('--num', type=int, default=12, help='number of images (default: 12)')
    parser.add_argument('--columns', type=int, default=4, help='pictures in a row (default: 4)')
    parser.add_argument('--cell-px', type=int, default=360, help='side of a picture on the sheet')
    parser.add_argument('--seed', type=int, default=0, help='seed of the choice of images and of the transforms')
    parser.add_argument(
        '--augmentations',
        action='store_true',
        help='one row for each custom augmentation on --columns images, instead of the pipeline',
    )
    parser.add_argument('--data-root', help='folder that holds the subsets (default: ARMBENCH_ROOT, or the config)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override config keys')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Write the sheet."""
    from armbench_mmdet import configs, visualization
    from armbench_mmdet.errors import InputError

    if min(args.num, args.columns, args.cell_px, args.seed + 1) < 1:
        raise InputError('--num, --columns and --cell-px must be at least 1, --seed at least 0')
    config = configs.load_config(args.config, configs.parse_options(args.cfg_options))
    if args.data_root:
        configs.set_data_root(config, args.data_root)
    if args.augmentations:
        sheet = visualization.augmentation_sheet(config, args.columns, args.cell_px, args.seed)
    else:
        sheet = visualization.pipeline_sheet(config, args.num, args.columns, args.cell_px, args.seed)
    visualization.write_sheet(args.out, sheet)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
