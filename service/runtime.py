"""What a running service is made of: the bundle, its inference and the indexes, put together from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from model.bundle import Bundle, open_bundle
from service.decoding import Decoder
from service.engine import Engine, load_engine
from service.index import Indexes, Serving
from service.inference import Inference
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True)
class Runtime:
    """Everything a route may use. Made once, in `load`; nothing in it is ever half ready."""

    settings: Settings
    bundle: Bundle
    engine: Engine
    inference: Inference
    indexes: Serving


def load(settings: Settings, metrics: Metrics) -> Runtime:
    """Verifies the bundle, starts its engine, runs it once, and opens the indexes. Takes seconds: not for the event loop.

    Raises:
        BundleError: no bundle, or one that was changed.
        EngineError: the engine or the device cannot be had.
        IndexProblem: the folder of the indexes cannot be used.
    """
    bundle = open_bundle(settings.bundle)
    engine = load_engine(bundle, settings.engine, settings.device, settings.threads)
    size = bundle.manifest.preprocessing.size
    engine.run(np.zeros((1, 3, size, size), np.float32))
    return assemble(settings, metrics, bundle, engine)


def assemble(settings: Settings, metrics: Metrics, bundle: Bundle, engine: Engine) -> Runtime:
    """The runtime around a bundle and its engine.

    Raises:
        IndexProblem: the folder of the indexes cannot be used.
    """
    preprocessing = bundle.manifest.preprocessing
    decoder = Decoder(preprocessing, settings.limits, settings.threads)
    indexes = Indexes(settings.data, settings.threads).serving(bundle.fingerprint, bundle.manifest.dim)
    for name in indexes.names():
        metrics.watch_index(name, partial(indexes.count, name))
    inference = Inference(decoder, engine, settings.max_batch, metrics)
    return Runtime(settings, bundle, engine, inference, indexes)
