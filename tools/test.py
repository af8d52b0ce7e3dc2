"""Evaluate a trained detector: python tools/test.py configs/ssd300_voc.py CHECKPOINT"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common as common
from mmengine.config import Config

if TYPE_CHECKING:  # it imports PyTorch
    from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a detector.')
    common.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint, or exported .onnx or .tflite')
    common.add_run_options(parser)
    parser.add_argument('--out', help='also write the detections to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show images with their detections')
    parser.add_argument('--show-dir', help='save such images in WORK_DIR/TIMESTAMP/SHOW_DIR')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds of --show per image')
    parser.add_argument('--tta', action='store_true', help='merge detections over augmented views')
    parser.add_argument('--amp', action='store_true', help='mixed precision; on a CPU in bfloat16')
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        sys.exit(f'--out must be a .pkl file, not {args.out}')
    cfg = common.load_config(args)
    common.require_checkpoint(args.checkpoint)
    if args.out:
        common.require_writable(Path(args.out))
    cfg.load_from, cfg.resume = args.checkpoint, False
    config = Path(args.config)
    if config.parent.resolve() == Path(cfg.work_dir).resolve():
        # It repeats a training, which does not start from this checkpoint.
        cfg = common.renamed(cfg, f'{config.stem}_test.py')
    with common.one_line_errors(args):
        runner = prepare(cfg, args)
    with common.one_line_errors(args, also=()):
        runner.test()


def prepare(cfg: Config, args: argparse.Namespace) -> Runner:
    """Check the data, and build the runner."""
    if args.data_root:
        from _own_data import fit_for_testing, read_for_testing

        data = read_for_testing(args)  # before what takes time, since errors in them end the test
        common.set_up(cfg, args.verbose)
        fit_for_testing(cfg, args, data)
    else:
        common.require_data(cfg, ('test',))
        common.set_up(cfg, args.verbose)
    common.fit_input(cfg, args)
    from mmdet.evaluation import DumpDetResults

    from ssd_plugin.datasets.check import require_sound_data
    from ssd_plugin.engine.amp import enable_amp_evaluation
    from ssd_plugin.engine.launch import build_runner
    from ssd_plugin.export.evaluation import fit_to_data, use_exported
    from ssd_plugin.export.exported import is_exported

    exported = is_exported(args.checkpoint)
    if exported:
        if args.amp:
            sys.exit(f'--amp: {args.checkpoint} computes in the precision that it was exported in')
        use_exported(cfg, args.checkpoint)
    if args.show or args.show_dir:
        draw_detections(cfg, args)
    if args.tta:
        augment_test(cfg)
    if args.amp:
        enable_amp_evaluation(cfg, 'test')
    if args.strict:
        require_sound_data(cfg, ('test',))
    runner = common.with_console(build_runner(cfg), args)
    if exported:
        fit_to_data(runner)
    if args.out:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    return runner


def draw_detections(cfg: Config, args: argparse.Namespace) -> None:
    """Have MMDetection's hook show or save the images."""
    hook: dict[str, Any] = dict(type='DetVisualizationHook')
    hook.update(cfg.get('default_hooks', {}).get('visualization') or {}, draw=True)
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir:
        hook.update(test_out_dir=args.show_dir)
    cfg.merge_from_dict({'default_hooks.visualization': dict(hook, _delete_=True)})


def augment_test(cfg: Config) -> None:
    """Test on several views: those of the config, by default the image and its mirror image."""
    from ssd_plugin.datasets.config import leaf_datasets

    nms = {key: cfg.model.get('test_cfg', {}).get(key) for key in ('nms', 'max_per_img')}
    model = cfg.get('tta_model', dict(type='DetTTAModel', tta_cfg=nms))
    cfg.model = dict(model, module=cfg.model)
    # The image as it is comes first: metrics compare with the ground truth of the first view.
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    views = dict(type='TestTimeAug', transforms=[flips, [dict(type='PackDetInputs')]])
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.get('tta_pipeline') or [*dataset.pipeline[:-1], views]


if __name__ == '__main__':
    main()
