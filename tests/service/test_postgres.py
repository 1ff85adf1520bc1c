"""Two services on one database, as processes: what one acknowledges the other answers, and what is not there is said."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from pydantic import ValidationError

from rankone.cli import doctor
from rankone.client import Client, Retries, ServiceError
from rankone.model.bundle import Bundle
from rankone.service.settings import Settings, without_password
from tests.postgres import Server
from tests.services import Start

DIM = 10_000


def unit_vectors(count: int) -> np.ndarray:
    return np.eye(count, DIM, dtype=np.float32)


def test_two_services_share_an_index_and_one_may_be_killed(start: Start, tiny: Bundle, database: str) -> None:
    first, second = (start(tiny.path, index=database) for _ in range(2))
    with first.ready() as one, second.ready() as other:
        assert one.info()["index_backend"] == "postgres"
        one.add_vectors(unit_vectors(20), [f"{i}" for i in range(20)], [{"even": i % 2 == 0} for i in range(20)])
        assert [hit.id for hit in other.search_vectors(unit_vectors(3), k=1)[2]] == ["2"]
        other.create_index("signs", kind="compact")
        one.add_vectors(unit_vectors(5), list("abcde"), index="signs")
        assert other.search_vectors(unit_vectors(1), index="signs", k=1)[0][0].id == "a"
        assert {index.name: index.count for index in other.indexes()} == {"default": 20, "signs": 5}
        first.end(signal.SIGKILL)
        assert other.delete_where({"even": True}) == 10
        assert other.count() == 10
        with pytest.raises(ServiceError, match="there is no index 'gone'"):
            other.count("gone")
    assert second.end()[0] == -signal.SIGTERM


def test_a_service_whose_database_is_away_ends_with_one_sentence(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path, index="postgresql://me:secret@127.0.0.1:1/mine")
    process.popen.wait(timeout=120)
    status, printed = process.end()
    assert status != 0
    assert "the database mine on 127.0.0.1 cannot be reached" in printed
    assert "secret" not in printed
    assert "Traceback" not in printed


def test_a_service_outlives_its_database(start: Start, tiny: Bundle) -> None:
    server = Server()
    try:
        process = start(tiny.path, index=server.new_database())
        with process.ready() as client:
            client.add_vectors(unit_vectors(3), list("abc"))
            server.kill()
            for _ in range(1200):  # the server's processes outlive the postmaster for a moment
                if problems := client.info()["index_problems"]:
                    break
                time.sleep(0.05)
            assert "cannot be reached" in problems["default"]
            with (
                Client(process.url, retries=Retries(attempts=1)) as hasty,
                pytest.raises(ServiceError, match="cannot be reached"),
            ):
                hasty.search_vectors(unit_vectors(1), k=1)
            server.start()
            assert client.search_vectors(unit_vectors(1), k=1)[0][0].id == "a"
        assert process.end()[0] == -signal.SIGTERM
    finally:
        server.close()


@pytest.mark.parametrize("place", ["locally", "mysql://x", "postgresql://", ""])
def test_another_place_is_refused(place: str) -> None:
    with pytest.raises(ValidationError, match="index"):
        Settings(index=place)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("local", "local"),
        ("postgresql://me@host/mine", "postgresql://me@host/mine"),
        ("postgresql://me:secret@host/mine", "postgresql://me:***@host/mine"),
        ("postgresql://me:sec:r@t@host/mine", "postgresql://me:***@host/mine"),
        ("postgresql://host/mine?password=secret&user=me", "postgresql://host/mine?password=***&user=me"),
    ],
)
def test_the_password_is_not_shown(place: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKONE_INDEX", place)
    settings = Settings()
    assert without_password(place) == shown
    assert "secret" not in repr(settings)
    assert doctor._shown(settings)["index"] == doctor._variables(settings)["RANKONE_INDEX"] == shown
