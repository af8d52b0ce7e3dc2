# SSD300 on VOC07+12: the paper reports 77.2 mAP on VOC2007 test.
_base_ = [
    '_base_/models/ssd300_vgg16.py',
    '_base_/datasets/voc0712.py',
    '_base_/schedules/voc_120k.py',
    '_base_/default_runtime.py',
]
