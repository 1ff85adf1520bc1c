"""OpenVINO on the CPU. It needs no torch, and in bfloat16 it is the fastest engine on a CPU with units for that."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from rankone.model.engine.base import Batch, EngineError, Options, Outputs, Precision, reports_out_of_memory
from rankone.model.evidence import FEATURES

# With this package, which pip installs beside it, `import openvino` sends a message to Google Analytics and writes into the
# home directory. An entry of None is a package that is not installed.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    import openvino
except ImportError as error:
    raise EngineError(
        "the openvino engine needs openvino: install rankone[openvino], or set RANKONE_ENGINE=onnx"
    ) from error

_DEVICE: Final = "CPU"
_TYPES: Final[Mapping[Precision, openvino.Type]] = {
    "float32": openvino.Type.f32,
    "bfloat16": openvino.Type.bf16,
    "int8": openvino.Type.f32,  # of all that `model.int8.onnx` does not say is in int8
}
_UNITS: Final = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert"})
"""Flags of the CPUs on which OpenVINO computes in bfloat16."""
_BACKBONE: Final = ".backbone."
"""In the names of the weights of the backbone, and of no others."""


class OpenVinoEngine:
    """A `model.onnx` or `model.int8.onnx` on the CPU, for batches of any size.

    OpenVINO lowers a compiled model as a whole. In bfloat16, backbone and head are therefore two compiled models, and the head
    reads the memory that the backbone writes.

    Raises:
        EngineError: a precision that is not available, or an option that needs a GPU.
    """

    name = "openvino"

    def __init__(self, path: Path, options: Options) -> None:
        self._threads = options.threads
        check_options(options)
        self.precision: Precision = options.precision
        self.provider: str = core().get_property(_DEVICE, "FULL_DEVICE_NAME")
        model = core().read_model(path)
        self._models = [(model, self.precision)]
        if self.precision == "bfloat16":
            backbone, head = split(model)
            self._models = [(backbone, self.precision), (head, "float32")]
        self._parts = self._compile()

    @reports_out_of_memory
    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        parts = self._parts or self._compile()
        self._parts = []  # unless this run succeeds: one without memory leaves broken kernels, which later runs would use
        inputs = [openvino.Tensor(np.asarray(images))]  # a copy: shared memory would have to be writable
        for part in parts:
            for position in range(len(part.input_tensors)):
                part.set_input_tensor(position, inputs[position])
            part.start_async()
            part.wait()  # `infer` would hide that there was no memory, and leave the outputs of the run before
            inputs = [inputs[0], *part.output_tensors]
        self._parts = parts
        names = [output.get_any_name() for output in parts[-1].model_outputs]
        found = dict(zip(names, parts[-1].output_tensors, strict=True))
        return Outputs(**{name: found[name].data.copy() for name in names if features or name != FEATURES})

    def close(self) -> None:
        self._parts, self._models = [], []

    def _compile(self) -> list[openvino.InferRequest]:
        """What runs one after the other: the whole network, or backbone and head."""
        return [
            core().compile_model(model, _DEVICE, _config(precision, self._threads)).create_infer_request()
            for model, precision in self._models
        ]


@cache
def core() -> openvino.Core:
    """The process's one Core: with the last engine of a Core, OpenVINO takes down threads and libraries that others may use."""
    return openvino.Core()


def split(model: openvino.Model) -> tuple[openvino.Model, openvino.Model]:
    """Cuts a network in two behind the last weights of its backbone. `model` itself is used up.

    Returns:
        The backbone, images -> what the head reads of it, and the head, whose inputs are the images and then these.

    Raises:
        EngineError: no weights are named as those of a backbone.
    """
    nodes = model.get_ordered_ops()  # each behind its inputs
    inside = _backbone(nodes)
    images = model.get_parameters()
    ends, entries = [], []
    for node in nodes:
        if node.get_name() not in inside or node.get_type_name() in ("Constant", "Parameter"):
            continue
        for output in node.outputs():
            readers = [reader for reader in output.get_target_inputs() if reader.get_node().get_name() not in inside]
            if readers:
                entry = openvino.opset13.parameter(output.get_partial_shape(), output.get_element_type())
                for reader in readers:
                    reader.replace_source_output(entry.output(0))
                ends.append(openvino.opset13.result(output))
                entries.append(entry)
    return openvino.Model(ends, images, "backbone"), openvino.Model(model.get_results(), [*images, *entries], "head")


def _backbone(nodes: list[openvino.Node]) -> set[str]:
    """The names of the nodes that use weights of the backbone, and of all that these nodes need."""
    weights, inside = set[str](), set[str]()
    for node in nodes:
        is_weight = node.get_type_name() == "Constant" and _BACKBONE in f".{node.get_friendly_name()}"
        reads = any(value.get_node().get_name() in weights for value in node.input_values())
        has_no_batch = all(output.get_partial_shape().is_static for output in node.outputs())
        if is_weight or (reads and has_no_batch):  # a weight, or a weight in another shape
            weights.add(node.get_name())
        elif reads:
            inside.add(node.get_name())
    if not inside:
        raise EngineError(
            "model.onnx does not say what its backbone is: export the bundle again, or set RANKONE_PRECISION=float32"
        )
    for node in reversed(nodes):
        if node.get_name() in inside:
            inside |= {value.get_node().get_name() for value in node.input_values()}
    return inside


def check_options(options: Options, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raises EngineError for an option that OpenVINO does not support on the CPU that `cpuinfo` describes."""
    if options.device != "cpu":
        raise EngineError(
            "the openvino engine runs on the CPU only, and device 'cuda' was asked for: set RANKONE_DEVICE=cpu, or "
            "RANKONE_ENGINE=onnx"
        )
    if options.cuda_graphs or options.tensorrt_cache is not None:
        raise EngineError(
            "CUDA graphs and TensorRT need a GPU: leave RANKONE_CUDA_GRAPHS and RANKONE_TENSORRT_CACHE unset"
        )
    if options.precision not in _TYPES:
        raise EngineError(
            f"the openvino engine has no {options.precision}: set RANKONE_PRECISION=float32, or bfloat16 where the CPU has "
            "units for it"
        )
    if options.precision == "bfloat16" and not _has_bfloat16(cpuinfo):
        raise EngineError(
            "this CPU has no units for bfloat16 (avx512_bf16 or amx_bf16 in /proc/cpuinfo), so it would be slower than "
            "float32: set RANKONE_PRECISION=float32"
        )


def _has_bfloat16(cpuinfo: Path) -> bool:
    """Whether the CPU has units for bfloat16.

    OpenVINO's own answer counts all CPUs with AVX-512; on those without units it takes 2.5 times as long as float32.
    """
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:  # another system than Linux
        return "BF16" in core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return not _UNITS.isdisjoint(words)


def _config(precision: Precision, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _TYPES[precision],  # the default is bfloat16 where the CPU has units for it
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_HYPER_THREADING": True,  # the cores of a virtual machine often are hyperthreads
        "ENABLE_CPU_PINNING": False,  # decoders and the server share the cores
    }
