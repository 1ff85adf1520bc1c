"""Real worker processes: what they decode, and what becomes of an image that stops, kills or fills one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import (
    ImageLimits,
    ImageTooLarge,
    Preprocessing,
    UndecodableImage,
    UnsupportedImageType,
    decode,
    preprocess,
    to_srgb,
)
from rankone.service.errors import InputsRejected, Problem
from rankone.service.inference import decode_pool, decode_process
from rankone.service.inference.decode_pool import DecodePool, DecodersFailed
from rankone.service.inference.decode_process import DecodeProcess, WorkerDied
from rankone.service.inference.decode_worker import DONE, READY, REPLY, DecodeOptions
from rankone.service.inference.job import Job, Task
from rankone.service.inference.shared import CpuArbiter, Slots
from tests.model.files import encoded, exif, segment, with_segments
from tests.model.profiles import cmyk_profile, rgb_profile

pytestmark = pytest.mark.anyio

SPEC = Preprocessing(size=32)
OPTIONS = DecodeOptions(SPEC, ImageLimits(), memory_bytes=300_000_000, timeout_s=30)


class Harness:
    """A pool, and the images that came out of it, copied from their slots as the batcher does."""

    def __init__(self, options: DecodeOptions, num_workers: int, num_slots: int) -> None:
        self.slots = Slots(num_slots, (3, SPEC.size, SPEC.size))
        self.decoded: dict[Task, np.ndarray] = {}
        self.holds_slots = False
        self.num_deaths, self.num_workers = 0, num_workers
        self.arbiter = CpuArbiter(pause_s=60)
        self.pool = DecodePool(options, self.slots, num_workers, self.arbiter, self.take, self.bury)

    def take(self, task: Task) -> None:
        assert task.slot is not None
        self.decoded[task] = self.slots[task.slot].copy()
        if not self.holds_slots:
            self.slots.put_nowait(task.slot)

    def bury(self) -> None:
        self.num_deaths += 1

    def stop_workers(self) -> None:
        for pid in self.pool.pids:
            os.kill(pid, signal.SIGSTOP)

    async def stopped_at(self, image: bytes) -> Job:
        """A job whose image the only worker has been given and cannot decode, as it is stopped."""
        self.stop_workers()
        (worker,) = self.pool._ready
        job = self.submit([image])
        await self.until(lambda: worker._expected != set())
        return job

    def submit(self, images: list[bytes], deadline_s: float = 60.0, *, wants_thumbnails: bool = False) -> Job:
        job = Job(images, time.perf_counter() + deadline_s, wants_thumbnails=wants_thumbnails)
        self.pool.submit(job)
        return job

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - of other processes, too
                await asyncio.sleep(0.005)

    async def pixels(self, job: Job) -> list[np.ndarray]:
        await self.until(lambda: all(task in self.decoded for task in job.tasks))
        return [self.decoded[task] for task in job.tasks]


@asynccontextmanager
async def running(options: DecodeOptions = OPTIONS, num_workers: int = 1, num_slots: int = 4) -> AsyncIterator[Harness]:
    harness = Harness(options, num_workers, num_slots)
    try:
        await harness.pool.start()
        yield harness
    finally:
        await harness.pool.close()
        harness.slots.close()


def picture(seed: int = 0, size: tuple[int, int] = (50, 40), kind: str = "png") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


async def rejection_of(job: Job) -> tuple[int, Exception]:
    with pytest.raises(InputsRejected) as rejected:
        async with asyncio.timeout(30):
            await job.done
    (rejection,) = rejected.value.rejections.items()
    return rejection


async def test_workers_decode_as_preprocess_does(images: list[bytes]) -> None:
    async with running(num_workers=2) as harness:
        found = await harness.pixels(harness.submit(images))
        for image, pixels in zip(images, found, strict=True):
            assert np.array_equal(pixels, preprocess(image, SPEC))
        assert harness.slots.qsize() == harness.slots.count - harness.num_workers, "each idle worker holds one"


async def test_thumbnails_come_with_the_pixels_to_those_who_want_them() -> None:
    """Upright, in the proportions of the image; smaller images keep their size."""
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is on the left
    left_red = Image.new("RGB", (900, 300), "blue")
    left_red.paste("red", (0, 0, 450, 300))
    files = [io.BytesIO(), io.BytesIO()]
    left_red.save(files[0], "jpeg", exif=exif)
    Image.new("RGB", (50, 40), "lime").save(files[1], "png")
    sent = [file.getvalue() for file in files]
    async with running(num_workers=2) as harness:
        wanted, other = harness.submit(sent, wants_thumbnails=True), harness.submit(sent)
        for job in (wanted, other):
            for image, pixels in zip(sent, await harness.pixels(job), strict=True):
                assert np.array_equal(pixels, preprocess(image, SPEC))
        assert [task.thumbnail for task in other.tasks] == [None, None]
        tall, small = [Image.open(io.BytesIO(task.thumbnail or b"")) for task in wanted.tasks]
        assert (tall.format, tall.size, small.size) == ("JPEG", (85, 256), (50, 40))
        top, bottom = (np.asarray(tall.getpixel((42, row)), np.float64) for row in (20, 235))
        assert np.allclose(top, (255, 0, 0), atol=8)
        assert np.allclose(bottom, (0, 0, 255), atol=8)
        assert np.allclose(np.asarray(small, np.float64), (0, 255, 0), atol=8)


async def test_every_image_at_fault_is_named_with_its_own_reason() -> None:
    good = picture()
    images = [good, b"nothing", good[: len(good) // 2], good, picture(size=(20_000, 1))]
    async with running(num_workers=2) as harness:
        job = harness.submit(images)
        with pytest.raises(InputsRejected) as rejected:
            await job.done
        kinds = {index: type(error) for index, error in rejected.value.rejections.items()}
        assert kinds == {1: UnsupportedImageType, 2: UndecodableImage, 4: ImageTooLarge}
        assert harness.slots.qsize() == harness.slots.count - harness.num_workers, "each idle worker holds one"


@pytest.mark.parametrize("is_too_slow", [False, True])
async def test_an_image_that_kills_its_worker_is_refused_and_the_worker_replaced(is_too_slow: bool) -> None:
    """It crashes while it decodes, or that takes too long by the clock; the next worker decodes what waits."""
    async with running(replace(OPTIONS, timeout_s=0.2 if is_too_slow else 30)) as harness:
        (pid,) = harness.pool.pids
        unlucky, behind = await harness.stopped_at(picture(1)), harness.submit([picture(2)])
        if not is_too_slow:
            os.kill(pid, signal.SIGSEGV)
            os.kill(pid, signal.SIGCONT)
        index, error = await rejection_of(unlucky)
        assert index == 0
        assert ("takes longer than 2 s" if is_too_slow else "crashed") in str(error)
        assert np.array_equal((await harness.pixels(behind))[0], preprocess(picture(2), SPEC))
        assert (harness.pool.is_alive, harness.num_deaths) == (True, 1)
        assert pid not in harness.pool.pids


async def test_an_image_whose_worker_is_killed_from_outside_is_tried_once_more() -> None:
    """As the kernel kills for want of memory. An image that is there when a second worker is killed is 503."""
    async with running() as harness:
        lucky = await harness.stopped_at(picture(1))
        os.kill(harness.pool.pids[0], signal.SIGKILL)
        assert np.array_equal((await harness.pixels(lucky))[0], preprocess(picture(1), SPEC))
        unlucky = await harness.stopped_at(picture(2))
        unlucky.tasks[0].num_kills = 1
        os.kill(harness.pool.pids[0], signal.SIGKILL)
        with pytest.raises(Problem, match="image 0: its decoder was killed twice") as told:
            await unlucky.done
        assert (told.value.status, told.value.retry_after_s) == (503, 5)
        assert np.array_equal((await harness.pixels(harness.submit([picture(3)])))[0], preprocess(picture(3), SPEC))
        assert harness.num_deaths == 2


async def test_a_worker_that_hangs_up_is_no_victim_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_process, "_MODULE", "tests.service.inference.leaver")
    async with running() as harness:
        _, error = await rejection_of(harness.submit([picture()]))
        assert str(error) == "the decoder closed its connection"


async def test_an_image_that_takes_too_much_processor_time_ends_its_worker() -> None:
    async with running(replace(OPTIONS, timeout_s=0.1, spec=replace(SPEC, jpeg="whole"))) as harness:
        (pid,) = harness.pool.pids
        _, error = await rejection_of(harness.submit([picture(size=(4000, 4000), kind="jpeg")]))
        assert str(error) == "decoding it takes longer than 0.1 s of processor time"
        assert np.array_equal((await harness.pixels(harness.submit([picture()])))[0], preprocess(picture(), SPEC))
        assert pid not in harness.pool.pids


LIMITED = """
import signal, time
from rankone.service.inference.decode_worker import processor_time
with processor_time(0.05):
    time.sleep(0.2)
assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
"""


def test_time_in_which_others_have_the_processor_does_not_count() -> None:
    subprocess.run([sys.executable, "-c", LIMITED], check=True)


async def test_a_worker_logs_in_the_format_of_the_service(capfd: pytest.CaptureFixture[str]) -> None:
    nearly_black = io.BytesIO()
    Image.fromarray(np.array([[0, 4095]], np.uint16)).save(nearly_black, "png")
    async with running(replace(OPTIONS, log_format="json")) as harness:
        await harness.pixels(harness.submit([nearly_black.getvalue()]))
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"]) == ("warning", "rankone")
    assert "nearly black" in entry["message"]


def large_jpeg() -> bytes:
    """A picture that is on its side, of which a reduced one has 600 x 800 pixels, and still many times those of `SPEC`."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8))
    data = encoded(image.resize((3200, 2400), Image.Resampling.BICUBIC), "JPEG", quality=90)
    return with_segments(data, segment(0xE1, b"Exif\0\0" + exif(6)))


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, jpeg="whole")])
async def test_large_jpegs_are_decoded_as_the_bundle_says(spec: Preprocessing) -> None:
    """Reduced or whole, the thumbnail is as large as ever, and of the same picture."""
    data = large_jpeg()
    whole = preprocess(data, replace(SPEC, jpeg="whole"))
    async with running(replace(OPTIONS, spec=spec)) as harness:
        job = harness.submit([data], wants_thumbnails=True)
        (found,) = await harness.pixels(job)
        assert np.array_equal(found, preprocess(data, spec))
        assert np.array_equal(found, whole) == (spec.jpeg == "whole")
        small = Image.open(io.BytesIO(job.tasks[0].thumbnail or b""))
        assert small.size == (192, 256)
        expected = decode(data, ImageLimits()).resize(small.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 2


async def test_pixels_and_thumbnails_are_in_srgb() -> None:
    """Of a picture in ProPhoto, and of one for a press."""
    wide = encoded(Image.new("RGB", (8, 8), (120, 90, 60)), icc_profile=rgb_profile("prophoto", 1.8))
    press = encoded(
        Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=cmyk_profile(np.full((2,) * 4 + (3,), 50))
    )
    async with running() as harness:
        job = harness.submit([wide, press], wants_thumbnails=True)
        found = await harness.pixels(job)
        for data, decoded, task in zip((wide, press), found, job.tasks, strict=True):
            assert np.array_equal(decoded, preprocess(data, SPEC))
            assert not np.array_equal(decoded, preprocess(data, Preprocessing(size=32, color="ignored")))
            small = Image.open(io.BytesIO(task.thumbnail or b""))
            assert (small.mode, "icc_profile" in small.info) == ("RGB", False)
            shown = np.asarray(to_srgb(decode(data, ImageLimits(), SPEC)), np.float64)
            assert np.abs(np.asarray(small, np.float64).mean((0, 1)) - shown.mean((0, 1))).max() < 6


async def test_a_reply_that_comes_when_the_time_is_up_is_too_late() -> None:
    async with running() as harness:
        (worker,) = harness.pool._ready
        harness.stop_workers()
        late, behind = harness.submit([picture(1)]), harness.submit([picture(2)])
        await harness.until(lambda: worker._expected != set())
        worker._kill("too slow")
        worker.data_received(REPLY.pack(DONE, 0))
        _, error = await rejection_of(late)
        assert str(error) == "too slow"
        assert np.array_equal((await harness.pixels(behind))[0], preprocess(picture(2), SPEC))


async def test_an_image_given_to_a_worker_that_has_just_died_goes_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as harness:
        (worker,) = harness.pool._ready
        await worker.stop()
        await worker.ended
        with pytest.raises(WorkerDied):
            await worker.decode(picture(), 0, wants_thumbnail=False)
        await harness.until(lambda: harness.pool.is_complete)
        decode, failures = DecodeProcess.decode, iter([WorkerDied()])

        async def decode_or_fail(worker: DecodeProcess, *image: Any, **options: Any) -> bytes | None:
            for failure in failures:
                raise failure
            return await decode(worker, *image, **options)

        monkeypatch.setattr(DecodeProcess, "decode", decode_or_fail)
        assert len(await harness.pixels(harness.submit([picture()]))) == 1
        assert harness.num_deaths == 2


@pytest.mark.parametrize(
    "reply",
    [
        REPLY.pack(READY, 0),
        REPLY.pack(9, 0),
        REPLY.pack(DONE, 0) + b"more",
        REPLY.pack(DONE, 0) * 2,
        REPLY.pack(DONE, 2**32 - 1),
    ],
)
async def test_a_worker_that_an_image_has_taken_over_is_replaced(reply: bytes) -> None:
    async with running() as harness:
        (worker,) = harness.pool._ready
        harness.stop_workers()
        evil, behind = harness.submit([picture(1)]), harness.submit([picture(2)])
        await harness.until(lambda: worker._expected != set())
        worker.data_received(reply)
        _, error = await rejection_of(evil)
        assert (type(error), str(error)) == (UndecodableImage, "the decoder sent an invalid reply")
        assert np.array_equal((await harness.pixels(behind))[0], preprocess(picture(2), SPEC))


@pytest.mark.parametrize("outcome", [READY, DONE])
async def test_a_worker_that_replies_without_a_request_is_replaced(outcome: int) -> None:
    async with running() as harness:
        (worker,) = harness.pool._ready
        worker.data_received(REPLY.pack(outcome, 0))
        await harness.until(lambda: harness.num_deaths == 1)
        assert len(await harness.pixels(harness.submit([picture(n) for n in range(3)]))) == 3


async def test_an_idle_worker_that_is_killed_costs_nothing() -> None:
    async with running(num_workers=2) as harness:
        for pid in harness.pool.pids:
            os.kill(pid, signal.SIGKILL)
        await harness.until(lambda: harness.num_deaths == 2)
        assert len(await harness.pixels(harness.submit([picture(n) for n in range(4)]))) == 4


async def test_an_image_that_waits_to_be_begun_is_not_lost_with_its_worker() -> None:
    async with running() as harness:
        with harness.arbiter.running():
            job = harness.submit([picture()])
            await asyncio.sleep(0.05)  # the worker has taken the image, and waits for the end of the batch
            os.kill(harness.pool.pids[0], signal.SIGKILL)
            await harness.until(lambda: harness.num_deaths == 1)
        assert len(await harness.pixels(job)) == 1


async def test_an_image_that_takes_too_much_memory_is_refused_by_a_worker_that_lives_on() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (5000, 5000)).save(file, "png")
    async with running(replace(OPTIONS, memory_bytes=30_000_000)) as harness:
        pids = harness.pool.pids
        _, error = await rejection_of(harness.submit([file.getvalue()]))
        assert isinstance(error, ImageTooLarge)
        assert "more than 30,000,000 bytes of memory" in str(error)
        await harness.pixels(harness.submit([picture()]))
        assert harness.pool.pids == pids


