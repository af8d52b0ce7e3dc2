"""The SSD of the paper's authors as Caffe's files: a network (.prototxt) and random weights.

Written from their generator (examples/ssd/ssd_pascal.py of github.com/weiliu89/caffe). It needs
NumPy alone, so that the environment of OpenCV 4, which runs such files, makes the same ones.
"""

import struct
from typing import NamedTuple

import numpy as np

VGG = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512, 'P')
EXTRAS = {  # output channels, kernel, stride, padding
    300: ((256, 1, 1, 0), (512, 3, 2, 1), (128, 1, 1, 0), (256, 3, 2, 1),
          (128, 1, 1, 0), (256, 3, 1, 0), (128, 1, 1, 0), (256, 3, 1, 0)),
    512: ((256, 1, 1, 0), (512, 3, 2, 1), (128, 1, 1, 0), (256, 3, 2, 1),
          (128, 1, 1, 0), (256, 3, 2, 1), (128, 1, 1, 0), (256, 3, 2, 1),
          (128, 1, 1, 0), (256, 4, 1, 1)),
}  # fmt: skip
STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
RATIOS = {300: ((2,), *[(2, 3)] * 3, (2,), (2,)), 512: ((2,), *[(2, 3)] * 4, (2,), (2,))}


SEED = 0
# Weights of a level's last convolutions, so that each level has detections: deep maps vary less.
GAINS = {300: (1, 1, 1.4, 1.8, 3, 7), 512: (1, 1, 1, 1.5, 2.5, 4, 14)}


class Model(NamedTuple):
    side: int  # of the input, in pixels
    num_scores: int  # of a prior, background first
    sizes: tuple[int, ...]  # min sizes, then the last max size, as Caffe's PriorBox cuts them off
    lead: float = 9  # by how much background's scores are ahead


MODELS = {
    'ssd300_caffe_voc': Model(300, 21, (30, 60, 111, 162, 213, 264, 315)),
    'ssd512_caffe_voc': Model(512, 21, (35, 76, 153, 230, 307, 384, 460, 537)),
    'ssd300_caffe_coco': Model(300, 81, (21, 45, 99, 153, 207, 261, 315)),
    'ssd512_caffe_coco': Model(512, 81, (20, 51, 133, 215, 296, 378, 460, 542)),
}
# Of whose single class far more than 400 scores count, and fewer than 200 boxes are left.
MODELS['one_class'] = MODELS['ssd300_caffe_voc']._replace(num_scores=2, lead=3)


class Conv(NamedTuple):
    name: str
    bottom: str
    outputs: int
    inputs: int
    kernel: int = 3
    stride: int = 1
    pad: int = 1
    dilation: int = 1


def body(model):
    """Convolutions, each with a ReLU, and the places of pooling (name, bottom, kernel, stride)."""
    layers, bottom, channels, block, index = [], 'data', 3, 1, 1
    for width in VGG:
        if isinstance(width, int):
            name = f'conv{block}_{index}'
            layers.append(Conv(name, bottom, width, channels))
            bottom, channels, index = name, width, index + 1
        else:
            layers.append((f'pool{block}', bottom, *((2, 2) if width == 'M' else (3, 1))))
            bottom, block, index = f'pool{block}', block + 1, 1
    layers.append(Conv('fc6', bottom, 1024, channels, 3, 1, 6, 6))
    layers.append(Conv('fc7', 'fc6', 1024, 1024, 1, 1, 0))
    bottom, channels = 'fc7', 1024
    for i, (width, kernel, stride, pad) in enumerate(EXTRAS[model.side]):
        name = f'conv{6 + i // 2}_{1 + i % 2}'
        layers.append(Conv(name, bottom, width, channels, kernel, stride, pad))
        bottom, channels = name, width
    return layers


def sources(model):
    """Names and channels of the maps that detections come from."""
    extras = [(f'conv{6 + i // 2}_2', e[0]) for i, e in enumerate(EXTRAS[model.side]) if i % 2]
    return [('conv4_3_norm', 512), ('fc7', 1024), *extras]


