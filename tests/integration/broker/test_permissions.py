"""The matrix in docs/security.md, tried cell by cell with generated keys on a real broker.

The connections speak NATS's own protocol over a socket, so that nothing of the product stands between the test and the broker's answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamflow.broker import accounts, bucket, subjects
from streamflow.broker.accounts import AUTH_FILE, settings_for
from streamflow.broker.bus import Bus
from streamflow.broker.errors import PermissionDenied, RuntimeFailToStart, Unavailable
from streamflow.broker.flow import Graph, Node
from streamflow.broker.nkeys import read_key
from streamflow.broker.permissions import Role, User, users_of
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision, streams_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"
SHOP = Graph(
    "shop",
    (
        Node("encoder", retry_on=("ValueError",), stateful=True),
        Node("indexer", needs=("encoder",), shards=2),
        Node("tagger", needs=("encoder",)),
        Node("ranker", needs=("indexer", "tagger")),
    ),
)
NEWS = Graph("news", (Node("encoder"),))
COLUMNS = (  # of the matrix
    User(Role.GATEWAY, "shop"), User(Role.WORKER, "shop", "encoder"), User(Role.WORKER, "shop", "ranker"), User(Role.PROVISIONER, "shop"),
    User(Role.OPERATOR, "shop"), User(Role.CLIENT, "shop"), User(Role.READER, "shop"), User(Role.GATEWAY, "news"),
    User(Role.WORKER, "news", "encoder"),
)  # fmt: skip
VERBS = {"P": b"PUB %b 0\r\n\r\n", "S": b"SUB %b %d\r\n"}
DENIED = re.compile(rb'Permissions Violation for (Publish|Subscription) to "([^"]+)"')


@dataclass(frozen=True)
class Cell:
    user: User
    subject: str
    verb: str
    is_allowed: bool

    def __str__(self) -> str:
        return f"{self.user.name} {'publish' if self.verb == 'P' else 'subscribe'} {self.subject}"


def cells() -> list[Cell]:
    rows = re.findall(r"^\| `([^`]+)` \| ([-PS |]+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return [
        Cell(user, subject, verb, verb in marks)
        for subject, line in rows
        for user, marks in zip(COLUMNS, line.split(" | "), strict=True)
        for verb in VERBS
    ]


@dataclass
class Wire:
    """One connection, and the subjects that the broker denied on it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    denied: set[tuple[str, str]] = field(default_factory=set)
    lines: list[bytes] = field(default_factory=list)

    async def send(self, data: bytes) -> None:
        """Return when the broker has seen it, its complaints noted."""
        self.writer.write(data + b"PING\r\n")
        while (line := await asyncio.wait_for(self.reader.readline(), 10)) != b"PONG\r\n":
            assert line, "the broker closed the connection"
            self.lines.append(line)
            if line == b"PING\r\n":
                self.writer.write(b"PONG\r\n")
            for verb, subject in DENIED.findall(line):
                self.denied.add(("P" if verb == b"Publish" else "S", subject.decode()))


@asynccontextmanager
async def connected(url: str, seed: Path | None) -> AsyncIterator[Wire]:
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    info = json.loads((await reader.readline()).removeprefix(b"INFO "))
    options: dict[str, object] = {"verbose": False, "pedantic": False, "lang": "test", "version": "0", "headers": True}
    if seed is not None:
        key = read_key(seed)
        options |= {"nkey": key.public, "sig": key.sign(info["nonce"]).decode()}
    writer.write(b"CONNECT %b\r\n" % json.dumps(options).encode())
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


@dataclass
class Guarded:
    """A broker with the users of two flows and of another tenant."""

    broker: EmbeddedBroker
    folder: Path
    seeds: dict[User, Path]
    other: dict[User, Path]

    def settings(self, role: Role, flow: str = "shop", executor: str = "", tenant: str = "default") -> BrokerSettings:
        settings = BrokerSettings(broker_url=self.broker.url, broker_credentials=str(self.folder / tenant), connect_wait_s=5)
        return settings_for(settings, role, flow, executor)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("auth")
    seeds = accounts.write(folder, "default", [SHOP, NEWS])
    other = accounts.write(folder, "rival", [SHOP])
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), limits="max_file_store: 1TB", auth=folder / AUTH_FILE)
    broker.start()
    yield Guarded(broker, folder, seeds, other)
    broker.stop()


