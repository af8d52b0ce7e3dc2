# SSD512 on COCO with prime sample attention, as ssd300_pisa_coco: MMDetection reports 31.8 AP
# (val2017) for its own recipe, where its SSD512 has 29.3.
_base_ = 'ssd512_coco.py'
max_norm = 35

model = dict(
    bbox_head=dict(type='PISASSDMultiBoxHead'),
    train_cfg=dict(isr=dict(k=2.0, bias=0.0), carl=dict(k=1.0, bias=0.2)),
)

optim_wrapper = dict(clip_grad=dict(max_norm=max_norm, norm_type=2))
