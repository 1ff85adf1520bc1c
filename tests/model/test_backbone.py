from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from rankone.model.backbone import Backbone, WeightsError, build_backbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build_backbone(weights="random", seed=1).eval()


def test_it_is_torchvisions_vgg16_up_to_conv5_3_after_relu(backbone: Backbone) -> None:
    images = torch.randn(2, 3, 64, 64)
    network = torchvision.models.vgg16(weights=None)
    network.features.load_state_dict(backbone.convolutions.state_dict())
    with torch.no_grad():
        before_last_pool = network.features[:30](images)
        features = backbone(images)
    assert features.shape == (2, (64 // backbone.stride) ** 2, backbone.channels) == (2, 16, 512)
    assert torch.equal(features[1, 5], before_last_pool[1, :, 1, 1])
    assert features.min() == 0
    assert isinstance(network.features[30], torch.nn.MaxPool2d)


def test_random_weights_follow_the_seed_and_leave_the_global_one_alone(backbone: Backbone) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    same, other = build_backbone(weights="random", seed=1), build_backbone(weights="random", seed=2)
    assert torch.equal(torch.rand(1), expected)
    first, second, third = (next(net.parameters()) for net in (backbone, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("prefix", ["features.", ""])
def test_weights_from_a_file(backbone: Backbone, tmp_path: Path, suffix: str, prefix: str) -> None:
    state = {prefix + key: value.clone() for key, value in backbone.convolutions.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(1)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = build_backbone(weights=str(path), seed=5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.convolutions.parameters(), backbone.convolutions.parameters(), strict=True)
    )


def test_imagenet_weights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network here: an empty cache and a proxy that refuses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"could not be downloaded .*--weights PATH.*--weights random"):
        build_backbone(weights="imagenet")


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'imagenet', 'random' or a file; there is no file nowhere.pt"):
        build_backbone(weights="nowhere.pt")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "few.pt")
    with pytest.raises(WeightsError, match=r"lack 25 of 26 tensors, the first 0.bias"):
        build_backbone(weights=str(tmp_path / "few.pt"))
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(WeightsError, match="not a .safetensors file or a plain state dict"):
        build_backbone(weights=str(tmp_path / "text.pt"))
    (tmp_path / "text.safetensors").write_text("not weights either")
    with pytest.raises(WeightsError, match="not a .safetensors file or a plain state dict"):
        build_backbone(weights=str(tmp_path / "text.safetensors"))
    torch.save(torch.zeros(1), tmp_path / "tensor.pt")
    with pytest.raises(WeightsError, match="holds a Tensor, not a state dict"):
        build_backbone(weights=str(tmp_path / "tensor.pt"))


def test_weights_of_another_shape_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    state = backbone.convolutions.state_dict()
    torch.save({**state, "0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "gray.pt")
    with pytest.raises(WeightsError, match="do not fit"):
        build_backbone(weights=str(tmp_path / "gray.pt"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "owned",)

    torch.save({"0.weight": Attack()}, tmp_path / "attack.pt")
    with pytest.raises(WeightsError):
        build_backbone(weights=str(tmp_path / "attack.pt"))
    assert not (tmp_path / "owned").exists()
