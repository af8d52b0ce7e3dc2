"""VOC trees of boxes alone: no image is ever opened by what fits priors."""

import xml.etree.ElementTree as ET
from pathlib import Path


def write_boxes(root, images, split='trainval'):
    """Write a VOC tree, the images being (w, h) and a list of (name, xyxy box, difficult)."""
    root = Path(root)
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = []
    for number, ((width, height), objects) in enumerate(images):
        names.append(f'{split}{number:03d}')
        tree = ET.Element('annotation')
        size = ET.SubElement(tree, 'size')
        for tag, value in (('width', width), ('height', height), ('depth', 3)):
            ET.SubElement(size, tag).text = str(value)
        for name, box, difficult in objects:
            element = ET.SubElement(tree, 'object')
            ET.SubElement(element, 'name').text = name
            ET.SubElement(element, 'difficult').text = str(int(difficult))
            bndbox = ET.SubElement(element, 'bndbox')
            for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box):
                ET.SubElement(bndbox, tag).text = str(int(value) + 1)  # VOC counts from 1
        ET.ElementTree(tree).write(root / 'Annotations' / f'{names[-1]}.xml')
    list_file = root / 'ImageSets' / 'Main' / f'{split}.txt'
    list_file.write_text(''.join(f'{name}\n' for name in names))
    return root
