# Mask2Former as its authors train it: AdamW with a tenth of the rate in the backbone and no decay of norms and
# embeddings, gradients clipped at 0.01, mixed precision, the rate divided by ten after 8/9 and 26/27 of the run.
#
# Length: 50 epochs in iterations of 16 images, as on COCO. The split sizes are not published; if 70 % of the mix
# subset's 44,253 images are for training, 50 × 31,000 / 16 is about 97,000 iterations. 97,200 is 27 × 3,600, so that
# both steps fall on validations. A 2-class fine-tuning from COCO weights may be done much earlier: watch the
# validation curve, and for a shorter run set max_iters alone.
_base_ = 'mmdet::mask2former/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic.py'

# The zoo's file is a whole experiment: keep the schedule.
for __key in set(_base_) - {'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr'}:
    del _base_[__key]

# The zoo's panoptic COCO weights, for a leaf's load_from: all of the model but the class head.
coco_weights = (
    'https://download.openmmlab.com/mmdetection/v3.0/mask2former/'
    'mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic/'
    'mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic_20220329_230021-05ec7315.pth'
)

max_iters = 97_200
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
param_scheduler = dict(end=max_iters, milestones=[max_iters * 8 // 9, max_iters * 26 // 27])
train_cfg = dict(max_iters=max_iters, val_interval=3_600, dynamic_intervals=None)
