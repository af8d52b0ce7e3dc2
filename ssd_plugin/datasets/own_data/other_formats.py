"""Formats that are recognised only to say how to turn them into one that can be read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ssd_plugin.datasets.own_data.folder import Folder
from ssd_plugin.datasets.own_data.voc import root_of

KERAS_LINE = re.compile(r'\.\w+( \d+,\d+,\d+,\d+,\d+)+$')
EXPORT = 'export as Pascal VOC, COCO or YOLO from your tool'
SAMPLE = 5  # files of a suffix that are looked into


class OtherFormat(NamedTuple):
    """A format, a file of it, and how to go on."""

    name: str
    file: str
    advice: str


def find_other(folder: Folder) -> OtherFormat | None:
    """The first format that is known but not read, or None."""
    checks: tuple[tuple[tuple[str, ...], Callable], ...] = (
        (('.json',), of_json),
        (('.jsonl', '.ndjson', '.manifest'), of_json_lines),
        (('.csv', '.tsv'), of_csv),
        (('.xml',), of_xml),
        (('.tfrecord', '.tfrecords', '.record'), lambda *_: TFRECORD),
        (('.txt',), of_text),
        (('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar'), lambda *_: ('an archive', 'unpack it')),
        (('.parquet', '.arrow'), lambda *_: ('a Parquet table', EXPORT)),
    )
    for suffixes, check in checks:
        for path in folder.with_suffix(*suffixes)[:SAMPLE]:
            found = check(folder, path)
            if found:
                return OtherFormat(found[0], path, found[1])
    return None


Found = tuple[str, str] | None  # a name and an advice
TFRECORD = 'TFRecord', 'take the files from which it was written, or ' + EXPORT
LABELME = 'LabelMe', 'pip install labelme2coco && labelme2coco DIR'
VIA = 'VGG Image Annotator', 'export its project as COCO: Annotation, Export Annotations'
CREATEML = 'CreateML', EXPORT
SUPERVISELY = 'Supervisely', 'export it there as COCO or Pascal VOC'
LABELBOX = 'Labelbox', 'labelbox converts it to COCO: see its "export to COCO"'
LABEL_STUDIO = 'Label Studio', 'export as COCO, YOLO or Pascal VOC there'
CAPTIONS = "COCO's captions or other tables without boxes", 'add the json of instances'


def of_json(folder: Folder, path: str) -> Found:
    """Formats in json, by their keys."""
    try:
        content: Any = json.loads(folder.read_text(path))
    except (ValueError, RecursionError):
        return None
    first = content
    if isinstance(content, dict) and 'shapes' not in content:
        first = next((v for v in content.values() if isinstance(v, dict)), content)
    if isinstance(content, list):
        first = content[0] if content else None
    keys = {*content} if isinstance(content, dict) else set()
    inner = {*first} if isinstance(first, dict) else set()
    known = (
        ({'shapes', 'imagePath'} <= keys, LABELME),
        ('_via_img_metadata' in keys or {'filename', 'regions'} <= inner, VIA),
        ('regions' in inner and 'file_attributes' in inner, VIA),
        ({'image', 'annotations'} <= inner, CREATEML),
        ({'imagefilename', 'annotation'} <= inner, CREATEML),
        ('objects' in keys and 'size' in keys, SUPERVISELY),
        ('Labeled Data' in inner or 'data_row' in inner, LABELBOX),
        ('data' in inner and ('annotations' in inner or 'completions' in inner), LABEL_STUDIO),
        ({'name', 'labels'} <= inner, ('BDD100K', EXPORT)),
        ({'asset', 'regions'} <= keys, ('VoTT', 'export as Pascal VOC there')),
        ({'images', 'annotations'} <= keys, CAPTIONS),
    )
    return next((found for holds, found in known if holds), None)


def of_json_lines(folder: Folder, path: str) -> Found:
    """Formats with a json in each line."""
    text = folder.read_text(path)
    if 'data_row' in text:
        return LABELBOX
    is_table = 'file_name' in text or 'source-ref' in text or 'imageGcsUri' in text
    return ('a table of lines of JSON', EXPORT) if is_table else None


def of_csv(folder: Folder, path: str) -> Found:
    """Tables with a box in each line, by their header."""
    lines = folder.read_text(path).splitlines()[:1]
    header = {name.strip().lower() for row in csv.reader(lines) for name in row}
    if {'imageid', 'labelname', 'xmin'} <= header:
        return 'Open Images CSV', 'convert it, for instance by fiftyone: its COCO exporter'
    if {'xmin', 'ymin'} <= header or {'x1', 'y1'} <= header or 'region_shape_attributes' in header:
        return 'a CSV table of boxes', f'{EXPORT}, or write an XML for each image'
    first = lines[0].split(',') if lines else []
    if len(first) >= 6 and sum(text.strip().isdecimal() for text in first) >= 4:
        return 'a CSV table of boxes', f'{EXPORT}, or write an XML for each image'
    return None


def of_xml(folder: Folder, path: str) -> Found:
    """CVAT's own xml, of all images together."""
    if root_of(folder, path) == 'annotations':
        return 'CVAT for images', 'export as Pascal VOC, COCO or YOLO from CVAT'
    return None


def of_text(folder: Folder, path: str) -> Found:
    """KITTI, DOTA, VisDrone and keras-yolo3: text files with other columns than YOLO's."""
    fields = [line.split() for line in folder.read_text(path).splitlines()[-2:]]
    if not fields:
        return None
    last = fields[-1]
    if KERAS_LINE.search(' '.join(last)):
        return 'lists of images with boxes', EXPORT
    if len(last) == 1 and len(last[0].strip(',').split(',')) == 8:
        return 'VisDrone', 'convert it to YOLO, for instance by the script of Ultralytics'
    if len(last) in (15, 16) and not last[0].lstrip('-').isdecimal():
        return 'KITTI', 'convert it to COCO, for instance by fiftyone'
    if len(last) == 10 and last[-1].isdecimal() and not last[8].replace('.', '').isdecimal():
        return 'DOTA', 'convert its rotated boxes to COCO'
    return None
