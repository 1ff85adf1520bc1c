from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils._sympy.numbers import int_oo

from rankone.model.bundle import ONNX, PROGRAM, TORCHSCRIPT, WEIGHTS, Bundle, BundleError, open_bundle
from rankone.model.catalogue import composition
from rankone.model.composition import compose
from rankone.model.engine import Engine, Outputs, load_engine
from rankone.model.network import Network, ShortEmbedding, build_network
from rankone.model.preprocessing import preprocess
from rankone.training import pipeline
from rankone.training.data import DataSet, evenly_spaced
from rankone.training.export import Description, ExportError, write_bundle
from rankone.training.forms import check_graph, check_parity
from rankone.training.recipe import PoolingRecipe
from tests.conftest import RECIPE

ALONE = Description(name="n", version="1", classes=None, metrics={}, dataset=None)


@pytest.fixture(scope="module")
def pixels(photos: DataSet) -> npt.NDArray[np.float32]:
    return np.stack([preprocess(path.read_bytes(), RECIPE.preprocessing) for path in photos.test.paths])


@pytest.fixture(scope="module")
def network(run_path: Path, photos: DataSet) -> Network:
    return pipeline.trained(run_path, photos)[1].eval()


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine_name", ["onnx", "torchscript", "export"])
def test_engines_agree_with_eager_float64_again_and_again(
    bundle: Bundle, network: Network, pixels: npt.NDArray[np.float32], engine_name: str, rounds: int
) -> None:
    """On real photographs, batches of 1, 2, 3 and 7, over and over with several threads: a race would show."""
    pixels = pixels[::2]
    engine: Engine = load_engine(bundle, engine_name, "cpu", threads=2)  # type: ignore[arg-type]
    with torch.no_grad():
        embedding, logits = (out.numpy() for out in network.double()(torch.from_numpy(pixels).double()))
    network.float()
    for _ in range(rounds):
        for size in (1, 2, 3, 7):
            for start in range(0, len(pixels) - size + 1, size):
                rows = slice(start, start + size)
                found = engine.run(pixels[rows])
                assert ((found.embedding * embedding[rows]).sum(1) >= 0.99999).all()
                assert found.logits is not None
                assert np.abs(found.logits - logits[rows]).max() < 1e-3


def test_the_graph_is_dynamic_in_the_batch_and_holds_nothing_forbidden(bundle: Bundle) -> None:
    model = onnx.load(bundle.file(ONNX))
    check_graph(model)
    operators = {node.op_type for node in model.graph.node}
    assert not {op for op in operators if "DFT" in op or "Random" in op or op in ("ScatterND", "Bernoulli")}
    assert "ScatterElements" in operators
    assert [output.name for output in model.graph.output] == ["embedding", "logits", "short", "features"]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param == "batch"
    assert [dim.dim_value for dim in shape[1:]] == [3, 64, 64]


@pytest.mark.parametrize("operator", ["DFT", "ScatterND", "RandomNormalLike"])
def test_forbidden_operators_are_found_also_in_functions(operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], **({"reduction": "add"} if operator == "ScatterND" else {}))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    function = helper.make_function("local", "f", ["x"], ["y"], [node], [helper.make_opsetid("", 20)])
    plain = helper.make_model(helper.make_graph([node], "g", [x], [y]))
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    nested = helper.make_model(helper.make_graph([call], "g", [x], [y]), functions=[function])
    for model in (plain, nested):
        with pytest.raises(ExportError, match=f"the graph holds {operator}"):
            check_graph(model)