def heads(model):
    """Convolutions of offsets and scores, level by level."""
    convs = []
    for (source, channels), ratios in zip(sources(model), RATIOS[model.side]):
        priors = 2 + 2 * len(ratios)
        for part, per_prior in (('loc', 4), ('conf', model.num_scores)):
            convs.append(Conv(f'{source}_mbox_{part}', source, priors * per_prior, channels))
    return convs


# --- weights ---------------------------------------------------------------------------------


def random_weights(model, seed):
    """Blobs by layer, from which hundreds of detections come.

    Maps keep their deviation from layer to layer. Offsets have one of about 1, scores of about 2.
    """
    draw = np.random.Generator(np.random.PCG64(seed)).random

    def uniform(shape, deviation):
        return (draw(shape, dtype=np.float32) * 2 - 1) * np.float32(deviation * 3**0.5)

    gains = dict(zip((source for source, _ in sources(model)), GAINS[model.side]))
    weights = {'conv4_3_norm': [18 + 4 * draw(512, dtype=np.float32)]}
    convs = [layer for layer in body(model) if isinstance(layer, Conv)]
    for conv in (*convs, *heads(model)):
        fan_in = conv.inputs * conv.kernel**2
        deviation = {'loc': 1.0, 'onf': 2.0}.get(conv.name[-3:], 2**0.5) / fan_in**0.5
        if conv.name == 'conv1_1':
            deviation /= 64  # pixels become numbers around 1
        weight = uniform((conv.outputs, conv.inputs, conv.kernel, conv.kernel), deviation)
        bias = uniform(conv.outputs, 0.1)
        if conv.name.endswith(('_loc', '_conf')):
            # Without what all cells have in common, which would give detections of few classes.
            weight -= weight.mean(axis=(1, 2, 3), keepdims=True)
            weight *= np.float32(gains[conv.bottom])
        if conv.name.endswith('conf'):
            bias.reshape(-1, model.num_scores)[:, 0] += np.float32(model.lead)
        weights[conv.name] = [weight, bias]
    return weights


