"""Jobs at full size and under fire. Sizes from the environment: JOBS_KEYS, JOBS_REPLAYED, JOBS_DOCUMENTS."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import bucket, codec
from streamflow.broker.envelope import COLUMNS
from streamflow.broker.errors import Overloaded, StreamflowError, Unavailable
from streamflow.broker.server import EmbeddedBroker
from streamflow.client import AsyncClient, Client
from streamflow.jobs import AsyncJob, State
from tests.e2e.executors.batch import Batch
from tests.e2e.programs import Programs
from tests.waiting import eventually

from .batches import FLOW, LiveTraffic, Setting, documents, lines_file, peak_mib, resident_mib, submitting
from .sizes import SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.feature("QU-03", "QU-04")]
Say = Callable[[str], None]
KEYS = int(os.environ.get("JOBS_KEYS", 2000))
REPLAYED = int(os.environ.get("JOBS_REPLAYED", 100_000))
DOCUMENTS = int(os.environ.get("JOBS_DOCUMENTS", 200_000))
PIECE = 100  # documents in a request
WORK_S = 0.005  # of the executor, for each request
ROUNDS = 200


async def test_keys_submitted_again_and_again(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """Each of the keys 1 to 10 times at the same time, the broker killed in the middle: one recorded execution each."""
    setting = Setting(programs, own_broker)
    chance = random.Random(SEED)
    orders = [key for key in range(KEYS) for _ in range(chance.randint(1, 10))]
    chance.shuffle(orders)
    ids: dict[int, set[str]] = {}
    refused = 0
    clients: list[AsyncClient] = [Client(setting.urls["nats"], asyncio=True) for _ in range(4)]
    room = asyncio.Semaphore(64)

    async def submit(key: int, client: AsyncClient) -> None:
        nonlocal refused
        async with room:
            for _ in range(600):
                try:
                    job = await client.submit("/upper", TextDoc(id=f"k{key}", text=f"key {key}"), key=f"key {key}")
                    ids.setdefault(key, set()).add(job.id)
                    return
                except (Unavailable, Overloaded):  # a broker allows 1,000 unfinished jobs
                    refused += 1
                    await asyncio.sleep(0.5)
        raise AssertionError(f"key {key} was refused for too long")

    began = time.monotonic()
    submits = asyncio.gather(*(submit(key, clients[at % 4]) for at, key in enumerate(orders)))
    await eventually(lambda: len(ids) > KEYS // 3, what="a third of the keys is in", timeout_s=300)
    await asyncio.to_thread(setting.restart_broker)
    await submits
    submitted_s = time.monotonic() - began
    assert len(ids) == KEYS and all(len(found) == 1 for found in ids.values())
    for (job_id,) in ids.values():
        await clients[0].job(job_id).wait(timeout=120)
    for (job_id,) in ids.values():
        assert len(await setting.recorded(job_id)) == 1
    ran = setting.executions()
    assert set(ran) == {f"k{key}" for key in range(KEYS)}
    say(
        f"{KEYS} keys in {len(orders)} submits ({refused} refused: broker away, or 1,000 jobs open) in {submitted_s:.1f} s, "
        f"all run after {time.monotonic() - began:.1f} s: {KEYS} outcomes recorded, {sum(ran.values())} executions (seed {SEED})"
    )
    for client in clients:
        await client.close()


async def test_a_large_replay_beside_live_traffic_with_everything_killed(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """The submitting client, the feeder's holder, all workers, the broker: each new result once, the originals as they were."""
    setting = Setting(programs, own_broker)
    client: AsyncClient = Client(setting.urls["nats"], asyncio=True)
    file = lines_file(setting.folder, REPLAYED)
    await killed_while_submitting(programs, setting, file)
    began = time.monotonic()
    submit = submitting(programs, own_broker.url, file, "big")
    await asyncio.to_thread(submit.wait, 600)
    job = client.job(submit.output.split()[0])
    stored_s = time.monotonic() - began
    await finished(job)
    ran_s = time.monotonic() - began - stored_s
    before = await setting.recorded(job.id)
    assert sorted(map(int, before)) == list(range(REPLAYED))

    async with LiveTraffic(setting.urls["http"], per_s=50).running() as live:
        await asyncio.sleep(10)
        alone = live.lap()
        began = time.monotonic()
        replay = await client.replay(job=job.id)
        await done_share(replay, 0.2)
        beside = live.lap()
        kills = await kill_everything(setting, replay)
        await finished(replay)
        replayed_s = time.monotonic() - began
        killed = live.lap()
    after = await setting.recorded(replay.id)
    assert sorted(map(int, after)) == list(range(REPLAYED))
    assert await setting.recorded(job.id) == before
    assert not live.failed, live.failed[:3]
    say(
        f"{REPLAYED} requests stored in {stored_s:.1f} s, run in {ran_s:.1f} s, replayed in {replayed_s:.1f} s with {kills}: "
        f"each recorded once. Live p99 at 50/s: {alone[1]:.1f} ms alone ({alone[0]}), {beside[1]:.1f} ms beside the replay ({beside[0]}), "
        f"{killed[1]:.1f} ms with the kills ({killed[0]})"
    )
    await client.close()