def test_a_slice_may_be_assigned() -> None:
    """Swin's mask of shifted windows is made so."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    node = helper.make_node("ScatterND", ["x", "x", "x"], ["y"], reduction="none")
    check_graph(helper.make_model(helper.make_graph([node], "g", [x], [y])))


@pytest.mark.parametrize("error", ["noise", "nan", "batch"])
def test_an_export_that_differs_is_refused(pixels: npt.NDArray[np.float32], error: str) -> None:
    expected = np.random.default_rng(0).standard_normal((len(pixels), 50), np.float32)

    def run(images: npt.NDArray[np.float32]) -> Outputs:
        index = [int(np.flatnonzero((pixels == image).all((1, 2, 3)))[0]) for image in images]
        found = expected[index].copy()
        if error == "noise":
            found += 0.01
        elif error == "nan":
            found[0, 0] = np.nan
        elif len(found) == 7:  # right for every batch size but one
            found[1] = found[0]
        return Outputs(found, None)

    with pytest.raises(ExportError, match="differs from the network"):
        check_parity(run, Outputs(expected, None), pixels)


@pytest.mark.parametrize("error", ["scaled", "nan", "missing", "extra"])
def test_logits_that_differ_are_refused(pixels: npt.NDArray[np.float32], error: str) -> None:
    embedding, logits = np.ones((len(pixels), 5), np.float32), np.ones((len(pixels), 3), np.float32)
    expected = None if error == "extra" else logits
    factors = {"scaled": np.float32(1.01), "nan": np.float32(np.nan), "extra": np.float32(1)}

    def run(images: npt.NDArray[np.float32]) -> Outputs:
        found = None if error == "missing" else factors[error] * logits[: len(images)]
        return Outputs(embedding[: len(images)], found)

    with pytest.raises(ExportError, match="differs from the network"):
        check_parity(run, Outputs(embedding, expected), pixels)


def test_weights_build_the_same_network_again(
    bundle: Bundle, network: Network, pixels: npt.NDArray[np.float32]
) -> None:
    from safetensors.torch import load_file

    manifest = bundle.manifest
    again = build_network(
        weights="random",
        seed=9,
        pooling=compose(**manifest.pooling.parts).with_options(seed=9),
        num_classes=4,
    ).eval()
    assert manifest.reduction is not None
    again.short = ShortEmbedding(manifest.dim, manifest.reduction.dim)
    again.load_state_dict(load_file(bundle.file(WEIGHTS)))
    with torch.no_grad():
        x = torch.from_numpy(pixels[:2])
        assert torch.equal(again(x)[0], network(x)[0])


@pytest.mark.usefixtures("light_network")
def test_a_network_without_classes_makes_a_bundle_that_only_embeds(
    pixels: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"pooling": PoolingRecipe(system="cbp-run-rm", options={"dim": 500})})
    network = build_network(weights="random", pooling=composition("cbp-run-rm", dim=500))
    written = write_bundle(network, recipe, pixels, tmp_path / "bundle", ALONE)
    assert written.manifest.classes is None
    assert written.manifest.dim == 500
    for name in ("onnx", "torchscript", "export"):
        outputs = load_engine(written, name, "cpu", 1).run(pixels[:3])
        assert outputs.embedding.shape == (3, 500)
        assert outputs.logits is None


@pytest.mark.usefixtures("light_network")
def test_a_refused_export_leaves_nothing(bundle: Bundle, tmp_path: Path, pixels: npt.NDArray[np.float32]) -> None:
    network = build_network(weights="random", pooling=composition("cbp-run", dim=100))
    with pytest.raises(ExportError, match="at least 7 images, got 3"):
        write_bundle(network, RECIPE, pixels[:3], tmp_path / "bundle", ALONE)
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(network, RECIPE, pixels, bundle.path, ALONE)
    broken = pixels.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ExportError, match="differs from the network: cosine nan"):
        write_bundle(network, RECIPE, broken, tmp_path / "bundle", ALONE)
    assert list(tmp_path.iterdir()) == []
    assert open_bundle(bundle.path).file(TORCHSCRIPT).exists()


def test_the_program_holds_no_pickle_and_takes_any_batch(bundle: Bundle) -> None:
    with ZipFile(bundle.file(PROGRAM)) as archive:
        entries = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
        configs = [archive.read(f"model/{name}") for name in entries if name.endswith("_config.json")]
    assert entries["data/sample_inputs/model.pt"] == 0
    assert len(configs) == 2
    assert all(b'"use_pickle": false' in config and b'"use_pickle": true' not in config for config in configs)
    (batch,) = torch.export.load(bundle.file(PROGRAM)).range_constraints.values()
    assert (batch.lower, batch.upper) == (0, int_oo)


def test_images_are_spread_over_all_of_them() -> None:
    assert evenly_spaced(100, 3) == [0, 50, 99]
    assert evenly_spaced(2, 14) == [0, 1]
