"""The service's connections without a network: bytes in, bytes out."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from app.connection import Connection, Outbox
from app.main import Application


class Transport(asyncio.Transport):
    """The far end of a connection: what was written, in which pieces, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 80)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Line:
    """A connection of an application to a transport; to be made where an event loop runs."""

    def __init__(self, app: Application) -> None:
        config = uvicorn.Config(app, lifespan="off", log_config=None, server_header=False, date_header=False)
        config.load()
        self.state = ServerState()
        self.transport = Transport()
        self.connection = Connection(
            app,
            Outbox(),
            config=config,
            server_state=self.state,
            app_state={},
            _loop=asyncio.get_running_loop(),
        )
        self.connection.connection_made(cast(asyncio.Transport, self.transport))

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def settle(self) -> bytes:
        """All that was written when nothing is left to do."""
        while self.state.tasks:
            await asyncio.gather(*self.state.tasks)
        # The turn in which the answers leave.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return b"".join(self.transport.writes)


async def answer_on_the_wire(app: Application, request: bytes) -> bytes:
    """The response to one request."""
    line = Line(app)
    line.send(request)
    response = await line.settle()
    line.connection.connection_lost(None)
    return response
