"""Any sequence of changes and searches by two services on one database, against a dictionary and NumPy.

Of all kinds: of so few items, a search of a graph finds all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from rankone.index import AnyIndex, Spec
from rankone.index.postgres import PostgresIndexes
from tests.index.conftest import MODEL, SPEC
from tests.index.oracle import Oracle, unit
from tests.index.rules import Rules
from tests.postgres import Server

LONG = 2001
"""Numbers, of which HNSW takes the signs."""


class Machine(Rules):
    """Before each step, either of the services may be the one that is asked next."""

    server: ClassVar[Server]
    spec: Spec = SPEC

    @initialize()
    def begin(self) -> None:
        url = self.server.new_database()
        self.services = [PostgresIndexes(url, 60) for _ in range(2)]
        self.services[0].create("mine", self.spec)
        self.oracle, self.which = Oracle(), 0

    @property
    def index(self) -> AnyIndex:  # type: ignore[override]
        return self.services[self.which].open("mine", MODEL)

    @rule(which=st.integers(0, 1))
    def ask_the_other(self, which: int) -> None:
        self.which = which

    def teardown(self) -> None:
        for service in self.services:
            service.close()


@pytest.mark.parametrize(
    "spec", [SPEC, replace(SPEC, kind="compact"), Spec(MODEL, LONG, kind="compact")], ids=["exact", "graph", "signs"]
)
def test_any_sequence_of_steps(postgres: Server, spec: Spec) -> None:
    machine = type("Of", (Machine,), {"server": postgres, "spec": spec, "vectors": unit(8, spec.dim)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=8, stateful_step_count=25, deadline=None, derandomize=True)
    )
