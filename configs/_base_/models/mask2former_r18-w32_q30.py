# Mask2Former for two CPU cores and random weights: the same parts as Swin-B, 3 million parameters.
_base_ = './mask2former_swin-b-p4-w12-384.py'

channels = 64
attention = dict(embed_dims=channels, num_heads=4)
ffn = dict(embed_dims=channels, feedforward_channels=256)
encoding = dict(num_feats=channels // 2)
num_queries = 30

model = dict(
    data_preprocessor=dict(batch_augments=None),  # images keep their size, padded to a multiple of 32
    backbone=dict(
        _delete_=True,
        type='FoldedResNet',
        depth=18,
        base_channels=32,
        stem_channels=32,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,  # nothing is pretrained, so batch norm learns its statistics
        zero_init_residual=False,  # blocks that begin as nothing learn too little in so few iterations
        style='pytorch',
    ),
    panoptic_head=dict(
        in_channels=[32, 64, 128, 256],
        feat_channels=channels,
        out_channels=channels,
        num_queries=num_queries,
        pixel_decoder=dict(
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=encoding,
        ),
        positional_encoding=encoding,
        transformer_decoder=dict(
            num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
        ),
    ),
    train_cfg=dict(num_points=1024),
    test_cfg=dict(max_per_image=2 * num_queries),  # every query under both classes
)