def random_image(side, seed):
    """(side, side, 3) uint8, BGR: squares of many sizes, whole numbers in every environment."""
    generator = np.random.Generator(np.random.PCG64(seed))
    place = np.arange(side)
    total = np.zeros((side, side, 3), np.int64)
    for cells in (3, 8, 20, 50):
        index = place * cells // side
        total += generator.integers(0, 256, (cells, cells, 3))[index][:, index]
    return (total // 4).astype(np.uint8)


# --- the two files ---------------------------------------------------------------------------


def layer_text(kind, name, bottoms, parameters=''):
    bottoms = ' '.join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{name}" {parameters} }}'


def conv_text(conv):
    parameters = (
        f'convolution_param {{ num_output: {conv.outputs} kernel_size: {conv.kernel} '
        f'stride: {conv.stride} pad: {conv.pad} dilation: {conv.dilation} }}'
    )
    return layer_text('Convolution', conv.name, [conv.bottom], parameters)


def prototxt(model):
    """The network as text, from the input to detections."""
    shape = f'dim: 1 dim: 3 dim: {model.side} dim: {model.side}'
    text = [f'input: "data" input_shape {{ {shape} }}']
    for layer in body(model):
        if isinstance(layer, Conv):
            text.append(conv_text(layer))
            text.append(
                f'layer {{ name: "{layer.name}_relu" type: "ReLU" bottom: "{layer.name}" '
                f'top: "{layer.name}" }}'
            )
        else:
            name, bottom, kernel, stride = layer
            pad = kernel // 2 if stride == 1 else 0
            pool = f'pool: MAX kernel_size: {kernel} stride: {stride} pad: {pad}'
            text.append(layer_text('Pooling', name, [bottom], f'pooling_param {{ {pool} }}'))
    text.append(layer_text(
        'Normalize', 'conv4_3_norm', ['conv4_3'],
        'norm_param { across_spatial: false channel_shared: false }',
    ))  # fmt: skip
    for conv in heads(model):
        text.append(conv_text(conv))
        order = 'permute_param { order: 0 order: 2 order: 3 order: 1 }'
        text.append(layer_text('Permute', f'{conv.name}_perm', [conv.name], order))
        text.append(
            layer_text(
                'Flatten', f'{conv.name}_flat', [f'{conv.name}_perm'], 'flatten_param { axis: 1 }'
            )
        )
    for k, (source, _) in enumerate(sources(model)):
        ratios = ' '.join(f'aspect_ratio: {ratio}' for ratio in RATIOS[model.side][k])
        text.append(layer_text(
            'PriorBox', f'{source}_mbox_priorbox', [source, 'data'],
            f'prior_box_param {{ min_size: {model.sizes[k]} max_size: {model.sizes[k + 1]} '
            f'{ratios} flip: true clip: false variance: 0.1 variance: 0.1 '
            f'variance: 0.2 variance: 0.2 step: {STEPS[model.side][k]} offset: 0.5 }}',
        ))  # fmt: skip
    names = [source for source, _ in sources(model)]
    for part, axis in (('loc_flat', 1), ('conf_flat', 1), ('priorbox', 2)):
        bottoms = [f'{name}_mbox_{part}' for name in names]
        name = f'mbox_{part.removesuffix("_flat")}'
        text.append(layer_text('Concat', name, bottoms, f'concat_param {{ axis: {axis} }}'))
    shape = f'dim: 0 dim: -1 dim: {model.num_scores}'
    text += [
        layer_text('Reshape', 'mbox_conf_reshape', ['mbox_conf'],
                   f'reshape_param {{ shape {{ {shape} }} }}'),
        layer_text('Softmax', 'mbox_conf_softmax', ['mbox_conf_reshape'],
                   'softmax_param { axis: 2 }'),
        layer_text('Flatten', 'mbox_conf_flatten', ['mbox_conf_softmax'],
                   'flatten_param { axis: 1 }'),
        layer_text('DetectionOutput', 'detection_out',
                   ['mbox_loc', 'mbox_conf_flatten', 'mbox_priorbox'],
                   f'detection_output_param {{ num_classes: {model.num_scores} '
                   'share_location: true background_label_id: 0 '
                   'nms_param { nms_threshold: 0.45 top_k: 400 } code_type: CENTER_SIZE '
                   'keep_top_k: 200 confidence_threshold: 0.01 }'),
    ]  # fmt: skip
    return '\n'.join(text) + '\n'


def varint(value):
    """A whole number as protobuf writes it."""
    value, out = value % (1 << 64), bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, content):
    """A field of a message: a number, or a text or a message as bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values, old=False):
    """A blob of Caffe; old ones have four axes, with ones before the others."""
    if old:
        axes = [1] * (4 - values.ndim) + list(values.shape)
        shape = b''.join(field(i + 1, size) for i, size in enumerate(axes))
    else:
        shape = field(7, field(1, b''.join(varint(size) for size in values.shape)))
    return shape + field(5, values.astype('<f4').tobytes())


def caffemodel(weights, old=False):
    """The message of a network with these blobs by layer.

    Today it has ``layer`` with a type in words, before 2014 it had ``layers`` with a number; among
    the layers are some without blobs, and there are fields that say nothing of weights.
    """
    message = [field(1, b'VGG_SSD'), field(5, 0)]
    for name, blobs in {'data': (), **weights, 'mbox_loss': ()}.items():
        contents = b''.join(field(6 if old else 7, blob(values, old)) for values in blobs)
        if old:
            kind = field(5, 4) + field(7, struct.pack('<f', 1.0))  # CONVOLUTION, blobs_lr
            message.append(field(2, field(4, name.encode()) + kind + contents))
        else:
            kind = b'Normalize' if name.endswith('_norm') else b'Convolution'
            message.append(field(100, field(1, name.encode()) + field(2, kind) + contents))
    return b''.join(message)
