"""Encoded images to pixels, in worker processes: what a hostile file can do to a decoder, it does to one of them."""