@pytest.fixture
async def provisioned(guarded: Guarded) -> Guarded:
    """Each flow set up by its own provisioner."""
    for graph, tenant in ((SHOP, "default"), (NEWS, "default"), (SHOP, "rival")):
        settings = guarded.settings(Role.PROVISIONER, graph.flow, tenant=tenant)
        bus = await Bus.connect(settings, "provisioner")
        await provision(bus, graph, settings)
        await bus.close()
    return guarded


async def last_sequences(guarded: Guarded) -> dict[str, int]:
    found = {}
    for graph in (SHOP, NEWS):
        settings = guarded.settings(Role.OPERATOR, graph.flow)
        bus = await Bus.connect(settings, "operator")
        for stream in streams_of(graph, settings):
            found[stream.name] = (await bus.api(f"STREAM.INFO.{stream.name}"))["state"]["last_seq"]
        await bus.close()
    return found


async def denied(guarded: Guarded, tried: list[Cell]) -> set[Cell]:
    """Those that the broker refused."""
    refused: set[Cell] = set()
    async with AsyncExitStack() as stack:
        wires = {user: await stack.enter_async_context(connected(guarded.broker.url, guarded.seeds[user])) for user in COLUMNS}
        for number, cell in enumerate(tried):
            wire, subject = wires[cell.user], cell.subject.encode()
            wire.denied.clear()
            await wire.send(VERBS["P"] % subject if cell.verb == "P" else VERBS["S"] % (subject, number) + b"UNSUB %d\r\n" % number)
            if wire.denied:
                assert wire.denied == {(cell.verb, cell.subject)}
                refused.add(cell)
    return refused


async def test_every_role_may_do_what_is_documented_and_nothing_else(provisioned: Guarded, capsys: pytest.CaptureFixture[str]) -> None:
    everything = cells()
    forbidden = [cell for cell in everything if not cell.is_allowed]
    allowed = [cell for cell in everything if cell.is_allowed]
    assert len({(cell.user, cell.subject) for cell in everything}) >= 300
    before = await last_sequences(provisioned)
    got_through = set(forbidden) - await denied(provisioned, forbidden)
    assert not got_through, "allowed, against the matrix:\n" + "\n".join(map(str, got_through))
    assert await last_sequences(provisioned) == before
    refused = await denied(provisioned, allowed)
    assert not refused, "denied, against the matrix:\n" + "\n".join(map(str, refused))
    assert (await last_sequences(provisioned))["sf_shop_encoder"] > before["sf_shop_encoder"]
    with capsys.disabled():
        pairs = len({(cell.user, cell.subject) for cell in everything})
        print(f"\npermissions: {pairs} pairs of role and subject, {len(everything)} tries, {len(forbidden)} denied, {len(allowed)} allowed")


async def test_a_worker_key_gets_nothing_of_another_executors_queue(provisioned: Guarded) -> None:
    gateway = await Bus.connect(provisioned.settings(Role.GATEWAY), "gateway")
    await gateway.store_wait(subjects.work("shop", "ranker", "now", "secret"), b"x", "secret")
    async with connected(provisioned.broker.url, provisioned.seeds[User(Role.WORKER, "shop", "encoder")]) as wire:
        inbox = read_key(provisioned.seeds[User(Role.WORKER, "shop", "encoder")]).inbox_prefix
        pull = b"PUB $JS.API.CONSUMER.MSG.NEXT.sf_shop_ranker.now %b.1 1\r\n1\r\n" % inbox.encode()
        get = b"PUB $JS.API.DIRECT.GET.sf_shop_ranker.sf.shop.ranker.now.secret %b.1 0\r\n\r\n" % inbox.encode()
        await wire.send(b"SUB %b.> 1\r\n" % inbox.encode() + pull + get)
        await wire.send(b"")
        assert len(wire.denied) == 2 and not [line for line in wire.lines if line.startswith((b"MSG", b"HMSG"))]
    assert await gateway.direct_get("sf_shop_ranker", subjects.work("shop", "ranker", "now", "secret")) == b"x"
    await gateway.close()


