"""Recognise the format of the data in a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ssd_plugin.datasets.own_data.coco import find_coco, json_files, part_of
from ssd_plugin.datasets.own_data.records import Source, subfolders
from ssd_plugin.datasets.own_data.voc import find_voc
from ssd_plugin.errors import DataRootError

LOOKED_FOR = (
    'VOC: Annotations/*.xml beside JPEGImages or images, or such folders named VOC2007 and so on; '
    'COCO: annotations/instances_*.json, train.json and val.json, or one json'
)
MAX_ENTRIES = 8  # of a folder that the error lists


def recognise(root: Path) -> Source:
    """The data set in a folder.

    Raises:
        DataRootError: There is no such folder, or it is not clear what it holds.
        DataRefusedError: It holds a json that is no COCO json.
    """
    if not root.is_dir():
        raise DataRootError(f'no folder {root}')
    source = find_voc(root) or find_coco(root)
    if source:
        return source
    # Folders that may be a data set; nothing is read.
    below = [f for f in subfolders(root) if find_voc(f) or any(map(part_of, json_files(f)))]
    hint = f'. Did you mean {below[0]}?' if below else ''
    raise DataRootError(
        f'{root} is no data set in a known format. Looked for {LOOKED_FOR}. '
        f'Found {describe(root)}{hint}'
    )


def describe(folder: Path) -> str:
    """What lies in a folder, in words."""
    entries = sorted(folder.iterdir())
    folders = [f'{entry.name}/' for entry in entries if entry.is_dir()]
    suffixes = Counter(f'*{entry.suffix or entry.name}' for entry in entries if entry.is_file())
    files = [f'{number} {suffix}' for suffix, number in suffixes.most_common()]
    found = [*folders[:MAX_ENTRIES], *files[:MAX_ENTRIES]]
    more = [', ...'] if len(folders) > MAX_ENTRIES or len(files) > MAX_ENTRIES else ['']
    return ', '.join(found) + more[0] if found else 'nothing'
