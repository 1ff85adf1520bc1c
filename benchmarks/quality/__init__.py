"""How good embeddings are with learned filters, on images that anybody can download: `make quality`.

sources.py       downloads, checked by hash, and the filters as weights of our backbone
pictures.py      40 classes of textures and 40 of objects, with 8 training and 8 test images each
crops.py         four crops of 400 textures, and their embeddings by several poolings
short.py         retrieval and cost of short embeddings
tuned.py         the same after fine-tuning
reduced.py       how near a JPEG decoded at a reduced scale is to the whole one
hiding.py        whether a score falls most where its evidence lies
fine_tuning.py   what phase 2 gains over phase 1, for seven poolings
"""
