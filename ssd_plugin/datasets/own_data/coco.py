"""Own data in COCO's format: one json or several, wherever they and the images are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ssd_plugin.datasets.coco import CocoDocument
from ssd_plugin.datasets.faults import AnnotatedImage, DataFault, Kind
from ssd_plugin.datasets.own_data.folder import Folder, stem_of
from ssd_plugin.datasets.own_data.part_names import part_of_file
from ssd_plugin.datasets.own_data.records import Orphan, merge
from ssd_plugin.errors import DataRefusedError

ORDER = ('train', 'trainval', '', 'val', 'test')  # of the jsons; '': of no part
TABLES = ('"images"', '"annotations"', '"categories"')


def find_coco(folder: Folder) -> COCOReader | None:
    """The COCO annotations in a folder, or None if there are none.

    Of the jsons that COCO itself has for each part, those called ``instances`` are taken.

    Raises:
        DataRefusedError: A json has the tables of COCO, or is named for a part, but can't be read.
    """
    documents: dict[str, CocoDocument] = {}
    unused: list[str] = []
    images = {stem_of(path).casefold() for path in folder.images}
    for path in folder.with_suffix('.json'):
        if path[: -len('.json')].rsplit('/', 1)[-1].casefold() in images:
            continue  # it is of this one image, in another format
        text = folder.read_text(path)
        if all(table in text for table in TABLES):
            documents[path] = CocoDocument(folder.path(path))
        elif part_of_file(path):
            unused.append(path)
            require_json(folder, path, text)
    named = {path for path in documents if path.rsplit('/', 1)[-1].startswith('instances')}
    unused += [path for path in documents if named and path not in named]
    if not documents:
        return None
    order = sorted(documents, key=lambda path: ORDER.index(part_of_file(path)))
    used = {path: documents[path] for path in order if path not in unused}
    return COCOReader(folder, used, unused)


def require_json(folder: Folder, path: str, text: str) -> None:
    """Refuse a file that is no json, perhaps because it is cut off: its part would be missing.

    Raises:
        DataRefusedError: It is none.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataRefusedError(f"can't read {folder.path(path)}: {error}") from error


@dataclass
class Entry:
    """What one json says of an image."""

    part: str
    document: CocoDocument
    entry: dict


class COCOReader:
    """COCO's jsons: each is for a part, or for all where its name and folder say none."""

    kind = 'COCO'
    ignored = 'crowds'

    def __init__(
        self, folder: Folder, documents: dict[str, CocoDocument], unused: Sequence[str]
    ) -> None:
        self.folder, self.documents = folder, documents
        self.files = list(documents)
        self.notes = [f'Not used: {", ".join(unused)}.'] if unused else []
        self.orphans: list[Orphan] = []
        self.parts: dict[str, list[str]] = {}
        self._entries: dict[str, list[Entry]] = {}
        for path, document in documents.items():
            part = part_of_file(path)
            for entry in document.images.values():
                self._add(path, part, document, entry)
        self.images = sorted(self._entries)

    def _add(self, path: str, part: str, document: CocoDocument, entry: dict) -> None:
        name = entry['file_name']
        image = self.folder.image_index.find(name, near=path, part=part)
        if image is None:
            detail = f'{path} names it; no image in the folder fits, or several do'
            fault = DataFault(Kind.NO_IMAGE, name, detail)
            self.orphans.append(Orphan(f'{part}/{name}' if part else name, fault))
            return
        self._entries.setdefault(image, []).append(Entry(part, document, entry))
        if part:
            self.parts.setdefault(part, []).append(image)

    def read(self, part: str, image: str, size: tuple[int, int]) -> AnnotatedImage:
        """What the jsons of a part, or else all, say of an image."""
        entries = self._entries[image]
        of_part = [entry for entry in entries if entry.part == part]
        return merge([e.document.annotated(e.entry) for e in of_part or entries])

    def strays(self, part: str) -> list[DataFault]:
        """What is wrong in the part's json, or in those of no part, and belongs to no image."""
        of_part = {'train': ('train', 'trainval', '')}.get(part, (part,))
        return [
            fault._replace(path=path) if fault.path == str(document.path) else fault
            for path, document in self.documents.items()
            if part_of_file(path) in of_part
            for fault in document.strays()
        ]

    def classes(self, found: set[str]) -> list[str]:
        """The categories, in the order of the json that is trained on.

        Roboflow's category 0, which is a name for all others and has no objects, is none.
        """
        names: list[str] = []
        for document in self.documents.values():
            above = {c.get('supercategory') for c in document.categories}
            names += [
                c['name']
                for c in document.categories
                if c['id'] != 0 or c['name'] not in above or c['name'] in found
            ]
        return list(dict.fromkeys(names))
