"""Predict images: ``python tools/infer.py CONFIG CHECKPOINT | MODEL.onnx IMAGE_OR_FOLDER… --out DIR``.

Writes overlays, COCO results and an index of the image ids, see ``armbench_mmdet/inference.py``, which also
has the format. An image that cannot be read is reported and the others go on. The exit status is 0 if any image was
predicted, and 2 if none was.
"""

import argparse
import sys
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Predict images, draw and write what is found', allow_abbrev=False)
    parser.add_argument('config', metavar='CONFIG|MODEL.onnx', help='config file, or an exported model')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file, or a run folder (its latest checkpoint); not with MODEL.onnx',
    )
    parser.add_argument('images', nargs='*', help='files, folders, patterns; or one COCO file, with its ids')
    parser.add_argument('--out', type=Path, required=True, help='folder for overlays and results')
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.5,
        help='instances below it are neither drawn nor written (default: %(default)s; an AP needs 0)',
    )
    parser.add_argument('--batch-size', type=int, help="images at once (default: the config's for testing)")
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: the GPU if there is one)')
    parser.add_argument('--trust-checkpoint', action='store_true', help='load a file that can run code')
    armbench_cli.add_levers(parser)
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override config keys')
    args = parser.parse_intermixed_args()  # CONFIG --option CHECKPOINT, too
    if args.config.endswith('.onnx'):
        args.images = [args.checkpoint, *args.images] if args.checkpoint else []
        for_models = ('batch_size', 'device', 'trust_checkpoint', 'cfg_options', 'amp', 'channels_last', 'compile')
        if stray := [name for name in for_models if getattr(args, name)]:
            parser.error(f'--{stray[0].replace("_", "-")} is not for an exported model')
    if not args.images:
        parser.error('the following arguments are required: images')
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from mmengine.logging import MMLogger

    from armbench_mmdet import configs
    from armbench_mmdet.engine.levers import set_levers
    from armbench_mmdet.engine.runner import quiet_console
    from armbench_mmdet.inference import Detector, infer
    from armbench_runtime import Detector as ExportedDetector

    quiet_console(MMLogger.get_current_instance())
    detector: Detector | ExportedDetector
    if args.config.endswith('.onnx'):
        detector = ExportedDetector.from_onnx(args.config)
    else:
        config = configs.load_config(args.config, configs.parse_options(args.cfg_options))
        set_levers(config, args.amp, args.channels_last, args.compile)
        detector = Detector(config, args.checkpoint, args.device, args.trust_checkpoint)
    done = infer(detector, args.images, args.out, args.score_threshold, args.batch_size)
    for name, reason in done.left_out.items():
        print(f'left out: {name}: {reason}', file=sys.stderr)
    also = f', {len(done.left_out)} left out' if done.left_out else ''
    print(f'{done.images} images predicted{also}; {done.instances} instances with a score ≥ {args.score_threshold:g}')
    print(f'overlays, results.segm.json, results.bbox.json and images.json: {args.out}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
