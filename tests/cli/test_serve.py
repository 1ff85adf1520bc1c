"""How `rankone serve` reads its settings: flags, variables, and the variables of others."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rankone.__main__ import run
from rankone.model.bundle import Bundle
from rankone.service import server
from rankone.service.environment import ELSEWHERE, PREFIX, misspelt
from rankone.service.settings import Settings
from tests.docker.files import assignments


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that would be served."""
    served: list[Settings] = []
    monkeypatch.setattr("rankone.service.server.serve", served.append)
    return served


def test_the_variables_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch, served: list[Settings]) -> None:
    for name, value in (
        ("PORT", "tcp://10.0.0.1:8000"),
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8000"),
        ("SERVICE_PORT_HTTP", "8000"),
        ("PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("PORT_8000_TCP_PROTO", "tcp"),
        ("PORT_8000_TCP_PORT", "8000"),
        ("PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PROXY_SERVICE_HOST", "10.0.0.2"),
        ("PROXY_PORT", "udp://10.0.0.2:80"),
    ):
        monkeypatch.setenv(PREFIX + name, value)
    assert run("serve", []) == 0
    assert served[-1].port == Settings().port == 8000
    assert misspelt(Settings) == []


def test_flags_overrule_variables_also_bad_ones(monkeypatch: pytest.MonkeyPatch, served: list[Settings]) -> None:
    monkeypatch.setenv("RANKONE_PORT", "abc")
    monkeypatch.setenv("RANKONE_CUDA_GRAPHS", "perhaps")
    monkeypatch.setenv("RANKONE_MAX_QUEUE", "4")  # fewer than the default of max_images
    monkeypatch.setenv("RANKONE_BUNDLES", "/bundles")  # as the images set it
    assert run("serve", ["--port", "9000", "--no-cuda-graphs", "--max-images=2", "--bundle", "mine"]) == 0
    settings = served[-1]
    assert (settings.port, settings.cuda_graphs, settings.max_queue, settings.max_images) == (9000, False, 4, 2)
    assert (settings.bundle, settings.bundles) == (Path("mine"), None)


@pytest.mark.parametrize(
    ("variables", "flags", "sentence"),
    [
        ({"PORT": "abc"}, [], r"RANKONE_PORT=abc: Input should be a valid integer"),
        ({"PORT": "1", "DEVICE": "gpu", "GRACE_S": "0"}, ["--port", "2"], r"RANKONE_DEVICE=gpu: .*RANKONE_GRACE_S=0: "),
        ({"MAX_QUEUE": "4"}, [], r"max_queue \(4\) must hold .* max_images \(64\) \(RANKONE_MAX_QUEUE=4\)\n"),
        ({"MAX_QUEUE": "90"}, ["--max-queue", "4"], r"max_queue \(4\) must hold .* max_images \(64\)\n"),
        ({}, ["--port", "99999"], r"port \(99999\): Input should be less than or equal to 65535"),
    ],
)
def test_an_error_names_the_variable_and_its_value(
    variables: dict[str, str],
    flags: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert run("serve", flags) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_misspelt_variables_are_named_with_the_nearest_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RANKONE_MAX_BACTH", "3")
    monkeypatch.setenv("RANKONE_XYZ", "3")
    monkeypatch.setenv("RANKONE_KEY", "secret")
    assert misspelt(Settings) == [
        "the variable RANKONE_MAX_BACTH is no setting and has no effect: did you mean RANKONE_MAX_BATCH?",
        "the variable RANKONE_XYZ is no setting and has no effect: `rankone serve --help` lists the settings",
    ]
    monkeypatch.setattr("rankone.service.observe.logs.configure", lambda _: None)
    monkeypatch.setattr("rankone.service.server.check_paths", lambda _: (_ for _ in ()).throw(SystemExit))
    with caplog.at_level(logging.WARNING, "rankone"), pytest.raises(SystemExit):
        server.serve(Settings())
    assert "did you mean RANKONE_MAX_BATCH?" in caplog.text


def test_the_variables_of_compose_are_known() -> None:
    """Compose passes .env on to the service, which must not call them misspelt."""
    ours = {name.removeprefix(PREFIX) for name in assignments(".env.example") if name.startswith(PREFIX)}
    assert ours <= ELSEWHERE | {name.upper() for name in Settings.model_fields}


def test_a_cluster_is_deployed_to_and_nothing_is_served_here(
    monkeypatch: pytest.MonkeyPatch, served: list[Settings]
) -> None:
    deployed: list[tuple[Settings, int, bool]] = []

    def deploy(settings: Settings, *, replicas: int, indexes: bool) -> None:
        deployed.append((settings, replicas, indexes))

    monkeypatch.setattr("rankone.service.cluster.deploy.deploy", deploy)
    assert run("serve", ["--cluster", "--max-batch", "3"]) == 0
    assert run("serve", ["--cluster", "--replicas", "2", "--no-indexes"]) == 0
    assert [(settings.max_batch, *rest) for settings, *rest in deployed] == [(3, 1, True), (None, 2, False)]
    assert served == []


@pytest.mark.parametrize("flags", [["--replicas", "2"], ["--no-indexes"]])
def test_replicas_are_for_a_cluster(
    flags: list[str], served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", flags) == 2
    assert "are for --cluster" in capsys.readouterr().err
    assert served == []


def test_without_a_cluster_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rankone.service.observe.logs.configure", lambda _: None)
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", "http://127.0.0.1:9")
    flags = ["--cluster", "--no-indexes", "--allow-anonymous", "--bundle", str(tiny.path)]
    assert run("serve", flags) == 2
    assert "no Ray cluster answers at http://127.0.0.1:9 (" in capsys.readouterr().err


def test_ray_is_imported_by_nothing_that_does_not_name_a_cluster() -> None:
    code = (
        "import sys, rankone.__main__, rankone.cli.serve, rankone.cli.query, rankone.cli.job, rankone.service.server, "
        "rankone.service.cluster.deploy, rankone.service.cluster.replica, rankone.service.job.run; "
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
