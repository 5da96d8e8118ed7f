_base_ = '../_base_/shift/minibench.py'
base = '../mask2former/mask2former_r18-w32_q30_minibench.py'
