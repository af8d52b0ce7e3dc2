# SSD300 as torchvision's ssd300_vgg16 has it: for its weights, brought here by
# tools/convert_checkpoint.py. Its authors report 25.1 AP (val2017).
_base_ = 'ssd300_coco.py'

# Theirs are for images in 0..1.
mean = [255 * 0.48235, 255 * 0.45882, 255 * 0.40784]
model = dict(
    data_preprocessor=dict(mean=mean),
    bbox_head=dict(anchor_generator=dict(clip_sides=True)),
)

_base_.augment.update(mean=mean)
# torchvision resizes real numbers, and does not round the result.
_base_.test_load.update(to_float32=True)
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
