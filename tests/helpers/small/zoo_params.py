"""Settings of a small zoo: one data set, and a network of each kind."""

TRAIN = {"steps": 60, "batch": 8, "lr": 0.01, "warmup": 6}


PARAMS = {
    "datasets": {"mine": {"source": "folder", "folder": "pictures", "image_size": 8, "test_share": 0.4}},
    "extractors": {"mine": {"dataset": "mine", "channels": [8, 8, 16], "blocks": [0, 0, 1], "train": TRAIN}},
    "references": {"mine": {"dataset": "mine"}},
    "tokenizers": {
        "mine": {
            "dataset": "mine",
            "extractor": "mine",
            "family": "llamagen",
            "config": {
                "codebook_size": 16,
                "codebook_dim": 4,
                "z_channels": 32,
                "ch": 32,
                "ch_mult": [1, 1],
                "num_res_blocks": 1,
                "latent": 4,
            },
            "train": TRAIN,
        },
        "scales": {
            "dataset": "mine",
            "extractor": "mine",
            "family": "var",
            "config": {
                "codebook_size": 16,
                "codebook_dim": 4,
                "ch": 32,
                "ch_mult": [1, 1],
                "num_res_blocks": 1,
                "patch_nums": [1, 2, 4],
            },
            "train": TRAIN,
        },
    },
    "teachers": {
        "mine": {
            "tokenizer": "mine",
            "config": {
                "n_layer": 1,
                "n_head": 2,
                "dim": 16,
                "ffn_multiple": 16,
            },
            "views": 2,
            "validate_every": 20,
            "train": TRAIN,
        },
        "scales": {
            "tokenizer": "scales",
            "config": {
                "depth": 1,
                "embed_dim": 16,
                "num_heads": 2,
                "num_classes": 2,
            },
            "train": TRAIN,
        },
    },
}
