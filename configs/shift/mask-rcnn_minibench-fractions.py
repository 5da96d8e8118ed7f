# All 400 training pictures, a tenth, a twentieth and a hundredth of them, with the same number of iterations. Pictures
# are drawn independently of each other, so the first ones are a random part, and each part lies in the larger ones.
base = '../mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
ingredients = {
    _name: dict(overrides=dict(train_dataloader=dict(dataset=dict(indices=_images))))
    for _name, _images in dict(baseline=400, tenth=40, twentieth=20, hundredth=4).items()
}
