"""The whole OpenAPI document, exercised: what it promises is what is answered, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.app import create_app
from rankone.service.settings import Settings
from tests.services import Process, fail

ITEMS = "/indexes/{index}/items/"
TWOFOLD = {f"{ITEMS}delete", f"{ITEMS}{{item_id}}/thumbnail"}
"""Paths that may also be those of items, with ids such as `delete`, and so have the methods of items too."""

schemathesis.serializer.alias(["image/avif", "image/heic"], "application/octet-stream")
schema = schemathesis.openapi.from_dict(create_app(Settings(), fail).openapi())


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A running service with a few items, whose engine takes no time."""
    process = Process(tiny.path, tmp_path_factory.mktemp("schema"))
    with Client(process.url) as client:
        client.wait_until_ready(60)
    yield process
    process.close()


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_keeps_its_promises(case: Any, process: Process) -> None:
    """But one promise: no schema can say that a string is an image or a filter, so what it admits may be refused."""
    excluded = [positive_data_acceptance, *([allow_header_conformance] if case.path in TWOFOLD else [])]
    case.call_and_validate(base_url=process.url, excluded_checks=excluded)