async def test_no_more_images_are_decoded_than_have_slots() -> None:
    async with running(num_workers=2, num_slots=3) as harness:
        harness.holds_slots = True
        job = harness.submit([picture(n) for n in range(5)])
        await harness.until(lambda: len(harness.decoded) == 3)
        await asyncio.sleep(0.05)
        assert len(harness.decoded) == 3
        slot = job.tasks[0].slot
        assert slot is not None
        harness.slots.put_nowait(slot)
        await harness.until(lambda: len(harness.decoded) == 4)


async def test_work_that_nobody_waits_for_is_not_decoded() -> None:
    """What waits is not begun; what is being decoded is dropped, and its slot is free again."""
    async with running() as harness:
        (worker,) = harness.pool._ready
        harness.stop_workers()
        gone, fine = harness.submit([picture(1)] * 3), harness.submit([picture(3)])
        await harness.until(lambda: worker._expected != set())
        gone.done.cancel()
        harness.pool.discard(gone)
        for pid in harness.pool.pids:
            os.kill(pid, signal.SIGCONT)
        await harness.pixels(fine)
        assert set(harness.decoded) == set(fine.tasks)
        await harness.until(lambda: harness.slots.qsize() == harness.slots.count - 1)


async def test_workers_that_do_not_start_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_START_S", 0.5)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DecodersFailed, match="did not start"):
        async with running():
            pass