async def killed_while_submitting(programs: Programs, setting: Setting, file: Any) -> None:
    """A client that dies in the middle of handing in leaves nothing that runs."""
    doomed = submitting(programs, setting.broker.url, file, "big")
    async with setting.bus() as bus:

        async def stored_some() -> bool:
            return bool((await bus.api(f"STREAM.INFO.sf_{FLOW}_jobs"))["state"]["messages"] > REPLAYED // 10)

        await eventually(stored_some, what="a tenth is stored", timeout_s=120)
    assert doomed.process.poll() is None, "the client was faster than its killer: raise JOBS_REPLAYED"
    doomed.kill()


async def kill_everything(setting: Setting, job: AsyncJob) -> str:
    """One after the other, with work done in between."""
    async with setting.bus() as bus:
        holder = await bucket.get(bus, FLOW, "lease.feeder")
    workers = setting.kill_workers()
    async with setting.bus() as bus:

        async def another_feeds() -> bool:
            return await bucket.get(bus, FLOW, "lease.feeder") not in (holder, None)

        await eventually(another_feeds, what="another worker feeds", timeout_s=60)
    await done_share(job, 0.5)
    await asyncio.to_thread(setting.restart_broker)
    await done_share(job, 0.7)
    workers += setting.kill_workers()
    return f"{workers} kills of workers, the feeder's holder among them, one of the client while it submitted, one of the broker"


async def test_workers_killed_again_and_again_during_a_job(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    setting = Setting(programs, own_broker, pause_s=0.002)
    number, kills = 6000, 0
    async with Client(setting.urls["nats"], asyncio=True) as client:
        began = time.monotonic()
        job = await client.submit("/upper", documents(number), request_size=1)
        for share in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85):
            await done_share(job, share)
            kills += setting.kill_workers()
        found = [response async for response in job.results(DocList[TextDoc])]
        seconds = time.monotonic() - began
    assert sorted(response.number for response in found) == list(range(number))
    assert all(response.ok and response.docs[0].text == f"SOME TEXT {response.number}" for response in found)
    assert len(await setting.recorded(job.id)) == number
    say(
        f"{number} requests in {seconds:.1f} s, {kills} workers killed: each recorded once, {sum(setting.executions().values())} executions"
    )


@pytest.mark.parametrize("work_s", [WORK_S, 0.0])
async def test_throughput_of_a_job(programs: Programs, own_broker: EmbeddedBroker, say: Say, work_s: float) -> None:
    """Against the same executor called in a loop in this process (decode, call, encode), and against a post over gRPC."""
    setting = Setting(programs, own_broker, replicas=1, pause_s=work_s)
    pure = pure_rate(work_s)
    async with Client(setting.urls["grpc"], asyncio=True) as online:
        await posted_rate(online, DOCUMENTS // 20)
        posted = await posted_rate(online, DOCUMENTS // (4 if work_s else 1))
    async with Client(setting.urls["nats"], asyncio=True) as client:
        await (await client.submit("/upper", documents(2000), request_size=PIECE)).wait(timeout=60)
        rss = resident_mib()
        began = time.monotonic()
        job = await client.submit("/upper", documents(DOCUMENTS), request_size=PIECE)
        submit_s = time.monotonic() - began
        status = await job.wait(timeout=600)
        seconds = time.monotonic() - began
        grown = resident_mib() - rss
        read = sum([1 async for _ in job.results()])
    assert status.state is State.DONE and status.failed == 0 and read == DOCUMENTS // PIECE
    whole, running = DOCUMENTS / seconds, DOCUMENTS / (seconds - submit_s)
    say(
        f"{DOCUMENTS} documents, {PIECE} a request, {1000 * work_s:g} ms of work each: pure loop {pure:,.0f} documents/s, "
        f"post over gRPC {posted:,.0f}, job {whole:,.0f} from the submit on ({whole / pure:.0%} of pure, {whole / posted:.0%} of post), "
        f"{running:,.0f} once accepted; handed in after {submit_s:.1f} s, client {grown:+.1f} MiB (peak {peak_mib():.0f} MiB)"
    )
    assert grown < 32
    assert running > 0.9 * posted  # what the same worker does for clients that wait; the loop in this process is printed only


def pure_rate(work_s: float) -> float:
    """Documents a second of the executor in a loop: what a worker cannot be faster than."""
    executor = Batch(pause_s=work_s)
    body = codec.encode(DocList[TextDoc](documents(PIECE)), COLUMNS)
    began = time.monotonic()
    for _ in range(ROUNDS):
        docs = codec.decode(body, COLUMNS, TextDoc).docs
        codec.encode(executor.upper(docs), COLUMNS)
    return ROUNDS * PIECE / (time.monotonic() - began)


async def posted_rate(client: AsyncClient, number: int) -> float:
    began = time.monotonic()
    found = 0
    async for docs in client.post("/upper", documents(number), request_size=PIECE, prefetch=64):
        found += len(docs)
    assert found == number
    return number / (time.monotonic() - began)


async def done_share(job: AsyncJob, share: float) -> None:
    async def enough() -> bool:
        try:
            status = await job.status()
        except StreamflowError:
            return False
        return status.done >= share * status.total

    await eventually(enough, what=f"{share:.0%} of the job are done", timeout_s=300)


async def finished(job: AsyncJob) -> None:
    status = await job.wait(timeout=600)
    assert status.state is State.DONE and status.failed == 0, status
