"""The proxy, the scrape and the dashboard: each points at what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from fastapi.routing import iter_route_contexts
from prometheus_client import generate_latest

from rankone.service.app import create_app
from rankone.service.observe.metrics import _REFUSALS, Metrics
from rankone.service.settings import Settings
from tests.docker.files import ROOT, compose, services

NGINX_FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docker" / "nginx").iterdir())}
NGINX = "".join(NGINX_FILES.values())
SCRAPE = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docker" / "grafana" / "dashboards" / "rankone.json").read_text())
ADDRESS = "rankone:8000"
HOST, PORT = ADDRESS.split(":")


def test_both_services_answer_to_the_name_that_proxy_and_scrape_ask_for() -> None:
    for name in ("service", "service-cpu"):
        service = services()[name]
        assert service["networks"]["default"]["aliases"] == [HOST]
        assert service["environment"]["RANKONE_PORT"] == PORT
    assert f"set $service {ADDRESS};" in NGINX
    assert SCRAPE["scrape_configs"][0]["static_configs"] == [{"targets": [ADDRESS]}]


def test_secrets_are_read_where_they_are_mounted() -> None:
    asked = {
        *re.findall(r"/run/secrets/([\w-]+)", NGINX),
        SCRAPE["scrape_configs"][0]["authorization"]["credentials_file"],
    }
    mounted = {
        *services()["proxy-tls"]["secrets"],
        *(f"/run/secrets/{name}" for name in services()["prometheus"]["secrets"]),
    }
    assert asked == mounted
    guarded = services(RANKONE_KEYS_FILE="keys.json")["service"]
    assert guarded["environment"]["RANKONE_KEYS"] == f"/run/secrets/{guarded['secrets'][0]}"


def test_the_proxy_keeps_nothing_of_a_body_and_leaves_its_limits_to_the_service() -> None:
    """Kept there, the bodies of one client's connections would be more than its `/tmp` holds."""
    assert re.findall(r"proxy_request_buffering (\w+);", NGINX) == ["off"]
    assert re.findall(r"client_max_body_size (\w+);", NGINX) == ["0"]


def test_what_the_proxy_cannot_do_is_a_problem_too() -> None:
    problems = re.findall(r"return (\d+) '(\{.*\})';", NGINX)
    assert [int(status) for status, _ in problems] == [json.loads(body)["status"] for _, body in problems] == [429, 503]
    assert re.findall(r"error_page ([\d =]+)@", NGINX) == ["429 ", "500 502 504 =503 "]


def test_the_proxy_limits_requests_by_variables() -> None:
    assert re.search(r"limit_req zone=requests burst=\$\{RANKONE_PROXY_BURST\} nodelay;", NGINX)
    assert "limit_req_status 429;" in NGINX
    for name in ("proxy", "proxy-tls"):
        given = {variable for variable in services()[name]["environment"] if variable.startswith("RANKONE_")}
        assert given == set(re.findall(r"\$\{(\w+)\}", NGINX))
    assert int(services()["proxy"]["environment"]["RANKONE_PROXY_RATE"]) >= 100, (
        "an application may stand for all its users"
    )
    assert services(RANKONE_PROXY_RATE="7")["proxy"]["environment"]["RANKONE_PROXY_RATE"] == "7"


