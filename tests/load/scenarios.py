"""What is done to a service in `tests.load.abuse`: one small coroutine for each way to behave, in a table.

A scenario opens connections, does something with them, and checks every answer that it is owed. What is owed
is known: each request was asked once in quiet, and must get the same bytes ever after, whoever else is there.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

import h11
import orjson

from tests.load.traffic import Request, Traffic
from tests.wire import RESET_ON_CLOSE, Answer, AnswerReader, chunked, pieces_of, post, request

MB = 1024 * 1024
PATIENCE = 30
"""Seconds that an answer may take. Far more than it needs; what takes longer is stuck."""

CALM_ROUNDS = 40
"""How many requests of each ordinary kind are asked beforehand."""
LONGEST_IDLE_SECONDS = 6.0

HEALTH = "/health/live"
READ_PATHS = (HEALTH, "/health/ready", "/model", "/v2", "/")


T = TypeVar("T")


class WrongError(Exception):
    """The service did what it must not; the message says what, without anything that differs by request."""


@dataclass(frozen=True)
class Known:
    """A request and its answer."""

    request: Request
    answer: bytes

    @property
    def body(self) -> bytes:
        return self.request.body.encode()

    def whole(self, *headers: str) -> bytes:
        return post(self.request.path, self.body, f"Content-Type: {self.request.content_type}", *headers)

    def check(self, answer: Answer) -> None:
        """Compare an answer with the right one.

        Raises:
            WrongError: it is another.
        """
        if answer.status != self.request.status:
            raise WrongError(f"{self.request.about}: {answer.status} instead of {self.request.status}")
        if answer.body != self.answer:
            raise WrongError(f"{self.request.about}: another answer than in quiet")


@dataclass(frozen=True)
class Site:
    """A service and what is known about it.

    Attributes:
        calls: ordinary requests, good and bad.
        batches: requests nearly as large as the service takes.
        body_limit: what it takes, in bytes.
    """

    host: str
    port: int
    calls: Sequence[Known]
    batches: Sequence[Known]
    body_limit: int


async def patiently(work: Coroutine[Any, Any, T]) -> T:
    """Wait for what the service must do.

    Second by second, because a virtual machine may stand still for longer than anybody's patience: that then
    counts as one second.

    Raises:
        TimeoutError: it was not done.
    """
    task = asyncio.create_task(work)
    try:
        for _ in range(PATIENCE):
            if (await asyncio.wait({task}, timeout=1))[0]:
                return task.result()
    finally:
        task.cancel()
    raise TimeoutError


class Line:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answers = 0
        self.seconds: list[float] = []
        self._reader = reader
        self._writer = writer
        self._received = b""

    async def send(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await patiently(self._writer.drain())
            if pause:
                await asyncio.sleep(pause)

    async def answer(self, method: str = "POST") -> Answer:
        reader = AnswerReader(method)
        whole = reader.feed(self._received) if self._received else None
        while whole is None:
            whole = reader.feed(await patiently(self._reader.read(65536)))
        self._received = reader.rest
        return whole

    async def expect(self, known: Known) -> None:
        """Read an answer that must be the known one."""
        known.check(await self.answer())
        self.answers += 1

    async def ask(self, known: Known) -> None:
        started = time.perf_counter()
        await self.send([known.whole()])
        await self.expect(known)
        self.seconds.append(time.perf_counter() - started)

    async def stays_in_step(self, last: Answer, known: Known) -> None:
        """After its last answer the connection ends as announced, or serves the next request."""
        if last.status >= 500:
            raise WrongError(f"an answer with {last.status}")
        if not last.closes:
            await self.ask(known)
        elif await self.end():
            raise WrongError("something came after the announced end")

    async def end(self) -> bytes:
        """Whatever comes until the service closes the connection."""
        rest = self._received
        try:
            return rest + await patiently(self._reader.read())
        except ConnectionError:
            return rest

    async def drop(self) -> None:
        """Read until the service closes the connection, and keep nothing; however long it takes."""
        with suppress(ConnectionError):
            while await self._reader.read(MB):
                pass

    async def push(self, pieces: Iterable[bytes]) -> None:
        """Send without waiting for answers, however long the service does not read."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def peek(self, most: int) -> None:
        """Read a little, and leave the rest."""
        await patiently(self._reader.read(most))

    def stop_sending(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        """From now on, closing is a reset."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


class Client:
    """One run of a scenario.

    Attributes:
        random: its own, so that what it does is decided by its seed alone.
        answers: how many right answers it has had.
        seconds: how long each of its single requests took.
    """

    def __init__(self, site: Site, random: Random) -> None:
        self.site = site
        self.random = random
        self._lines: list[Line] = []

    @property
    def answers(self) -> int:
        return sum(line.answers for line in self._lines)

    @property
    def seconds(self) -> list[float]:
        return [each for line in self._lines for each in line.seconds]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Line]:
        """A connection that is gone at the end, whatever is still to be sent or read."""
        reader, writer = await patiently(asyncio.open_connection(self.site.host, self.site.port))
        line = Line(reader, writer)
        self._lines.append(line)
        try:
            yield line
        finally:
            writer.transport.abort()

    def forget(self) -> None:
        """Forget the connections that are closed."""
        self._lines = []

    def call(self) -> Known:
        return self.random.choice(self.site.calls)

    def calls(self, fewest: int, most: int) -> list[Known]:
        return self.random.choices(self.site.calls, k=self.random.randint(fewest, most))

    def batch(self) -> Known:
        return self.random.choice(self.site.batches)


async def learn(host: str, port: int, body_limit: int, traffic: Traffic) -> Site:
    """Ask everything once, in quiet, on one connection.

    Raises:
        WrongError: an answer is not even plausible.
    """
    calls = [make() for make in (traffic.instance, traffic.tensors) for _ in range(CALM_ROUNDS)]
    calls += [make() for make in (traffic.instances, traffic.columns) for _ in range(CALM_ROUNDS // 4)]
    calls += [bad for _ in range(2) for bad in traffic.bad_of_each_kind()]
    batches = [_grown(traffic.columns(), share * body_limit) for share in (0.3, 0.6, 0.9)]
    client = Client(Site(host, port, (), (), body_limit), Random())

    async def known(line: Line, asked: Request) -> Known:
        await line.send([Known(asked, b"").whole()])
        answer = await line.answer()
        if fault := traffic.fault(asked, answer.status, answer.body):
            raise WrongError(fault)
        return Known(asked, answer.body)

    async with client.connect() as line:
        return replace(
            client.site,
            calls=[await known(line, each) for each in calls],
            batches=[await known(line, each) for each in batches],
        )


# ------------------------------------------------------------------------------------------ well-behaved


async def ordinary(client: Client) -> None:
    """One request after the other."""
    async with client.connect() as line:
        for call in client.calls(1, 20):
            await line.ask(call)


async def pipeline(client: Client) -> None:
    """Many requests at once, answers in order."""
    calls = client.calls(2, 40)
    probe = request("GET", HEALTH)
    content = b"".join(call.whole() + probe for call in calls)
    async with client.connect() as line:
        await line.send(pieces_of(content, client.random.choice((100, 3000, len(content)))))
        for call in calls:
            await line.expect(call)
            if (await line.answer("GET")).status != 200:
                raise WrongError("not alive")


async def chunks(client: Client) -> None:
    """Bodies of unknown length."""
    async with client.connect() as line:
        for call in client.calls(1, 5):
            size = client.random.choice((1, 10, 100, 5000))
            extension = client.random.choice(("", ";a=b"))
            head = call.whole("Transfer-Encoding: chunked").removesuffix(call.body)
            await line.send([head, chunked(pieces_of(call.body, size), extension=extension)])
            await line.expect(call)


async def expect(client: Client) -> None:
    """Bodies that wait to be asked for, or do not."""
    async with client.connect() as line:
        for call in client.calls(1, 5):
            head = call.whole("Expect: 100-continue").removesuffix(call.body)
            await line.send([head, call.body], pause=client.random.choice((0, 0.05)))
            await line.expect(call)


async def offers(client: Client) -> None:
    """HTTP/2 offered with the first request, as Java's client does; then on as before."""
    first, *rest = client.calls(1, 5)
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    async with client.connect() as line:
        await line.send([first.whole(*offer)])
        await line.expect(first)
        for call in rest:
            await line.ask(call)


async def other_methods(client: Client) -> None:
    """HEAD, OPTIONS and what is not allowed."""
    async with client.connect() as line:
        for _ in range(client.random.randint(1, 5)):
            method = client.random.choice(("HEAD", "OPTIONS", "GET", "DELETE", "PUT"))
            path = client.random.choice((*READ_PATHS, "/predict", client.call().request.path, "/nothing"))
            await line.send([request(method, path, "Content-Length: 0")])
            await line.stays_in_step(await line.answer(method), client.call())


async def big_batches(client: Client) -> None:
    """Bodies nearly as large as is allowed."""
    async with client.connect() as line:
        for _ in range(client.random.randint(1, 3)):
            await line.ask(client.batch())
            await line.ask(client.call())


# ------------------------------------------------------------------------------------------ slow


async def slow(client: Client) -> None:
    """A few bytes every so often."""
    call = client.call()
    content = call.whole()
    async with client.connect() as line:
        size = max(1, len(content) // client.random.randint(10, 40))
        await line.send(pieces_of(content, size), pause=client.random.uniform(0.02, 0.1))
        await line.expect(call)


async def idle(client: Client) -> None:
    """Dozens of connections that do nothing, have said half of something, or wait after an answer."""
    calls = client.calls(10, 40)

    async def one(call: Known) -> None:
        head, rest = call.whole()[:30], call.whole()[30:]
        async with client.connect() as line:
            if served := client.random.random() < 0.5:
                await line.ask(call)
            if said_half := client.random.random() < 0.5:
                await line.send([head])
            await asyncio.sleep(client.random.uniform(0, LONGEST_IDLE_SECONDS))
            try:
                await line.send([rest] if said_half else [head, rest])
                await line.expect(call)
            except (ConnectionError, h11.RemoteProtocolError):
                if not served or said_half:
                    raise
                # Between two requests a service may close when it likes, and does after 5 s.

    for outcome in await asyncio.gather(*map(one, calls), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def reads_late(client: Client) -> None:
    """Asks for more than all buffers in between can hold, and takes it only later."""
    times = 1000
    async with client.connect() as line:
        await line.send([request("GET", "/model") * times], pause=client.random.uniform(0.1, 2))
        first = await line.answer("GET")
        for _ in range(times - 1):
            await asyncio.sleep(0)  # All of it may be here already, and others want to go on.
            if (await line.answer("GET")).body != first.body:
                raise WrongError("two cards")
            line.answers += 1


async def never_reads(client: Client) -> None:
    """Asks for a lot and takes nothing."""
    content = client.random.choice((client.batch().whole(), request("GET", "/") * 2000))
    async with client.connect() as line:
        await line.send([content], pause=client.random.uniform(0.1, 2))


# ------------------------------------------------------------------------------------------ rude


async def cut_short(client: Client) -> None:
    """Half a request, then the end."""
    content = client.call().whole()
    async with client.connect() as line:
        await line.send([content[: client.random.randrange(len(content))]])
        line.stop_sending()
        _no_success(await line.end())


async def leaves_early(client: Client) -> None:
    """Gone before the requests are whole, or before the answers come."""
    content = b"".join(
        client.random.choice((client.call(), client.batch())).whole()
        for _ in range(client.random.choice((1, 1, 3)))
    )
    sent = client.random.choice((client.random.randrange(len(content)), len(content)))
    async with client.connect() as line:
        if client.random.random() < 0.5:
            line.reset()
        await line.send([content[:sent]], pause=client.random.choice((0, 0, 0.01)))


async def leaves_in_the_answer(client: Client) -> None:
    """Gone when the answer has begun."""
    async with client.connect() as line:
        if client.random.random() < 0.5:
            line.reset()
        await line.send([client.random.choice((client.call(), client.batch())).whole()])
        await line.peek(client.random.choice((1, 50, 1000)))


async def over_the_limit(client: Client) -> None:
    """More than is allowed: announced, in chunks, or announced and not sent."""
    call = client.call()
    size = client.site.body_limit + client.random.choice((1, client.site.body_limit))
    path = call.request.path
    way = client.random.choice(("announced", "chunked", "expected"))
    async with client.connect() as line:
        if way == "announced":
            await line.send([post(path, b" " * size)])
        elif way == "chunked":
            body = chunked(pieces_of(b" " * size, 20_000))
            await line.send([post(path, body, "Transfer-Encoding: chunked")])
        else:
            await line.send([post(path, b"", f"Content-Length: {size}", "Expect: 100-continue")])
        answer = await line.answer()
        if answer.status != 413:
            raise WrongError(f"{answer.status} instead of 413")
        line.answers += 1
        if way != "expected":  # There the service may still wait for the body.
            await line.stays_in_step(answer, call)


async def long_headers(client: Client) -> None:
    """More to read before the body than the body is."""
    call = client.call()
    header = client.random.choice(("X: " + "x" * 30_000, "\r\n".join(["a: b"] * 3000)))
    async with client.connect() as line:
        await line.send([call.whole(header)])
        answer = await line.answer()
        if answer.status not in {400, 431}:
            call.check(answer)
        await line.stays_in_step(answer, call)


async def garbage(client: Client) -> None:
    """Bytes that are no HTTP, or nearly."""
    content = bytearray(client.call().whole())
    if client.random.random() < 0.5:
        content = bytearray(client.random.randbytes(client.random.randint(1, 2000)))
    for _ in range(client.random.randint(1, 10)):
        content[client.random.randrange(len(content))] = client.random.randrange(256)
    async with client.connect() as line:
        await line.send([bytes(content)])
        line.stop_sending()
        if re.match(rb"HTTP/1\.1 (?!501|505)5", rest := await line.end()):
            raise WrongError(f"a {rest[9:12].decode()} to garbage")


# ------------------------------------------------------------------------------------------ attacks


async def framing(client: Client) -> None:
    """A head, a chunk extension or trailers without end."""
    start, piece = client.random.choice(
        (
            ("X: ", b"x" * 65536),
            ("Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536),
            ("Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nT: ", b"x" * 65536),
            ("Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"a: b\r\n" * 10_000),
        )
    )
    async with client.connect() as line:
        await line.push([f"POST /predict HTTP/1.1\r\nHost: service\r\n{start}".encode()])
        await line.push([piece] * 2000)


async def pipelines(client: Client) -> None:
    """Megabytes of small requests at once; half of the clients read the answers."""
    content = client.random.choice((request("GET", "/"), client.call().whole()))
    async with client.connect() as line:
        reading = asyncio.create_task(line.drop()) if client.random.random() < 0.5 else None
        try:
            await line.push([content * (4 * MB // len(content))])
        finally:
            if reading:
                reading.cancel()


async def upgrades(client: Client) -> None:
    """A thousand offers of another protocol at once."""
    offer = request("GET", HEALTH, "Connection: Upgrade", "Upgrade: h2c")
    async with client.connect() as line:
        await line.push([offer * 1000, request("GET", HEALTH, "Connection: close")])
        await line.drop()


async def uploads(client: Client) -> None:
    """A body as large as is allowed, but for its last byte, until the service has had enough."""
    size = client.site.body_limit
    head, body = post("/predict", b"", f"Content-Length: {size}"), b" " * (size - 1)
    if client.random.random() < 0.5:
        head = post("/predict", b"", "Transfer-Encoding: chunked")
        body = b"%x\r\n%b" % (size, body)
    async with client.connect() as line:
        await line.push([head, body])
        await line.drop()


async def unread(client: Client) -> None:
    """Large batches, again and again, whose answers are not read."""
    async with client.connect() as line:
        await line.push([client.batch().whole()] * 100)


# ------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Scenario:
    run: Callable[[Client], Awaitable[None]]
    weight: float

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", " ")


ORDINARY = (
    Scenario(ordinary, 33),
    Scenario(pipeline, 8),
    Scenario(chunks, 8),
    Scenario(expect, 5),
    Scenario(offers, 2),
)
"""Clients that are owed their answers even while the service is attacked."""

SCENARIOS = (
    *ORDINARY,
    Scenario(other_methods, 5),
    Scenario(big_batches, 3),
    Scenario(slow, 6),
    Scenario(idle, 2),
    Scenario(reads_late, 1),
    Scenario(never_reads, 1),
    Scenario(cut_short, 5),
    Scenario(leaves_early, 6),
    Scenario(leaves_in_the_answer, 4),
    Scenario(over_the_limit, 3),
    Scenario(long_headers, 2),
    Scenario(garbage, 6),
)


@dataclass(frozen=True)
class Attack:
    """What clients do over and over, side by side."""

    run: Callable[[Client], Awaitable[None]]
    clients: int


ATTACKS = {
    each.run.__name__: each
    for each in (
        Attack(framing, 8),
        Attack(pipelines, 50),
        Attack(upgrades, 20),
        Attack(uploads, 300),
        Attack(unread, 32),
    )
}


async def attack(kind: Attack, site: Site, random: Random) -> None:
    """Attack until cancelled; the attackers are owed nothing."""

    async def again_and_again(client: Client) -> None:
        while True:
            with suppress(OSError, TimeoutError):
                await kind.run(client)
            client.forget()
            await asyncio.sleep(0.1)

    await asyncio.gather(
        *(again_and_again(Client(site, Random(random.random()))) for _ in range(kind.clients))
    )


async def attempt(scenario: Scenario, client: Client) -> str | None:
    """Run a scenario once; what went wrong, None if nothing did."""
    try:
        await scenario.run(client)
    except WrongError as error:
        return str(error)
    except TimeoutError:
        return f"stuck for {PATIENCE} s"
    except h11.RemoteProtocolError as error:
        return f"no answer ({error})"
    except OSError as error:
        return f"no answer ({error.strerror or error})"
    return None


def _grown(batch: Request, size: float) -> Request:
    """The batch repeated until its body has about this many bytes."""
    columns: dict[str, list[Any]] = orjson.loads(batch.body)["columns"]
    times = max(1, int(size / len(batch.body)))
    body = orjson.dumps({"columns": {name: values * times for name, values in columns.items()}})
    return replace(batch, about="big batch", body=body.decode(), rows=batch.rows * times)


def _no_success(received: bytes) -> None:
    if re.match(rb"HTTP/1\.1 [25]", received):
        raise WrongError(f"a {received[9:12].decode()} to half a request")
