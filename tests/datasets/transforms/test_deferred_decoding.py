"""Pipelines decode large JPEGs with no more resolution than they need, and draw the same."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from ssd_plugin.datasets.faults import Kind
from ssd_plugin.datasets.large_images import LargeJpeg
from ssd_plugin.datasets.transforms.deferred_decoding import defer_decoding
from ssd_plugin.datasets.transforms.ssd_augment import SSDAugment, clean
from tests.support import staged_augment as staged
from tests.support.commands import ROOT
from tests.support.data_folders import save_json
from tests.support.photographs import decode_whole, drawn_image, encode_jpeg

SIZE = (2300, 1766)  # just above 4 megapixels; 4 does not divide the height
BOXES = [(230, 140, 1110, 1220), (1200, 660, 2190, 1700), (120, 1250, 260, 1480)]
CLASSES = ('cat', 'dog')
LOAD, READ = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
PACK = dict(type='PackDetInputs')
RESIZE = dict(type='Resize', scale=(320, 300), keep_ratio=False)
AUGMENT = dict(type='SSDAugment', scale=(320, 300))
TRAIN, TEST = [LOAD, READ, AUGMENT, PACK], [LOAD, RESIZE, READ, PACK]
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))


def without_components(content):
    """A JPEG with a sound header and end, of whose scan the decoder can make nothing."""
    scan = content.rindex(b'\xff\xda')
    return content[: scan + 4] + b'\0' + content[scan + 5 :]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Paths of one image in several files, and of a smaller one."""
    init_default_scope('mmdet')
    folder = tmp_path_factory.mktemp('photographs')
    image = drawn_image(*SIZE[::-1])
    contents = {
        'large.jpg': encode_jpeg(image),
        'turned.jpg': encode_jpeg(image, orientation=6),
        'large.png': cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes(),
        'small.jpg': encode_jpeg(image[:1700]),
        'damaged.jpg': without_components(encode_jpeg(image)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return SimpleNamespace(**{name.replace('.', '_'): str(folder / name) for name in contents})


def info_of(path):
    instances = [dict(bbox=list(b), bbox_label=i % 2, ignore_flag=0) for i, b in enumerate(BOXES)]
    return dict(img_path=path, img_id=7, instances=instances)


def run(pipeline, path, seed=0):
    """A sample and the state of the random numbers after it."""
    np.random.seed(seed)
    return Compose(pipeline)(info_of(path)), np.random.get_state()[1:3]


def assert_same_but_pixels(got, expected):
    (sample, state), (whole, whole_state) = got, expected
    assert (state[0] == whole_state[0]).all() and state[1] == whole_state[1]
    assert sample['inputs'].shape == whole['inputs'].shape
    sample, whole = sample['data_samples'], whole['data_samples']
    assert sample.metainfo == whole.metainfo
    assert torch.equal(sample.gt_instances.bboxes.tensor, whole.gt_instances.bboxes.tensor)
    assert torch.equal(sample.gt_instances.labels, whole.gt_instances.labels)


def difference(sample, whole):
    return (sample['inputs'].float() - whole['inputs'].float()).abs().mean()


# ------------------------------------------------------------------------------------ the pixels


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(300, 700), st.integers(300, 700)),
    scale=st.sampled_from([(40, 30), (64, 64), (20, 90)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_window_is_that_of_the_whole_image_resized_by_area(size, scale, seed):
    content = encode_jpeg(drawn_image(*size, seed=seed % 5))
    augment, boxes = SSDAugment(scale), clean(np.array([(30, 40, 210, 220)]), *size[::-1])
    plan = augment.draw(np.random.default_rng(seed), size, boxes)
    plan = plan._replace(interpolation=cv2.INTER_AREA)
    window = np.subtract(plan.window[2:], plan.window[:2])
    image = LargeJpeg(content, size[::-1])
    _, divisor = image.decode(max(scale / window))
    assert (window / divisor >= scale).all() or divisor == 1, 'less resolution than the output'
    got = augment.apply_to_image(image, plan)
    # Where the image ends within a pixel of the output, that may be half a pixel off.
    differences = np.abs(got - staged.augmented_image(decode_whole(content), plan, scale))
    assert np.median(differences) < 2 and differences.mean() < 4


def test_over_many_windows_the_output_is_as_good_as_equal():
    size, augment, generator = (900, 1200), SSDAugment(100), np.random.default_rng(0)
    content = encode_jpeg(drawn_image(*size))
    whole, image = decode_whole(content), LargeJpeg(content, size[::-1])
    differences = []
    for _ in range(100):
        plan = augment.draw(generator, size, np.zeros((0, 4)))._replace(distortion=(0, 1, 1, 0))
        plan = plan._replace(interpolation=cv2.INTER_AREA)
        got, expected = augment.apply_to_image(image, plan), augment.apply_to_image(whole, plan)
        differences.append(np.abs(got - expected.astype(float)).mean())
    assert np.mean(differences) < 0.6 and max(differences) < 2.5  # grey levels


@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('pipeline', [
    TRAIN, TEST, [LOAD, dict(RESIZE, keep_ratio=True), READ, PACK],
    [LOAD, dict(type='Resize', scale_factor=0.2, keep_ratio=True), READ, PACK],
    [LOAD, dict(type='Resize', scale=[300, 200]), READ, PACK],
])  # fmt: skip
def test_a_sample_differs_from_the_whole_image_in_pixels_only(files, pipeline, turned):
    path = files.turned_jpg if turned else files.large_jpg
    differences = []
    for seed in range(6):
        got, expected = run(defer_decoding(pipeline), path, seed), run(pipeline, path, seed)
        assert_same_but_pixels(got, expected)
        differences.append(difference(got[0], expected[0]))
    # The whole image is resized by other interpolations, too, which alias.
    assert 0 < np.mean(differences) < 8


@pytest.mark.parametrize('name', ['large_jpg', 'turned_jpg', 'large_png'])
def test_images_to_detect_on_are_shrunk_by_area(files, name):
    path = getattr(files, name)
    got = run(defer_decoding(TEST), path)[0]['inputs']
    exact = cv2.resize(cv2.imread(path), (320, 300), interpolation=cv2.INTER_AREA)
    assert np.abs(got.numpy().transpose(1, 2, 0) - exact.astype(float)).mean() < 0.7


@pytest.mark.parametrize('pipeline', [TRAIN, TEST])
def test_smaller_images_and_other_files_are_as_before(files, pipeline):
    exact = [files.small_jpg, files.large_png] if pipeline is TRAIN else [files.small_jpg]
    for path in exact:
        for seed in range(3):
            got, expected = run(defer_decoding(pipeline), path, seed), run(pipeline, path, seed)
            assert_same_but_pixels(got, expected)
            assert torch.equal(got[0]['inputs'], expected[0]['inputs'])


def test_an_enlarged_image_is_as_before(files):
    pipeline = [LOAD, dict(RESIZE, scale=(2400, 1000)), READ, PACK]
    got, expected = run(defer_decoding(pipeline), files.large_jpg), run(pipeline, files.large_jpg)
    assert_same_but_pixels(got, expected)
    assert torch.equal(got[0]['inputs'], expected[0]['inputs'])


# -------------------------------------------------------------------------------- the pipelines


def defers(pipeline, path):
    """Whether a pipeline leaves decoding a large JPEG for later."""
    first = Compose(defer_decoding(pipeline)).transforms[0]
    return isinstance(first(dict(img_path=path))['img'], LargeJpeg)


@pytest.mark.parametrize('pipeline', [
    [LOAD, READ, dict(type='RandomFlip', prob=0.5), AUGMENT, PACK],
    [LOAD, READ, dict(type='Expand'), RESIZE, PACK],
    [dict(LOAD, to_float32=True), READ, RESIZE, PACK],
    [dict(LOAD, imdecode_backend='pillow'), READ, AUGMENT, PACK],
    [dict(LOAD, color_type='color_ignore_orientation'), READ, AUGMENT, PACK],
    [LOAD, READ, dict(RESIZE, interpolation='nearest'), PACK],
    [LOAD, READ, dict(RESIZE, backend='pillow'), PACK],
    [LOAD, READ, dict(type='RandomResize', scale=(30, 30), ratio_range=(1, 2)), PACK],
    [LOAD, READ, PACK],
    [LOAD],
], ids=str)  # fmt: skip
def test_other_pipelines_stay_as_they_are(files, pipeline):
    assert defer_decoding(pipeline) == pipeline
    assert not defers(pipeline, files.large_jpg)
    built = [TRANSFORMS.build(step) for step in TRAIN]
    assert defer_decoding(built) == built
    assert defer_decoding([]) == []


@pytest.mark.parametrize('load', [
    LOAD, dict(LOAD, backend_args=dict(backend='local')), dict(LOAD, backend_args=None),
    dict(type='mmcv.LoadImageFromFile'), dict(type=TRANSFORMS.get('LoadImageFromFile')),
], ids=str)  # fmt: skip
def test_loading_may_be_written_in_several_ways(files, load):
    assert defers([load, *TRAIN[1:]], files.large_jpg)
    assert defers([load, *TEST[1:]], files.large_jpg)
    assert not defers([load, *TRAIN[1:]], files.small_jpg)
    assert not defers([load, *TRAIN[1:]], files.large_png)


@pytest.mark.parametrize('name', CONFIGS)
def test_each_config_takes_photographs(files, name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    path = files.large_jpg
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        # MMDetection's own augmentation, or real numbers as torchvision resizes them.
        whole = any(step.type == 'Expand' or step.get('to_float32') for step in pipeline)
        assert defers(pipeline, path) != whole
        got, expected = run(defer_decoding(pipeline), path), run(pipeline, path)
        assert_same_but_pixels(got, expected)
        assert difference(got[0], expected[0]) < 12


# --------------------------------------------------------------------------------- the data sets


def build(files, names, test_mode, annotated=SIZE):
    """A data set of some of the files."""
    root = files.large_jpg.rsplit('/', 1)[0]
    images = [
        dict(id=i, file_name=name, width=annotated[0], height=annotated[1])
        for i, name in enumerate(names, 1)
    ]
    boxes = [
        dict(id=10 * i + j, image_id=i, category_id=1 + j % 2, iscrowd=0,
             bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1))
        for i in range(1, len(names) + 1) for j, (x1, y1, x2, y2) in enumerate(BOXES)
    ]  # fmt: skip
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    document = dict(images=images, annotations=boxes, categories=categories)
    path = Path(root) / 'annotations.json'
    save_json(path, document)
    return DATASETS.build(dict(
        type='CheckedCocoDataset', data_root=root, ann_file=str(path), data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES), test_mode=test_mode, pipeline=TEST if test_mode else TRAIN,
    ))  # fmt: skip


@pytest.mark.parametrize('test_mode', [False, True])
def test_the_data_sets_defer_decoding(files, test_mode):
    dataset = build(files, ['large.jpg'], test_mode)
    np.random.seed(3)
    sample = dataset[0]
    pipeline = TEST if test_mode else TRAIN
    expected = run(defer_decoding(pipeline), files.large_jpg, 3)[0]
    assert torch.equal(sample['inputs'], expected['inputs'])
    assert sample['data_samples'].ori_shape == SIZE[::-1]
    assert 'data_faults' not in sample['data_samples']


def test_a_large_image_that_cannot_be_decoded_is_passed_over_or_counts_as_empty(files):
    dataset = build(files, ['damaged.jpg', 'large.jpg'], test_mode=False)
    sample = dataset[0]['data_samples']
    assert sample.img_path == files.large_jpg
    assert [fault.kind for fault in sample.data_faults] == [Kind.NOT_AN_IMAGE]
    sample = build(files, ['damaged.jpg'], test_mode=True)[0]['data_samples']
    assert sample.unreadable and [f.kind for f in sample.data_faults] == [Kind.NOT_AN_IMAGE]


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_wrong_annotated_size_is_noticed(files, test_mode):
    dataset = build(files, ['turned.jpg'], test_mode, annotated=SIZE)
    (fault,) = dataset[0]['data_samples'].data_faults
    assert fault.kind == Kind.OTHER_SIZE
    assert fault.detail == '2300 x 1766 instead of 1766 x 2300'  # as annotated, as decoded
