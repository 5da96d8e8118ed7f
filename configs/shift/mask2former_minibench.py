_base_ = './minibench.py'
base = '../mask2former/mask2former_r18-w32_q30_2k_minibench.py'
