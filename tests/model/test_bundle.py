from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rankone.model.bundle import MANIFEST, ONNX, Bundle, BundleError, open_bundle, staged, summary
from rankone.model.training_record import TrainingRecord


@pytest.fixture
def copy(tiny: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.path, tmp_path / "copy"))


def test_a_bundle_opens_with_all_that_is_to_be_known(bundle: Bundle) -> None:
    manifest = open_bundle(bundle.path).manifest
    assert set(manifest.files) == {"model.onnx", "model.torchscript.pt", "model.pt2", "weights.safetensors"}
    assert set(manifest.parity) == {"model.onnx", "model.torchscript.pt", "model.pt2"}
    assert manifest.classes == ("brick", "coins", "grass", "retina")
    assert manifest.dim == 10_000
    assert manifest.pooling.system == "cbp-run"
    assert manifest.pooling.options == {"eta": 0.6, "iterations": 2, "resample": False, "seed": 0, "dim": 10_000}
    assert manifest.preprocessing.size == 64
    assert manifest.dataset is not None
    assert (manifest.dataset.num_train, manifest.dataset.num_test) == (24, 16)
    assert {"top1", "top5", "ece", "recall_at_1", "recall_at_8", "r_precision", "map_at_r"} < manifest.metrics.keys()
    assert manifest.libraries["torch"]
    assert all(record.min_cosine >= 0.99999 for record in manifest.parity.values())
    assert summary(bundle)["classes"] == "4"
    assert summary(bundle)["pixels"].endswith("of the short side, colours managed, large JPEGs reduced (version 4)")


def test_the_fingerprint_is_the_sha256_of_the_manifest(tiny: Bundle, copy: Path) -> None:
    assert tiny.fingerprint == hashlib.sha256((tiny.path / MANIFEST).read_bytes()).hexdigest()
    assert open_bundle(copy).fingerprint == tiny.fingerprint


def test_one_changed_byte_anywhere_is_found(bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    for name in bundle.manifest.files:
        path = copy / name
        original = path.read_bytes()
        path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        with pytest.raises(BundleError, match=f"{name} is not the file its manifest describes"):
            open_bundle(copy)
        path.write_bytes(original)
    assert open_bundle(copy)


def test_missing_and_foreign_files_are_found(copy: Path) -> None:
    (copy / "readme.txt").write_text("hello")
    with pytest.raises(BundleError, match="holds files its manifest does not list: readme.txt"):
        open_bundle(copy)
    (copy / "readme.txt").unlink()
    (copy / ONNX).unlink()
    with pytest.raises(BundleError, match="model.onnx cannot be read: No such file"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value"), [("schema_version", 2), ("dim", "many"), ("surprise", 1), ("preprocessing", {"version": 9})]
)
def test_manifests_of_another_kind_are_refused(copy: Path, field: str, value: object) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(BundleError, match="is not a manifest this version can read"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", "a/b", "..", ".", "", ".hidden", "a\nb", "a b"])
def test_a_manifest_names_files_of_its_own_folder(copy: Path, name: str) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "size": 0}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="is not a manifest this version can read"):
        open_bundle(copy)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", [MANIFEST, ONNX])
@pytest.mark.parametrize("change", [as_pipe, as_link, as_folder])
def test_what_is_no_regular_file_is_refused_without_waiting(
    copy: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(copy / name)
    with pytest.raises(BundleError, match=rf"{name}.* not a regular file"):
        open_bundle(copy)


def test_a_file_of_another_size_is_not_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a terabyte takes no room, and hours to hash."""
    os.truncate(copy / ONNX, 1 << 40)
    monkeypatch.setattr("rankone.model.bundle.hashlib.file_digest", lambda *_: pytest.fail("it was read"))
    with pytest.raises(BundleError, match="1099511627776 bytes, expected"):
        open_bundle(copy)


def test_a_manifest_without_end_is_not_read(copy: Path) -> None:
    os.truncate(copy / MANIFEST, 1 << 40)
    with pytest.raises(BundleError, match="is longer than 100,000,000 bytes"):
        open_bundle(copy)


def test_what_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no readable manifest.json"):
        open_bundle(tmp_path)


def test_a_bundle_without_a_file_names_what_it_has(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="has no model.plan; it has model.onnx, model.pt2, model.torchscript.pt"):
        bundle.file("model.plan")


def test_nothing_is_left_of_a_bundle_that_was_not_finished(tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path / "new") as stage:
            (stage / ONNX).write_bytes(b"half")
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_any_user_of_the_machine_may_read_a_bundle(bundle: Bundle) -> None:
    assert {entry.stat().st_mode & 0o777 for entry in bundle.path.iterdir()} == {0o644}
    assert bundle.path.stat().st_mode & 0o777 == 0o755


def test_a_bundle_is_never_written_over(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="exists already"), staged(bundle.path):
        pass


def test_bundles_of_before_a_field_of_preprocessing_keep_their_pixels(copy: Path) -> None:
    """Profiles are ignored and JPEGs decoded whole; bundles made now say what becomes of both, in words that are known."""
    manifest = json.loads((copy / MANIFEST).read_text())
    written = dict(manifest["preprocessing"])
    assert (written["color"], written["jpeg"], written["version"]) == ("managed", "reduced", 4)
    for version, fields, expected in (
        (1, {}, ("ignored", "whole")),
        (2, {}, ("ignored", "whole")),
        (2, {"color": "managed"}, ("managed", "whole")),
        (3, {"color": "managed", "jpeg": "reduced"}, ("managed", "reduced")),
    ):
        manifest["preprocessing"] = {**written, **fields, "version": version}
        for name in {"color", "jpeg"} - fields.keys():
            del manifest["preprocessing"][name]
        (copy / MANIFEST).write_text(json.dumps(manifest))
        preprocessing = open_bundle(copy).manifest.preprocessing
        assert (preprocessing.color, preprocessing.jpeg, preprocessing.version) == (*expected, version)
    for name, value in {"color": "vivid", "jpeg": "tiny"}.items():
        manifest["preprocessing"] = {**written, name: value}
        (copy / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match=f"preprocessing.{name}"):
            open_bundle(copy)
    manifest["preprocessing"] = {**written, "version": 2}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="version 2 reduces no JPEG: jpeg must be 'whole'"):
        open_bundle(copy)


def test_rollbacks_are_read_under_their_earlier_name() -> None:
    rollback = {"epoch": 1, "step": 20, "reason": "the loss is nan", "learning_rate": 0.5}
    written: dict[str, object] = {"steered_by": "all", "chosen": None, "history": []}
    expected = TrainingRecord.model_validate({**written, "rollbacks": [rollback]})
    assert TrainingRecord.model_validate({**written, "returns": [rollback]}) == expected
    assert len(expected.rollbacks) == 1
