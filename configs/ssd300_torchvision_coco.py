# SSD300 as torchvision's ssd300_vgg16 has it: for its weights, brought here by
# tools/convert_checkpoint.py. Its authors report 25.1 AP (val2017).
_base_ = 'ssd300_coco.py'

# Theirs are for images in 0..1.
mean = [255 * 0.48235, 255 * 0.45882, 255 * 0.40784]
model = dict(
    data_preprocessor=dict(mean=mean),
    bbox_head=dict(anchor_generator=dict(clip_sides=True)),
)

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].mean = mean
# It resizes real numbers, which are not rounded after.
test_pipeline[0].to_float32 = True
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
