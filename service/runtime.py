"""What a running service is made of: the bundle, its inference and the indexes, put together from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from model.bundle import Bundle, open_bundle
from service.decoding import Decoder
from service.engine import Engine, load_engine
from service.index import Indexes
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
    indexes: Indexes


def load(settings: Settings, metrics: Metrics) -> Runtime:
    """Verifies the bundle, starts its engine, runs it once, and opens the indexes. Takes seconds: not for the event loop.

    Raises:
        BundleError: no bundle, or one that was changed.
        EngineError: the engine or the device cannot be had.
        IndexProblem: the index file cannot be used at all.
    """
    bundle = open_bundle(settings.bundle)
    engine = load_engine(
        bundle,
        settings.engine,
        settings.device,
        settings.threads,
        settings.precision,
        cuda_graphs=settings.cuda_graphs,
        tensorrt_cache=settings.tensorrt_cache,
        max_batch=settings.max_batch,
    )
    size = bundle.manifest.preprocessing.size
    engine.run(np.zeros((1, 3, size, size), np.float32))
    return assemble(settings, metrics, bundle, engine)


def assemble(settings: Settings, metrics: Metrics, bundle: Bundle, engine: Engine) -> Runtime:
    """The runtime around a bundle and its engine.

    Raises:
        IndexProblem: the index file cannot be used at all.
    """
    preprocessing = bundle.manifest.preprocessing
    decoder = Decoder(preprocessing, settings.limits, settings.threads)
    indexes = Indexes(settings.data, bundle.fingerprint, bundle.manifest.dim, settings.threads)
    for name in indexes.names():
        metrics.watch_index(name, partial(indexes.count, name))
    inference = Inference(decoder, engine, settings.max_batch, metrics)
    return Runtime(settings, bundle, engine, inference, indexes)
