"""How good the embeddings are with learned filters, on images that anybody can fetch: `make quality`.

sources.py       downloads filters and pictures, each by its hash, into data/quality/ (nothing of it is committed)
filters.py       a VGG16 trunk as an .h5 file has it -> the weights of our backbone
pictures.py      40 classes of textures, 40 of objects: 8 images of each to train on, 8 to test
fine_tuning.py   what phase 2 gains over phase 1, for seven poolings
"""
