# SSD300-ResNet-50 on VOC07+12, with the paper's recipe.
_base_ = [
    '_base_/models/ssd300_r50.py',
    '_base_/datasets/voc0712.py',
    '_base_/schedules/voc_120k.py',
    '_base_/default_runtime.py',
]

# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
