# Mask2Former with Swin-B for instances. The zoo has Swin-B as a panoptic model only; everything that makes it an
# instance model of two classes is below, the rest is the zoo's. The learning rates of its parts go with it.
_base_ = 'mmdet::mask2former/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic.py'

# The zoo's file is a whole experiment: keep the model.
for __key in set(_base_) - {'model'}:
    del _base_[__key]

num_classes = 2  # tote, object; NumClassCheckHook compares every head with the data set
model = dict(
    data_preprocessor=dict(
        pad_seg=False,
        batch_augments=[
            dict(
                type='BatchFixedSizePad',
                size=(1024, 1024),
                img_pad_value=0,
                pad_mask=True,
                mask_pad_value=0,
                pad_seg=False,
            )
        ],
    ),
    backbone=dict(type='WindowedSwinTransformer'),  # the stock's outputs in less time
    panoptic_head=dict(
        type='StableMask2FormerHead',  # losses in float32 under mixed precision
        num_things_classes=num_classes,
        num_stuff_classes=0,
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
    panoptic_fusion_head=dict(
        type='BoundedMaskFormerFusionHead',  # the stock's masks without its 10 GB at 2448×2048
        num_things_classes=num_classes,
        num_stuff_classes=0,
    ),
    test_cfg=dict(panoptic_on=False),
)
