# Mask2Former on minibench, also about four minutes: a higher rate, gradients clipped harder.
_base_ = './minibench.py'

max_iters = 900
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
_base_.param_scheduler[1].end = max_iters
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=1.0))
