"""Which engine serves a bundle, in which precision, and why: the one that was asked for, or with `auto` the fastest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final, Literal

from rankone.model.bundle import Bundle
from rankone.model.engine import Engine, EngineError, load_engine
from rankone.model.engine.base import EngineName, Precision
from rankone.model.engine.trial import Candidate, try_out
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")

_ON_CPU: Final[tuple[Candidate, ...]] = (("onnx", "float32"), ("openvino", "bfloat16"), ("openvino", "float32"))
"""What `auto` tries. Torch's engines take longer to load, and were slower."""


def open_engine(bundle: Bundle, settings: Settings) -> tuple[Engine, str]:
    """The engine that the settings ask for, not warmed up, and why it is this one and has its precision.

    Raises:
        BundleError: the bundle lacks the file that the engine runs.
        EngineError: the engine, the device or the precision is not available.
    """
    if settings.engine != "auto":
        return _open_named(settings.engine, bundle, settings)
    on_gpu = settings.device == "cuda"
    if not on_gpu and find_spec("openvino") is not None:
        return _open_fastest(bundle, settings)
    engine, why = _open_named("onnx", bundle, settings)
    return engine, f"engine auto: onnx, as {'on every GPU' if on_gpu else 'openvino is not installed'}; {why}"


def _open_fastest(bundle: Bundle, settings: Settings) -> tuple[Engine, str]:
    """The fastest on this CPU whose embeddings are those of ONNX Runtime in float32."""
    candidates = _candidates(settings.precision)
    trial = try_out(bundle, candidates, settings.threads)
    reasons = list(trial.faults)
    if trial.crash is not None:
        logger.warning("engine auto: %s", trial.crash)
        reasons.append(trial.crash)
    refused: EngineError | None = None
    for name, precision in trial.ranking or candidates[:1]:  # after a crash, no other library comes into this process
        try:
            engine = _load_in(precision, name, bundle, settings)
        except EngineError as error:
            reasons.append(str(error))
            refused = error
            continue
        found = f"engine auto: {name} in {precision}" + (f", as {trial}" if trial.times else "")
        why = "; ".join([found, *reasons])
        logger.info("%s", why)
        return engine, why
    assert refused is not None
    raise refused


def _candidates(precision: Precision | Literal["auto"] | None) -> Sequence[Candidate]:
    if precision is None or precision == "auto":
        return _ON_CPU
    return [("onnx", precision), ("openvino", precision)]


def _open_named(name: EngineName, bundle: Bundle, settings: Settings) -> tuple[Engine, str]:
    if settings.precision is None:
        return _load_in("float32", name, bundle, settings), "precision float32, as none is set"
    if settings.precision != "auto":
        return _load_in(settings.precision, name, bundle, settings), f"precision {settings.precision} is set"
    lower: Precision | None = "float16" if settings.device == "cuda" else "bfloat16" if name == "openvino" else None
    if lower is None:
        return _load_in("float32", name, bundle, settings), f"precision auto: float32, which {name} has on every CPU"
    try:
        return _load_in(lower, name, bundle, settings), f"precision auto: {lower}'s embeddings are those of float32"
    except EngineError as error:
        why = f"precision auto: float32, because {lower} is not available: {error}"
        logger.warning("%s", why)
    return _load_in("float32", name, bundle, settings), why


def _load_in(precision: Precision, name: EngineName, bundle: Bundle, settings: Settings) -> Engine:
    return load_engine(
        bundle,
        name,
        settings.device,
        settings.threads,
        precision,
        cuda_graphs=settings.cuda_graphs,
        tensorrt_cache=settings.tensorrt_cache,
        max_batch=settings.batch_policy.max_batch,
    )
