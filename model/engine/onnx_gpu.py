"""ONNX Runtime on a GPU: inputs and outputs are bound to fixed buffers, and everything runs on one stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor

from rankone.model.bundle import ONNX, Bundle
from rankone.model.engine.base import Batch, EngineError, Options, Outputs, Precision, reports_out_of_memory
from rankone.model.engine.buffers import BufferedRunner, Buffers, Step
from rankone.model.engine.onnx_half import half_precision
from rankone.model.engine.providers import open_session
from rankone.model.engine.torch_engine import check_gpu


class OnnxGpuEngine:
    """The bundle's `model.onnx` by CUDA or TensorRT, converted to float16 as it is loaded. Buffers and stream are torch's.

    Raises:
        EngineError: a provider or precision that is not available, or CUDA graphs together with TensorRT.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, options: Options) -> None:
        _check_options(options)
        options = with_cache_of(bundle, options)
        stream = torch.cuda.Stream()
        session = open_session(_model(bundle, options.precision), options, stream.cuda_stream)
        self.precision: Precision = options.precision
        self.provider: str = session.get_providers()[0]
        prepare = binder(session, cuda_graphs=options.cuda_graphs)
        self._runner = BufferedRunner(bundle.manifest, torch.device("cuda"), stream, options.threads, prepare)

    @reports_out_of_memory
    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        return self._runner.run(images, features=features)

    def close(self) -> None:
        self._runner.close()
        torch.cuda.empty_cache()  # the buffers' memory


def binder(session: onnxruntime.InferenceSession, *, cuda_graphs: bool) -> Callable[[Buffers], Step]:
    """Binds a session to buffers: the result runs it from their images to their outputs, without waiting for the device.

    With CUDA graphs, each batch size is a recording of its own, with a number.
    """
    numbers = itertools.count(1)

    def bind(buffers: Buffers) -> Step:
        binding = session.io_binding()
        binding.bind_input("images", *_where(buffers.images))
        for name, buffer in buffers.outputs.items():
            binding.bind_output(name, *_where(buffer))
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if cuda_graphs:
            options.add_run_config_entry("gpu_graph_id", str(next(numbers)))
        return partial(session.run_with_iobinding, binding, options)

    return bind


def with_cache_of(bundle: Bundle, options: Options) -> Options:
    """Gives this bundle and precision a folder of their own: TensorRT's cache is keyed by the graph and ignores the weights."""
    if options.tensorrt_cache is None:
        return options
    folder = options.tensorrt_cache / f"{bundle.fingerprint[:16]}-{options.precision}"
    return replace(options, tensorrt_cache=folder)


def _where(buffer: Tensor) -> tuple[str, int, type[np.float32], tuple[int, ...], int]:
    return buffer.device.type, buffer.device.index or 0, np.float32, tuple(buffer.shape), buffer.data_ptr()


def _model(bundle: Bundle, precision: Precision) -> ModelProto:
    path = bundle.file(ONNX)
    return half_precision(path) if precision == "float16" else onnx.load(path)


def _check_options(options: Options) -> None:
    check_gpu(options.precision)
    if options.precision == "bfloat16":
        raise EngineError(
            "the graph of model.onnx has no bfloat16 convolution: set RANKONE_PRECISION=float16, or RANKONE_ENGINE=export"
        )
    if options.cuda_graphs and options.tensorrt_cache is not None:
        raise EngineError(
            "a CUDA graph must hold the whole network, and TensorRT runs a part: set RANKONE_CUDA_GRAPHS=false, or leave "
            "RANKONE_TENSORRT_CACHE unset"
        )
