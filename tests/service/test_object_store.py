"""An object store: versions are published in it and read from it, and jobs find their images there.

RANKONE_TEST_S3 is the address of a server that speaks S3 and may be filled, such as that of `moto_server`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from rankone.index import Index, IndexProblem, Item, Spec
from rankone.index.database import create_file
from rankone.index.source import open_lance
from rankone.index.transfer import export
from rankone.model.folders import LeftOut
from rankone.service.job.sources import find, read
from tests.index.oracle import unit

pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")
from rankone.index.lance.publish import publish

DIM = 64
SPEC = Spec("a" * 64, DIM)


def quiet(_: int) -> None:
    pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket."""
    if (server := os.environ.get("RANKONE_TEST_S3")) is None:
        pytest.skip("RANKONE_TEST_S3 names no server that speaks S3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, os.environ.get(name, "test"))
    name = f"rankone-{uuid.uuid4().hex[:12]}"
    store, _ = fs.FileSystem.from_uri(f"s3://{name}/?allow_bucket_creation=true")
    store.create_dir(name)
    return f"s3://{name}"


def files(folder: Path) -> list[Path]:
    made = []
    for number in range(3):
        source, file = folder / f"{number}.sqlite", folder / f"{number}.parquet"
        create_file(source, SPEC)
        with closing(Index(source)) as index:
            index.put([Item(f"{number}-{i}", vector, {"i": i}) for i, vector in enumerate(unit(100, DIM, number))])
        export(source, file, quiet)
        made.append(file)
    return made


def test_a_killed_publication_leaves_the_version_before(bucket: str, tmp_path: Path) -> None:
    some, root, query = files(tmp_path), f"{bucket}/galleries", unit(100, DIM, 2)[:3]
    publish(some[:1], root, "mine", quiet)
    script = f"""
import os, signal
from pathlib import Path
from rankone.index.lance.publish import publish
told = []
def tell(count):
    told.append(count)
    if len(told) == 3:  # of the files, the first was there, the second was sent, the third is
        os.kill(os.getpid(), signal.SIGKILL)
publish([Path(name) for name in {[str(file) for file in some]}], {root!r}, "mine", tell, group_bytes=1)
"""
    with closing(open_lance(f"lance:{root}")) as indexes:
        before = indexes.open("mine").search(query, 3)
        done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        indexes.refresh()
        assert (len(indexes.open("mine")), indexes.open("mine").search(query, 3)) == (100, before)
        told: list[int] = []
        publish(some, root, "mine", told.append, group_bytes=1)
        assert told == [200, 100]
        indexes.refresh()
        found = indexes.open("mine")
        assert (len(found), indexes.names(), indexes.counts()) == (300, ["mine"], {"mine": 300})
        assert [hits[0].id for hits in found.search(query, 1)] == ["2-0", "2-1", "2-2"]
        assert np.array_equal(found.get("1-7").vector, unit(100, DIM, 1)[7].astype(np.float16))
        assert [number for number, _ in found.page(3, 198)] == [199, 200, 201]


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    with pytest.raises(IndexProblem, match="gone/galleries cannot be read"):
        open_lance(f"lance:{bucket}-gone/galleries")


def test_a_job_reads_its_images(bucket: str, images: list[bytes]) -> None:
    store, name = fs.FileSystem.from_uri(bucket)
    for number, data in enumerate(images[:3]):
        with store.open_output_stream(f"{name}/photos/{number}.png") as file:
            file.write(data)
    with store.open_output_stream(f"{name}/photos/read.me") as file:
        file.write(b"no image")
    found = find([f"{bucket}/photos"], left_out := LeftOut())
    assert [source.id for source in found] == [f"{bucket}/photos/{number}.png" for number in range(3)]
    assert [read(source, 10_000_000) for source in found] == images[:3]
    assert [read(source, 10) for source in find([f"{bucket}/photos/1.png"], left_out)] == [images[1][:11]]
