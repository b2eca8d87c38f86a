"""One connection to a Redis server, with redis-py's commands on it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Self

import trio
from redis.exceptions import ConnectionError, TimeoutError

from ._commands import Packer, RedisCommands
from ._session import Session, blocks, command_name, is_noted, takes
from ._settings import Settings
from ._transport import Transport, connect
from ._wire import Commands, Orphaned, Wire

__all__ = ["Connection"]

logger = logging.getLogger("respool.redis")

_RESET_LIMIT = 1 << 20  # bytes of replies to nobody that are read before a new connection is cheaper


def log_orphans(commands: Commands, outcome: list[Any] | ConnectionError) -> None:
    """Warn of what a cancelled command took from the server and nobody received. Names no key and no value."""
    for number, args in enumerate(commands):
        if not takes(args):
            continue
        if isinstance(outcome, ConnectionError):
            logger.warning("a cancelled %s may have taken something: %s", command_name(args), outcome)
        elif outcome[number] and not isinstance(outcome[number], Exception):
            logger.warning("a cancelled %s had already taken something, which is lost", command_name(args))


class Connection(RedisCommands):
    """A connection to Redis: every redis-py command, and the state that belongs to one connection.

    Any number of tasks may call commands at the same time. They are written together, and each gets its own reply; but
    what one does to the session (``SELECT``, ``WATCH``, a blocking command) is felt by all.

    Cancelled while it waits, a command's caller leaves at once. Its reply is dropped when it comes, before anybody
    else's is believed. If it took something from the server (``BLPOP``), whoever opened the connection is told.
    """

    def __init__(self, settings: Settings, transport: Transport, orphaned: Orphaned = log_orphans) -> None:
        super().__init__(settings)
        self._default_callbacks = self.response_callbacks
        self.encoder = settings.get_encoder()
        self._packer = Packer(self.encoder)
        self._orphaned = orphaned
        self._wire = self._new_wire(transport)
        self._session = Session(settings.db)

    @classmethod
    async def open(cls, settings: Settings, orphaned: Orphaned = log_orphans) -> Self:
        """Connect, authenticate and select the database: one round trip after the transport's own.

        Raises:
          redis.AuthenticationError: wrong user name or password.
          redis.ResponseError: the server does not accept a setting, like a database number.
          redis.ConnectionError: the server cannot be reached, is loading, or has too many clients.
        """
        connection = cls(settings, await connect(settings), orphaned)
        try:
            await connection._start_session()
        except BaseException:
            connection.close_now()
            raise
        return connection

    def _new_wire(self, transport: Transport) -> Wire:
        return Wire(transport, self.encoder, self._orphaned, self.connection_pool.max_reply_size)

    def __repr__(self) -> str:
        state = "closed" if self._wire.broken else "open"
        return f"<{type(self).__name__} to {self.connection_pool.where}/{self.connection_pool.db}, {state}>"

    @property
    def is_broken(self) -> bool:
        """Whether the connection is closed or has failed, so that no command can be sent any more."""
        return self._wire.broken is not None

    @property
    def is_usable(self) -> bool:
        """Whether commands can be sent: not broken, and if nothing is under way the peer has not gone either."""
        return not self.is_broken and (self._wire.owes or self._wire.is_quiet)

    @property
    def is_clean(self) -> bool:
        """Whether no exchange is half done, the session is as it was opened, the peer is there and has said nothing."""
        return self._session.is_fresh and self._wire.is_quiet and self.response_callbacks is self._default_callbacks

    async def make_clean(self) -> None:
        """Make the connection clean: read the replies nobody has waited for, put the session back.

        A connection blocked by a command whose caller has gone hangs up and connects again, which is the only way to
        take the command back, and to know whether it had taken something.

        Raises:
          redis.ConnectionError: it cannot be cleaned, or is owed so much that a new connection is cheaper.
        """
        if any(blocks(args) for commands in self._wire.outstanding for args in commands):
            await self._wire.hang_up()
            self._wire = self._new_wire(await connect(self.connection_pool))
            await self._start_session()
        elif self._session.listening:
            await self._wire.listen_until(self._packer.pack(("RESET",)), [b"RESET", "RESET"])
            await self._start_session()
        await self._wire.settle(_RESET_LIMIT)
        if not self._session.is_fresh:
            speak = [("CLIENT", "REPLY", "ON")] if self._session.is_silent else []  # RESET's own reply would be skipped
            await self._start_session(*speak, ("RESET",))
        self.response_callbacks = self._default_callbacks

    def close_now(self) -> None:
        """Free the socket at once. May be called twice."""
        self._wire.close()

    async def aclose(self) -> None:
        """The same as `close_now`: Redis has no farewell to wait for."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    # For pub/sub and MONITOR, where what the server sends is not in reply to anything.

    async def send_command(self, *args: Any) -> None:
        """Send a command that makes the server send messages from now on. They come from `read_response`."""
        self._session.listen()
        self._wire.send(self._packer.pack(args))
        await self._wire.flush()

    async def read_response(self) -> Any:
        """Wait for the next message."""
        return self._message(await self._wire.receive())

    def read_response_nowait(self) -> Any:
        """The next message if one has arrived; otherwise None."""
        return self._message(self._wire.receive_nowait())

    @staticmethod
    def _message(message: Any) -> Any:
        if isinstance(message, Exception):
            raise message
        return message

    # What the command classes ask for.

    def _exchange(self, commands: Commands, decode: Sequence[bool]) -> Awaitable[list[Any]]:
        noted = is_noted(commands[0][0]) or (len(commands) > 1 and any(is_noted(args[0]) for args in commands))
        if noted or self._session.is_silent:
            return self._exchange_noted(commands, decode)
        return self._exchange_unnoted(commands, decode)

    async def _exchange_noted(self, commands: Commands, decode: Sequence[bool]) -> list[Any]:
        """Follow what `commands` do to the session. Some may not be answered: None stands for their replies."""
        answered = [self._session.note(args) for args in commands]
        decode = [flag for flag, answer in zip(decode, answered, strict=True) if answer]
        replies = await self._exchange_unnoted(commands, decode)
        if not decode:
            await self._wire.flush()
        remaining = iter(replies)
        return [next(remaining) if answer else None for answer in answered]

    def _exchange_unnoted(self, commands: Commands, decode: Sequence[bool]) -> Awaitable[list[Any]]:
        """The same for commands that leave the session as it is."""
        data = self._packer.pack_all(commands)
        timeout = self.connection_pool.socket_timeout
        if timeout is None:
            return self._wire.exchange(data, decode, commands)
        return self._exchange_within(timeout, data, decode, commands)

    async def _exchange_within(
        self, timeout: float, data: bytes, decode: Sequence[bool], commands: Commands
    ) -> list[Any]:
        with trio.move_on_after(timeout):
            return await self._wire.exchange(data, decode, commands)
        raise TimeoutError(f"Timeout reading from {self.connection_pool.where}: no reply within {timeout} s")

    def _own_connection(self) -> AbstractAsyncContextManager[Connection]:
        return nullcontext(self)

    async def _start_session(self, *first: tuple[Any, ...]) -> None:
        """Send everything a fresh session needs in one write, after the commands in `first`."""
        credentials = await self.connection_pool.credentials()
        required, optional = _handshake(self.connection_pool, credentials)
        commands = [*first, *required, *optional]
        # Not telling what the commands are: if this is cancelled, nobody is told of a password with them.
        replies = await self._wire.exchange(self._packer.pack_all(commands), [True] * len(commands), ())
        for position, reply in enumerate(replies):
            needed = position < len(first) + len(required)
            if isinstance(reply, Exception) and (needed or isinstance(reply, ConnectionError)):
                raise _discreet(reply, credentials)
        self._session = Session(self.connection_pool.db)