@pytest.mark.parametrize(("name", "server"), [("proxy", "http.conf.template"), ("proxy-tls", "https.conf.template")])
def test_each_proxy_has_the_templates_of_its_server(name: str, server: str) -> None:
    """Those that the image fills in when it starts, where it can write what it makes of them."""
    service = services()[name]
    mounted = dict(str(volume).split(":")[:2] for volume in service["volumes"] if isinstance(volume, str))
    assert mounted == {
        "./docker/nginx/nginx.conf": "/etc/nginx/nginx.conf",
        **{
            f"./docker/nginx/{file}": f"/etc/nginx/templates/{file}"
            for file in ("limits.conf.template", "service.template", server)
        },
    }
    assert {f"docker/nginx/{file}" for file in NGINX_FILES} >= {path.removeprefix("./") for path in mounted}
    assert any(mount.startswith("/etc/nginx/conf.d:") for mount in service["tmpfs"])
    assert service["environment"]["NGINX_ENVSUBST_FILTER"] == "^RANKONE_"
    published = {port.rsplit(":", 1)[1] for port in service["ports"]}
    assert published == set(re.findall(r"listen (\d+)", NGINX_FILES[server]))
    assert "include /etc/nginx/conf.d/service;" in NGINX_FILES[server]


def test_nothing_in_the_templates_but_our_variables_looks_like_one() -> None:
    """The image would fill in every other that it knows; nginx's own are written without braces."""
    assert all(name.startswith("RANKONE_PROXY_") for name in re.findall(r"\$\{(\w+)\}", NGINX))


def test_metrics_are_for_the_inside_however_their_path_is_written() -> None:
    """All paths that begin so are refused, also those that a client may hope the service reads as the same; nothing else is."""
    (refused,) = re.findall(r"location \^~ (\S+) \{[^\n]*\n\s+return 404;", NGINX_FILES["https.conf.template"])
    routes = {str(route.path) for route in iter_route_contexts(create_app(Settings(), lambda _: None).routes)}
    assert {route for route in routes if route.startswith(refused)} == {"/metrics"}


def metrics_asked_for() -> set[str]:
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\b((?:rankone|process)_\w+)", " ".join(expressions)))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_the_dashboard_shows_what_an_operator_asks_first() -> None:
    titles = " ".join(panel["title"].lower() for panel in DASHBOARD["panels"])
    for asked in ("rate", "p99 by part", "queue", "batch size", "refusals", "gpu memory", "index size"):
        assert asked in titles
    sources = yaml.safe_load((ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {sources[0]["uid"]}
    assert sources[0]["url"] == "http://prometheus:9090"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_asks_for_metrics_that_there_are_and_that_describe_themselves() -> None:
    counted = Metrics()
    counted.engine.info({"engine": "onnx", "provider": "CPUExecutionProvider", "precision": "float32"})
    counted.watch_gpu_memory(lambda: 1)
    there = dict(re.findall(r"^# HELP (\w+) (.*)", generate_latest(counted.registry).decode(), re.MULTILINE))
    assert metrics_asked_for() <= there.keys()
    assert all(there.values())


RULES = ROOT / "docker" / "prometheus" / "rules.yml"


def test_the_alerts_ask_for_metrics_that_there_are_and_are_where_prometheus_looks() -> None:
    assert [f"./docker/prometheus/rules.yml:/etc/prometheus/{name}:ro" for name in SCRAPE["rule_files"]] == [
        volume for volume in services()["prometheus"]["volumes"] if "rules" in volume
    ]
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert all(rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"] for rule in rules)
    text = generate_latest(Metrics().registry).decode()
    there = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    asked = set(re.findall(r"\brankone_\w+", " ".join(rule["expr"] for rule in rules)))
    assert len(asked) >= 5
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} <= there
    reasons = set(_REFUSALS.values())
    for rule in rules:
        for named in re.findall(r'reason=~?"([^"]+)"', rule["expr"]):
            assert set(named.split("|")) <= reasons


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules_and_they_fire_when_they_should() -> None:
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(ROOT / "tests/docker/rules_test.yml")]):
        ended = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_dashboard_is_mounted_where_it_is_looked_for() -> None:
    grafana = services()["grafana"]
    provider = yaml.safe_load((ROOT / "docker/grafana/provisioning/dashboards/rankone.yml").read_text())["providers"][0]
    folder = provider["options"]["path"]
    assert f"./docker/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/rankone.json"
    assert compose()["volumes"].keys() >= {"grafana", "prometheus"}
