"""From a bundle to answers over HTTP. Imports `model.bundle` and `model.preprocessing`; torch only for a TorchScript engine."""