async def test_a_worker_that_cannot_be_started_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([OSError("no more processes")] * 2)
    start = DecodeProcess.start

    async def start_or_fail(worker: DecodeProcess) -> None:
        for failure in failures:
            raise failure
        await start(worker)

    async with running() as harness:
        monkeypatch.setattr(DecodeProcess, "start", start_or_fail)
        os.kill(harness.pool.pids[0], signal.SIGKILL)
        await harness.until(lambda: harness.num_deaths == 1)
        await harness.pixels(harness.submit([picture()]))
        assert next(failures, None) is None


async def test_a_pool_that_closes_while_a_worker_is_replaced_ends_all_of_them() -> None:
    async with running(num_workers=2) as harness:
        pids = harness.pool.pids
        os.kill(pids[0], signal.SIGKILL)
        await harness.until(lambda: not harness.pool.is_complete)
    assert not {str(pid) for pid in pids} & set(os.listdir("/proc"))


async def test_workers_end_with_the_pool_and_not_by_signals_of_the_terminal() -> None:
    async with running(num_workers=2) as harness:
        pids = harness.pool.pids
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        await harness.pixels(harness.submit([picture(n) for n in range(4)]))
        assert harness.pool.pids == pids
    assert not {str(pid) for pid in pids} & set(os.listdir("/proc"))


