# The backbone starts from the Mask R-CNN of the same pictures: run tools/ablate.py on that one's file first.
_base_ = './mask-rcnn_minibench-fractions.py'
base = '../mask2former/mask2former_r18-w32_q30_6e_minibench.py'

_mask_rcnn = 'work_dirs/ablations/mask-rcnn_minibench-fractions/{}_seed0/iter_620.pth'
ingredients = {
    _name: dict(overrides=dict(model=dict(backbone=dict(init_cfg=dict(checkpoint=_mask_rcnn.format(_name))))))
    for _name in ('baseline', 'tenth', 'twentieth', 'hundredth')
}
