_base_ = '../_base_/shift/minibench.py'
base = '../mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
ingredients = dict(
    mask_nms=dict(weights_of='baseline', test_options=['--cfg-options', 'model.test_cfg.rcnn.mask_nms=0.5']),
)