def _handshake(settings: Settings, credentials: tuple[str, ...]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The commands that must succeed, and those that may be refused, unless with a `redis.ConnectionError`."""
    required: list[tuple[Any, ...]] = []
    if settings.protocol == 2:
        required += [("AUTH", *credentials)] if credentials else []
        required += [("CLIENT", "SETNAME", settings.client_name)] if settings.client_name else []
    else:
        user = () if not credentials else ("AUTH", *(("default",) if len(credentials) == 1 else ()), *credentials)
        name = ("SETNAME", settings.client_name) if settings.client_name else ()
        required.append(("HELLO", 3, *user, *name))
    if settings.db:
        required.append(("SELECT", settings.db))
    return required, [*_introduction(settings), ("PING",)]  # which a server that is loading refuses


def _discreet(refusal: Exception, credentials: tuple[str, ...]) -> Exception:
    """What the server said, without the password, which one that does not know HELLO or AUTH repeats, or begins to."""
    text, _, repeated = str(refusal).partition(", with args beginning with")
    said = text.replace(credentials[-1], "...") if credentials and credentials[-1] else text
    return refusal if said == text and not repeated else type(refusal)(said)


def _introduction(settings: Settings) -> list[tuple[Any, ...]]:
    driver = settings.driver_info
    if driver is None:
        return []
    said = {"LIB-NAME": driver.formatted_name, "LIB-VER": driver.lib_version}
    return [("CLIENT", "SETINFO", name, value) for name, value in said.items() if value]
