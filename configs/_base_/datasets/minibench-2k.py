# Minibench with 2,000 training images instead of 400; the other splits are the same pictures.
_base_ = './minibench.py'

dataset = dict(data_root='data/minibench-2k', train_images=2000)

train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
