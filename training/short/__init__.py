"""Short embeddings, from images to the map in a bundle.

examples.py   which images to learn from, and their embeddings
learning.py   the map, how far to shrink, and its file in a run
figures.py    retrieval by length
"""

from rankone.training.run import SHORT
from rankone.training.short.examples import embedded, images_of_bundle, images_of_run
from rankone.training.short.figures import LengthFigures, ShortReport, measure, measure_outputs
from rankone.training.short.learning import Examples, Learned, learn, load_learned, save_learned

__all__ = [
    "SHORT",
    "Examples",
    "Learned",
    "LengthFigures",
    "ShortReport",
    "embedded",
    "images_of_bundle",
    "images_of_run",
    "learn",
    "load_learned",
    "measure",
    "measure_outputs",
    "save_learned",
]
