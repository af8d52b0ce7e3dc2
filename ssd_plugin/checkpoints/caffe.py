"""Caffe's weights: reading a .caffemodel as a state dict, named by its layers.

The file is one protobuf message. The numbers of its fields are those of ``caffe.proto`` in the SSD
authors' Caffe (github.com/weiliu89/caffe); fields that say nothing of weights are skipped.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd_plugin.errors import CheckpointError, MissingPackageError

SUFFIX = '.caffemodel'
# SSD512's weights take 150 MB, twice as much with the differences that Caffe may store.
MAX_BYTES = 1 << 30
MAX_AXES = 32  # of a blob, in Caffe

# For each message its fields: number, name, type. Packed numbers lie in a file as bytes do, and
# read as bytes they are not copied one by one.
FIELDS = {
    'Net': [(2, 'layers', '.OldLayer'), (100, 'layer', '.Layer')],
    'OldLayer': [(4, 'name', 'BYTES'), (6, 'blobs', '.Blob')],
    'Layer': [(1, 'name', 'BYTES'), (7, 'blobs', '.Blob')],
    'Blob': [
        *((i + 1, name, 'INT32') for i, name in enumerate(('num', 'channels', 'height', 'width'))),
        (5, 'data', 'BYTES'),
        (7, 'shape', '.Shape'),
        (8, 'double_data', 'BYTES'),
    ],
    'Shape': [(1, 'dim', 'INT64')],
}
REPEATED = {'layers', 'layer', 'blobs', 'data', 'double_data', 'dim'}
PARAMETERS = ('weight', 'bias')  # what the first blobs of a layer are


def read_caffemodel(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a .caffemodel.

    The blobs of a layer become ``LAYER.weight`` and ``LAYER.bias``, further ones ``LAYER.2`` and so
    on: float32, of the shapes that the file states.

    Raises:
        CheckpointError: The file is no .caffemodel or damaged, or a blob has another number of
            values than its shape says.
        MissingPackageError: protobuf is not installed.
        OSError: The file can't be read.
    """
    decode_error, net = _net()
    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise CheckpointError(f'{path} has {size >> 20} MB, more than the weights of an SSD')
    try:
        net.ParseFromString(Path(path).read_bytes())
    except decode_error as error:
        raise CheckpointError(f'{path} is not a {SUFFIX} of Caffe, or it is cut off') from error
    state = {}
    for layer in (*net.layers, *net.layer):
        name = layer.name.decode(errors='replace')
        for index, blob in enumerate(layer.blobs):
            part = PARAMETERS[index] if index < len(PARAMETERS) else str(index)
            state[f'{name}.{part}'] = _tensor(blob, f'{path}: blob {index} of layer {name!r}')
    if not state:
        raise CheckpointError(f'{path} holds no weights of Caffe: no layer in it has blobs')
    return state


def _tensor(blob: Any, where: str) -> Tensor:
    """The values of a blob, in the shape that it says."""
    values, dtype = b''.join(blob.data), torch.float32
    if not values:
        values, dtype = b''.join(blob.double_data), torch.float64
    shape = list(blob.shape.dim)
    if not blob.HasField('shape'):  # an old file, where all blobs have four axes
        shape = [blob.num, blob.channels, blob.height, blob.width]
    if len(shape) > MAX_AXES or min(shape, default=1) < 0:
        raise CheckpointError(f'{where} has the shape {shape[:MAX_AXES]}, which no blob has')
    if math.prod(shape) * dtype.itemsize != len(values):
        raise CheckpointError(
            f'{where} has {len(values) / dtype.itemsize:g} values, its shape '
            f'{" x ".join(map(str, shape))} takes {math.prod(shape)}'
        )
    if not values:
        return torch.empty(shape)
    if shape[:-1] == [1, 1, 1]:  # biases in old files
        shape = shape[-1:]
    return torch.frombuffer(bytearray(values), dtype=dtype).reshape(shape).float()


def _net() -> tuple[type[Exception], Any]:
    """protobuf's error for what is no message, and an empty message for a network."""
    try:
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingPackageError('protobuf is not installed: pip install protobuf') from error
    return DecodeError, _net_class()()


@cache
def _net_class() -> Any:
    """protobuf's class for the message in :data:`FIELDS`, in a pool of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name='caffe_weights', package='caffe_weights')
    for message, fields in FIELDS.items():
        definition = file.message_type.add(name=message)
        for number, name, kind in fields:
            field = definition.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if name in REPEATED else kinds.LABEL_OPTIONAL
            field.type = kinds.TYPE_MESSAGE if kind[0] == '.' else kinds.Type.Value(f'TYPE_{kind}')
            if kind[0] == '.':
                field.type_name = f'.{file.package}{kind}'
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{file.package}.Net'))
