"""What Ray Serve is told, and the settings that a cluster cannot honour. Without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rankone.service.cluster.application import Arguments, Chosen, NotInCluster, check, to_serve
from rankone.service.cluster.deploy import reason_in
from rankone.service.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests set one in the environment."""
    monkeypatch.delenv("RANKONE_ENGINE", raising=False)


def anonymous(**settings: Any) -> Settings:
    return Settings(**{"allow_anonymous": True, **settings})


def test_only_the_bundle_may_change_without_new_replicas(tmp_path: Path) -> None:
    """Ray Serve makes new replicas when `args` change, and calls `reconfigure` when only `user_config` does."""
    one, other = (
        to_serve(anonymous(bundle=tmp_path / name, max_k=7, threads=3, port=99), replicas=2, indexes=False)
        for name in ("one", "other")
    )
    (first,), (second,) = one["applications"], other["applications"]
    assert first["args"] == second["args"]
    assert first["args"]["settings"] == {"allow_anonymous": True, "max_k": 7, "threads": 3, "workers": 2} | {
        "workers": anonymous().workers
    }
    (deployment,) = first["deployments"]
    assert deployment["user_config"] == {"bundle": str(tmp_path / "one")}
    assert deployment["num_replicas"] == 2
    assert deployment["max_ongoing_requests"] >= 64
    assert deployment["ray_actor_options"] == {"num_cpus": 3, "num_gpus": 0}
    assert one["http_options"] == {"port": 99}


def test_paths_are_absolute_and_a_gpu_is_reserved() -> None:
    (told,) = to_serve(Settings(keys=Path("keys.json"), device="cuda", bundle=Path("b")), replicas=1, indexes=False)[
        "applications"
    ]
    assert told["args"]["settings"]["keys"] == str(Path("keys.json").absolute())
    assert told["deployments"][0]["user_config"]["bundle"] == str(Path("b").absolute())
    assert told["deployments"][0]["ray_actor_options"]["num_gpus"] == 1


def test_what_is_told_makes_the_same_settings_again() -> None:
    settings = anonymous(max_batch=5, cors_origins=("https://app.example.org",), decode_timeout_s=4.5, root_path="/a")
    (told,) = to_serve(settings, replicas=1, indexes=False)["applications"]
    arguments = Arguments.model_validate(told["args"])
    assert Settings(**arguments.given(), bundle=settings.bundle) == settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bundles": Path("b")}, "bundles is set, which a cluster cannot honour: a cluster serves one bundle"),
        ({"own_keys": Path("k")}, "own_keys is set, .* give every machine a copy"),
        ({"host": "10.0.0.1"}, "host is set, .* firewall"),
        ({"drain_s": 5}, "drain_s is set"),
        ({"max_connections": 63}, r"max_connections \(63\) .* fewer than 64"),
        ({"allow_anonymous": False}, "there are no keys: make some"),
    ],
)
def test_a_setting_that_a_cluster_cannot_honour_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NotInCluster, match=sentence):
        check(anonymous(**settings), indexes=False)


def test_indexes_on_one_disk_are_refused() -> None:
    """For one replica too: Ray may start it again on another machine."""
    with pytest.raises(NotInCluster, match="cannot be shared by replicas: keep indexes in PostgreSQL"):
        check(anonymous(), indexes=True)
    check(anonymous(), indexes=False)


def test_a_replica_is_not_told_what_ray_serve_decides() -> None:
    for name in ("port", "bundle", "host", "grace_s", "bundles"):
        with pytest.raises(NotInCluster, match=f"{name} is no setting of a replica"):
            Arguments(settings={name: 1}).given()
    with pytest.raises(ValueError, match="Extra inputs"):
        Arguments.model_validate({"replicas": 1})
    with pytest.raises(ValueError, match="Extra inputs"):
        Chosen.model_validate({"bundle": "b", "version": 1})


def test_the_example_is_what_the_command_says() -> None:
    """deploy/ray/serve.yaml, in form and in names."""
    example = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text("utf-8"))
    (application,) = example["applications"]
    arguments, chosen = Arguments.model_validate(application["args"]), application["deployments"][0]["user_config"]
    settings = Settings(**arguments.given(), bundle=Chosen.model_validate(chosen).bundle)
    assert settings.keys is not None
    replicas = application["deployments"][0]["num_replicas"]
    written = to_serve(settings, replicas=replicas, indexes=arguments.indexes)
    assert example == written


def test_the_reason_is_found_in_what_ray_serve_says() -> None:
    said = (
        "A replica failed.\n\x1b[36mray::ServeReplica\x1b[39m\nRuntimeError: Traceback\n"
        "rankone.model.bundle.BundleError: /b is not a bundle: it has no readable manifest.json\n"
    )
    assert reason_in(said) == "/b is not a bundle: it has no readable manifest.json"
    assert reason_in("no traceback at all") == "no traceback at all"
    assert reason_in("") == "Ray Serve says no more"
