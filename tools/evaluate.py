"""Evaluate predictions of any model, given as COCO results, or an exported model: ``python tools/evaluate.py …``."""

import argparse
from pathlib import Path

import armbench_cli

EPILOG = """
python tools/evaluate.py coco_instances_results.json --subset mix-object-tote --name my-model
python tools/evaluate.py runs/segment/val/predictions.json --ground-truth my/test.json --images my/images
python tools/evaluate.py --model model.onnx --subset mix-object-tote
python tools/report.py work_dirs/my-model work_dirs/mask-rcnn_r50_fpn_1x_armbench-mix
"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    predicted = parser.add_mutually_exclusive_group(required=True)
    predicted.add_argument(
        'predictions', nargs='?', type=Path, metavar='PREDICTIONS', help='JSON file of COCO results with masks'
    )
    predicted.add_argument('--model', type=Path, metavar='FILE', help='exported model to predict the images with')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--ground-truth', type=Path, metavar='FILE', help='COCO file of the ground truth')
    source.add_argument('--subset', help="a subset's folder name")
    parser.add_argument('--images', type=Path, metavar='DIR', help='images of --ground-truth, for the report')
    parser.add_argument('--split', choices=['val', 'test'], help='of the subset (default: test)')
    parser.add_argument('--data-root', help='folder that holds the subsets (default: ARMBENCH_ROOT, or as in configs)')
    parser.add_argument(
        '--category-map', metavar='MAP', help="what the predictions' categories are: \"{0: 'tote', 1: 'object'}\""
    )
    parser.add_argument('--data-fingerprint', metavar='SHA256', help='refuse another annotation file than this')
    parser.add_argument(
        '--mask-nms', type=float, metavar='IOU', help='of two masks of a class that overlap by more, keep the surer'
    )
    parser.add_argument(
        '--compare', type=Path, metavar='FILE', help='the same predictions, say unrounded: print the drift'
    )
    parser.add_argument('--name', help="the run's name in reports (default: folder and stem of PREDICTIONS)")
    parser.add_argument('--out', type=Path, help='folder for the result files (default: work_dirs/NAME/results)')
    args = parser.parse_args()
    stray = args.images if args.subset else args.split or args.data_root
    if stray:
        parser.error('--images goes with --ground-truth, --split and --data-root with --subset')
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from armbench_mmdet.configs import read_dict
    from armbench_mmdet.datasets import release
    from armbench_mmdet.datasets.ground_truth import GroundTruthSource
    from armbench_mmdet.datasets.images import folder_of_images
    from armbench_mmdet.errors import InputError
    from armbench_mmdet.evaluation.coco_results import drift_table, evaluate_results
    from armbench_mmdet.evaluation.result import FLAGS, result_table
    from armbench_mmdet.inference import predict_file
    from armbench_mmdet.run_folder import RECORD, RESULTS

    ann_file = args.ground_truth
    if args.subset:
        subset = release.check_choice('--subset', args.subset, release.SUBSETS)
        ann_file = release.resolve_data_root(args.data_root) / subset / f'{args.split or "test"}.json'
    images = release.require_existing(args.images, '--images folder') if args.images else folder_of_images(ann_file)
    source = GroundTruthSource(str(ann_file), str(images))
    given = args.model or args.predictions
    name = args.name or f'{given.absolute().parent.name}-{given.stem}'
    out_dir = args.out or Path('work_dirs') / name / RESULTS
    if (out_dir.parent / RECORD).is_file():
        raise InputError(f'--name must not be that of a training, got {str(out_dir.parent)!r}, which has a {RECORD}')
    if args.model:
        args.predictions = out_dir.parent / f'{source.subset}_{source.split}.predictions.json'
        predict_file(args.model, ann_file, images, args.predictions)
    category_map = read_dict('--category-map', args.category_map) if args.category_map else None
    result = evaluate_results(args.predictions, source, out_dir, category_map, args.data_fingerprint, args.mask_nms)
    print(result_table(result))
    for flag in result.identity.extra[FLAGS]:
        print(f'flag: {flag}')
    if args.compare:
        other = evaluate_results(args.compare, source, None, category_map, mask_nms_iou=args.mask_nms)
        print(f'\ndrift against {args.compare}:\n{drift_table(result, other)}')
    print(f'\nresult files: {out_dir}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
