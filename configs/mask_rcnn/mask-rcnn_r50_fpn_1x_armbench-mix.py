_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/armbench-mix.py',
    '../_base_/schedules/1x.py',
    '../_base_/default_runtime.py',
]

# COCO weights from mmdet's zoo; the class heads differ (80 classes there) and start afresh.
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r50_fpn_1x_coco/mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth'
