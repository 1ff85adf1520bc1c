"""Short embeddings, from images to the map in a bundle.

examples.py   which images to learn from, and their embeddings
learning.py   the map, and how far to shrink
figures.py    retrieval by length
storage.py    the map in the directory of a run
"""

from rankone.training.run import SHORT
from rankone.training.short.examples import embedded, images_of_bundle, images_of_run
from rankone.training.short.figures import LengthFigures, ShortReport, measure, measure_outputs
from rankone.training.short.learning import Examples, Learned, learn
from rankone.training.short.storage import load_learned, save_learned

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