async def test_after_a_fault_of_ours_the_worker_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as harness:
        take, harness.pool._put = harness.pool._put, lambda _: 1 / 0  # type: ignore[assignment]
        (pid,) = harness.pool.pids
        harness.submit([picture(1)])
        await harness.until(lambda: harness.pool.pids not in ([], [pid]))
        harness.pool._put = take
        assert len(await harness.pixels(harness.submit([picture(2)]))) == 1
        assert harness.num_deaths == 0, "it did not die by itself"
        assert "a fault of the service" in caplog.text


async def test_an_image_that_waits_for_the_cpu_survives_the_death_of_its_worker() -> None:
    async with running() as harness:
        with harness.arbiter.running():
            job = harness.submit([picture()])
            await asyncio.sleep(0.1)
            os.kill(harness.pool.pids[0], signal.SIGKILL)
            await harness.until(lambda: harness.num_deaths == 1)
        assert len(await harness.pixels(job)) == 1


async def test_no_image_is_begun_while_a_batch_runs_on_the_same_cpu() -> None:
    async with running() as harness:
        with harness.arbiter.running():
            wanted, gone = harness.submit([picture(1)]), harness.submit([picture(2)])
            await asyncio.sleep(0.1)
            assert not harness.decoded
            gone.done.cancel()
        await harness.pixels(wanted)
        await harness.pixels(harness.submit([picture(3)]))
        assert len(harness.decoded) == 2, "nor is what was cancelled meanwhile"
