"""Own data in YOLO's format: a text file for each image, and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssd_plugin.datasets.faults import AnnotatedBox, AnnotatedImage, DataFault, Kind
from ssd_plugin.datasets.own_data.folder import Folder, folder_of
from ssd_plugin.datasets.own_data.part_names import part_of_folder
from ssd_plugin.datasets.own_data.records import Orphan
from ssd_plugin.datasets.own_data.yolo_names import ClassNames, find_names, parts_of_yaml

NUM_FIELDS = 5  # class, centre x, centre y, width, height, relative to the image
MOST = 2  # of coordinates relative to the image; larger ones are pixels
SAMPLE = 200  # files that are looked into for recognising the format
NO_LABELS = 'no line of it is a class and numbers from 0 to 1'
DECIMALS = 2  # of pixels: labels have six of the image's size


def find_yolo(folder: Folder) -> YOLOReader | None:
    """The YOLO labels in a folder, or None if there are none.

    An image without labels is background where others in its folder have some. A folder of which
    no image has labels is not annotated.
    """
    found: dict[str, list[tuple[str, str]]] = {}  # images and their texts, by the texts' folder
    orphans = []
    names = find_names(folder)
    for path in folder.with_suffix('.txt'):
        image = folder.image_index.find(path, near=path, part=part_of_folder(path))
        if path in names.files:
            continue
        if image:
            found.setdefault(folder_of(path), []).append((image, path))
        elif is_label_file(folder, path):
            fault = DataFault(Kind.NO_IMAGE, path, 'there is no image for these labels')
            orphans.append(Orphan(path, fault))
    labels: dict[str, list[str]] = {}
    for pairs in found.values():
        sample = pairs[:: len(pairs) // SAMPLE + 1]
        if any(is_label_file(folder, path) for _, path in sample):  # they are no captions, say
            for image, path in pairs:
                labels.setdefault(image, []).append(path)
    return YOLOReader(folder, labels, orphans, names) if labels or orphans else None


def is_label_file(folder: Folder, path: str) -> bool:
    """Whether most lines of a file are labels."""
    lines = [line.split() for line in folder.read_text(path).splitlines() if line.strip()]
    good = sum(read_numbers(fields) is not None for fields in lines)
    return good >= max(1, len(lines) / 2)


def read_numbers(fields: Sequence[str]) -> tuple[int, list[float]] | None:
    """The class and the other numbers of a line, at least four; None if it is no label."""
    try:
        numbers = [float(text) for text in fields]
    except ValueError:
        return None
    if len(numbers) < NUM_FIELDS or not numbers[0].is_integer() or numbers[0] < 0:
        return None
    return int(numbers[0]), numbers[1:]


def box_of(numbers: Sequence[float], has_keypoints: bool) -> tuple[float, float, float, float]:
    """The box xyxy, relative to the image, of a label's numbers behind its class.

    These are centre and size, perhaps with one number behind, a confidence or a track; or with
    keypoints; or the x and y of a polygon's corners.
    """
    if len(numbers) >= NUM_FIELDS + 1 and len(numbers) % 2 == 0 and not has_keypoints:
        xs, ys = numbers[::2], numbers[1::2]
        return min(xs), min(ys), max(xs), max(ys)
    x, y, width, height = numbers[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


@dataclass
class YOLOReader:
    """YOLO's labels, by the image that they are for."""

    folder: Folder
    labels: Mapping[str, Sequence[str]]
    orphans: Sequence[Orphan]
    names: ClassNames
    kind: str = 'YOLO'
    ignored: str = ''
    notes: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = [path for paths in self.labels.values() for path in paths]
        annotated = {folder_of(image) for image in self.labels}
        self.images = [image for image in self.folder.images if folder_of(image) in annotated]
        parts, self.notes = parts_of_yaml(self.folder, self.names)
        known = set(self.images)
        self.parts = {part: [i for i in images if i in known] for part, images in parts.items()}
        if not self.names:
            self.notes.append(
                'No names of classes (data.yaml, classes.txt or obj.names): they are called by '
                'their numbers.'
            )

    def read(self, part: str, image: str, size: tuple[int, int]) -> AnnotatedImage | DataFault:
        """Read the labels of an image; it is background if there are none."""
        boxes: list[AnnotatedBox] = []
        faults: list[DataFault] = []
        for path in self.labels.get(image, ()):
            lines = self.folder.read_text(path).splitlines()
            found = [self._read_line(path, line, size) for line in lines if line.strip()]
            if found and all(fault == Kind.NOT_A_BOX for fault in found):
                return DataFault(Kind.NOT_AN_ANNOTATION, path, NO_LABELS)
            for line, result in zip(filter(str.strip, lines), found, strict=True):
                if isinstance(result, str):
                    faults.append(DataFault(result, image, f'{path}: {line.strip()[:80]}'))
                elif result not in boxes or len(self.labels[image]) == 1:
                    boxes.append(result)
        return AnnotatedImage(image, None, boxes, faults)

    def _read_line(self, path: str, line: str, size: tuple[int, int]) -> AnnotatedBox | str:
        """A line's box in pixels, or the kind of its fault."""
        label = read_numbers(line.split())
        if label is None or not all(abs(number) <= MOST for number in label[1][:4]):
            return Kind.NOT_A_BOX
        number, numbers = label
        name = self.names.name_of(number, path)
        if name is None:
            return Kind.UNKNOWN_CLASS
        x1, y1, x2, y2 = box_of(numbers, self.names.has_keypoints)
        (width, height), digits = size, DECIMALS
        corners = x1 * width, y1 * height, x2 * width, y2 * height
        left, top, right, bottom = (round(value, digits) for value in corners)
        return AnnotatedBox(name, (left, top, right, bottom), False)

    def strays(self, part: str) -> list[DataFault]:
        """None: labels belong to an image."""
        return []

    def classes(self, found: set[str]) -> list[str]:
        """The names in their order; without names, the numbers that occur."""
        return self.names.all or sorted(found, key=int)