async def test_tenants_are_worlds_of_their_own(provisioned: Guarded) -> None:
    ours = await Bus.connect(provisioned.settings(Role.GATEWAY), "gateway")
    theirs = await Bus.connect(provisioned.settings(Role.GATEWAY, tenant="rival"), "gateway")
    heard: list[bytes] = []
    await theirs.listen(subjects.replies("shop", "g1"), lambda subject, reply, header, payload: heard.append(payload))
    await ours.store_wait(subjects.work("shop", "encoder", "now", "mine"), b"x", "mine")
    worker = await Bus.connect(provisioned.settings(Role.WORKER, "shop", "encoder"), "worker")
    worker.publish(subjects.reply("shop", "g1", "r1"), b"answer")
    await worker.flush()
    await theirs.flush()
    assert not heard and await theirs.direct_get("sf_shop_encoder", subjects.work("shop", "encoder", "now", "mine")) is None
    for bus in (ours, theirs, worker):
        await bus.close()


async def test_a_forbidden_publish_is_told_at_once(provisioned: Guarded) -> None:
    bus = await Bus.connect(provisioned.settings(Role.READER), "reader")
    async with asyncio.timeout(2):
        with pytest.raises(PermissionDenied, match=r"forbid publishing to sf\.shop\.Encoder\.now\.r1"):
            await bus.store_wait("sf.shop.Encoder.now.r1", b"x", "r1")
    assert bus.connected and await bucket.load_graph(bus, "shop")
    await bus.close()


@pytest.mark.parametrize("seed", ["none", "foreign"])
async def test_who_has_no_key_of_this_broker_is_not_let_in(guarded: Guarded, tmp_path: Path, seed: str) -> None:
    credentials = {} if seed == "none" else {"broker_credentials": str(accounts.write(tmp_path, "x", [NEWS])[User(Role.GATEWAY, "news")])}
    with pytest.raises(Unavailable, match="(?i)authorization"):
        await Bus.connect(BrokerSettings(broker_url=guarded.broker.url, connect_wait_s=1, **credentials), "nobody")


def test_seeds_are_for_their_owner_only_and_stay_when_written_again(tmp_path: Path) -> None:
    first = accounts.write(tmp_path, "default", [SHOP])
    before = {user: path.read_text() for user, path in first.items()}
    assert set(first) == set(users_of(SHOP)) and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in first.values())
    assert stat.S_IMODE((tmp_path / "default" / "shop").stat().st_mode) == 0o700
    again = accounts.write(tmp_path, "default", [NEWS], roles=[Role.GATEWAY])
    assert set(again) == {*first, User(Role.GATEWAY, "news")} and {user: path.read_text() for user, path in first.items()} == before
    accounts.write(tmp_path, "default", [SHOP], roles=[Role.GATEWAY], renew=True)
    changed = {user for user, path in first.items() if path.read_text() != before[user]}
    assert changed == {User(Role.GATEWAY, "shop")}
    public = (tmp_path / "default" / "account.conf").read_text()
    assert not any(path.read_text().strip() in public for path in again.values())


def test_a_missing_or_damaged_key_is_told_by_its_file(tmp_path: Path) -> None:
    accounts.write(tmp_path, "default", [NEWS])
    settings = BrokerSettings(broker_credentials=str(tmp_path / "default"))
    with pytest.raises(RuntimeFailToStart, match="no key for news/worker-ghost; make one with `streamflow auth generate`"):
        settings_for(settings, Role.WORKER, "news", "ghost")
    path = tmp_path / "default" / "news" / "gateway.nk"
    seed = path.read_text().strip()
    for text in ("", "hello", seed[:30] + ("A" if seed[30] != "A" else "B") + seed[31:], seed[:40]):
        path.write_text(text)
        with pytest.raises(RuntimeFailToStart, match=r"gateway\.nk: broker credentials cannot be read") as refused:
            read_key(path)
        assert seed[:20] not in str(refused.value)
