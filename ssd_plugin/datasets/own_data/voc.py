"""Own data in VOC's format: an xml for each image, wherever both are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssd_plugin.datasets.faults import AnnotatedImage, DataFault, Kind
from ssd_plugin.datasets.own_data.folder import Folder
from ssd_plugin.datasets.own_data.part_names import part_of_folder
from ssd_plugin.datasets.own_data.records import Orphan, merge
from ssd_plugin.datasets.voc import read_annotation

FIRST_ELEMENT = re.compile(rb'<([A-Za-z][\w.:-]*)')
HEAD = 4096  # bytes of a file in which its first element is looked for
SAMPLE = 50  # xmls beside images that are looked into for recognising the format


def find_voc(folder: Folder) -> VOCReader | None:
    """The VOC annotations in a folder, or None if there are none.

    An xml's image has its stem, or else the name in its ``<filename>``: files are renamed more
    often than their annotations are corrected.
    """
    files: dict[str, list[str]] = {}
    orphans = []
    for path in folder.with_suffix('.xml'):
        part = part_of_folder(path)
        image = folder.image_index.find(path, near=path, part=part)
        if image is None:
            if root_of(folder, path) != 'annotation':
                continue
            content = read_annotation(str(folder.path(path)))
            name = '' if isinstance(content, DataFault) else content.path
            image = folder.image_index.find(name, near=path, part=part)
        if image is None:
            detail = f'there is no image for this annotation (its filename: {name or "none"})'
            orphans.append(Orphan(path, DataFault(Kind.NO_IMAGE, path, detail)))
        else:
            files.setdefault(image, []).append(path)
    found = [path for paths in files.values() for path in paths]
    sample = found[:: len(found) // SAMPLE + 1]
    if not orphans and all(root_of(folder, path) != 'annotation' for path in sample):
        return None
    return VOCReader(folder, files, orphans)


def root_of(folder: Folder, path: str) -> str:
    """The name of an xml's first element, '' if there is none near its beginning."""
    with open(folder.path(path), 'rb') as file:
        found = FIRST_ELEMENT.search(file.read(HEAD).replace(b'\0', b''))  # NUL: of UTF-16
    return found[1].decode() if found else ''


@dataclass
class VOCReader:
    """VOC's xmls, by the image that they are for."""

    folder: Folder
    by_image: Mapping[str, Sequence[str]]
    orphans: Sequence[Orphan]
    kind: str = 'VOC'
    ignored: str = 'difficult'
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.images = sorted(self.by_image)
        self.files = [path for paths in self.by_image.values() for path in paths]

    def read(self, part: str, image: str, size: tuple[int, int]) -> AnnotatedImage | DataFault:
        """Read the annotation of an image; of several, all that can be read."""
        found: list[AnnotatedImage] = []
        faults: list[DataFault] = []
        for path in self.by_image[image]:
            annotated = read_annotation(str(self.folder.path(path)))
            if isinstance(annotated, DataFault):
                faults.append(annotated._replace(path=path))
            else:
                found.append(annotated)
        return merge(found) if found else faults[0]

    def strays(self, part: str) -> list[DataFault]:
        """None: each annotation belongs to an image."""
        return []

    def classes(self, found: set[str]) -> list[str]:
        """Those of the boxes in alphabetical order, as Pascal VOC's are."""
        return sorted(found)
