# SSD300 on COCO with prime sample attention (arXiv:1904.04821; docs/losses.md): MMDetection reports
# 27.6 AP (val2017) for its own recipe, where its SSD300 has 25.6. Inference is that of ssd300_coco.
_base_ = 'ssd300_coco.py'
max_norm = 35

model = dict(
    bbox_head=dict(type='PISASSDMultiBoxHead'),
    # Classification by how well the predicted box fits, regression by the score of its class.
    train_cfg=dict(isr=dict(k=2.0, bias=0.0), carl=dict(k=1.0, bias=0.2)),
)

optim_wrapper = dict(clip_grad=dict(max_norm=max_norm, norm_type=2))
