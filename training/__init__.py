"""From images on disk to a bundle: data sets, the two phases, evaluation, export."""
