"""Commands out, replies in, for any number of tasks on one socket, with no task of its own.

Redis answers in the order it is asked, so a deque of exchanges, oldest first, is all it takes to give every reply to
the one who asked. Who does the work is settled by leader and followers (Schmidt's pattern): of the tasks waiting for a
reply, one waits on the socket and reads for all; the others are parked. A leader that has its reply, or is cancelled,
hands on to the next. Writing is the same: the first to write while others are on their way lets the scheduler's batch
pass and then writes everybody's commands in one go. An idle wire has no task to write for it, so its first user writes
at once: used by one task, this is a send and a wait.

A cancelled caller leaves at once. If its command was never handed to the kernel it is withdrawn, as if it had never
been. Otherwise its exchange stays in the deque and swallows the reply when it comes: nobody else can receive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import hiredis
import trio
from hiredis import PushNotification
from redis._parsers import BaseParser, Encoder
from redis.exceptions import ConnectionError, InvalidResponse
from trio.lowlevel import checkpoint_if_cancelled, current_task, reschedule, wait_task_rescheduled

from ._feed import Feed
from ._transport import ClosedByServer, Transport

__all__ = ["NONE", "ONE", "ONE_RAW", "Commands", "NotSent", "Wire"]

Commands: TypeAlias = Sequence[tuple[Any, ...]]
"""What one exchange sends: a command, or a pipeline of them."""

Orphaned: TypeAlias = Callable[[Commands, "list[Any] | ConnectionError"], None]
"""Told of the replies that came after their caller had gone, or of why they never will."""

ONE: tuple[bool, ...] = (True,)  # one reply, decoded if the connection decodes
ONE_RAW: tuple[bool, ...] = (False,)  # one reply, as bytes whatever the connection does
NONE: tuple[bool, ...] = ()

_NOTHING = object()  # what the parser says when it has no complete reply; None is a reply
_BACKLOG = 1 << 20  # bytes waiting to be written beyond which callers wait before they add more
_NONSENSE = (InvalidResponse, MemoryError, TypeError)  # what the parser raises; the last for a map as a key
_LAST_MESSAGES = 10_000  # dropped when listening ends
_BATCH = 512  # commands joined into one write


class NotSent(ConnectionError):
    """The connection broke before this command was written to it, so the server has not seen it."""


class Exchange:
    """What one caller sent, and the replies it is owed."""

    settled = False  # whether all replies have come, or none will
    abandoned = False  # whether the caller has gone
    error: ConnectionError | None = None
    task: trio.lowlevel.Task | None = None  # parked, and to be woken

    def __init__(self, data: bytes, decode: Sequence[bool], commands: Commands) -> None:
        self.data: bytes | memoryview = data  # what is still to be written, while the exchange is unsent
        self.decode = decode  # one flag a reply
        self.commands = commands
        self.replies: list[Any] = []

    def unwrap(self) -> None:
        """Be what is sent to this exchange's task when it is woken, as an `outcome.Outcome` is.

        One of those would have to be made for each reply, at a tenth of the cost of a command.
        """

    def unpark(self, _: object) -> trio.lowlevel.Abort:
        """Trio cancels the parked task."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


_wake: Callable[[Any, Any], object] = reschedule  # asks only for an `unwrap` of what it sends


class Wire:
    """One socket to a Redis server, shared by whoever calls `exchange`."""

    def __init__(self, transport: Transport, encoder: Encoder, orphaned: Orphaned, max_reply_size: int) -> None:
        self._transport = transport
        self._max_reply_size = max_reply_size
        self._since_reply = 0  # bytes received, and made room for, since the last complete reply
        self._orphaned = orphaned
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            encoding=encoder.encoding if encoder.decode_responses else None,
            errors=encoder.encoding_errors,
            notEnoughData=_NOTHING,
        )
        self._feed = Feed(self._parser, max_reply_size)
        self._owed: deque[Exchange] = deque()  # in the order of their commands; the left one gets the next reply
        self._unsent: deque[Exchange] = deque()  # not written yet, or only in part; the same order
        self._torn = False  # whether the oldest of them is written in part
        self._backlog = 0  # bytes in _unsent
        self._room = trio.lowlevel.ParkingLot()  # callers kept waiting by a long backlog
        self._writer: Exchange | None = None  # whose task is writing for all
        self._reading = False  # whether a task waits for the socket to become readable
        self._heir: Exchange | None = None  # woken to take work over, and not running yet
        self._hung_up = False
        self.broken: ConnectionError | None = None

    @property
    def owes(self) -> bool:
        """Whether replies are outstanding, or commands unsent: whether an exchange is half done."""
        return bool(self._owed) or self._has_unsent

    @property
    def is_quiet(self) -> bool:
        """Whether nothing at all is under way: no exchange, no byte unread, the peer still there."""
        if self.broken is not None or self._owed or self._unsent or self._transport.unflushed:
            return False
        return not self._has_unread and self._transport.is_quiet()

    @property
    def outstanding(self) -> Iterator[Commands]:
        """The commands whose replies are owed, oldest first."""
        return (exchange.commands for exchange in self._owed)

    async def exchange(self, data: bytes, decode: Sequence[bool], commands: Commands) -> list[Any]:
        """Write `data` and wait for as many replies as `decode` has flags.

        Raises:
          NotSent: the connection was broken, or broke before any of `data` was written.
          redis.ConnectionError: it broke later; the server may have done what it was told.
        """
        exchange = Exchange(data, decode, commands)
        if self._writer is not None and self._backlog <= _BACKLOG and self.broken is None and decode:
            # Somebody is about to write. The same as `_enqueue`, without the call: many tasks spend their time here.
            self._owed.append(exchange)
            self._unsent.append(exchange)
            self._backlog += len(data)
        elif self._owed or self._unsent:
            await self._join(exchange)
        else:
            await checkpoint_if_cancelled()
            self._write_alone(exchange)
        try:
            while not exchange.settled:
                if self._writer is None and self._has_unsent:
                    await self._write_patiently(exchange)
                elif self._reading:
                    # Park until the reply is here, or there is work to take over.
                    exchange.task = current_task()
                    await wait_task_rescheduled(exchange.unpark)
                    if self._heir is exchange:
                        self._heir = None
                else:
                    await self._read()
        finally:
            if not exchange.settled:
                self._abandon(exchange)
            if (self._owed and not self._reading) or (self._unsent and self._writer is None):
                self._hand_over()
        if exchange.error is not None:
            raise exchange.error
        return exchange.replies

    async def _join(self, exchange: Exchange) -> None:
        """Have `exchange` written with those of others, as soon as there is room for it."""
        if not self._unsent:
            await checkpoint_if_cancelled()  # others are only written after they have waited
        if self._backlog > _BACKLOG:
            await self._wait_for_room(exchange)
        if self.broken is not None:
            raise NotSent(*self.broken.args) from self.broken
        self._enqueue(exchange)
        self._make_room()
        if self._writer is None:
            await self._write_batch(exchange)

    def _enqueue(self, exchange: Exchange) -> None:
        if exchange.decode:
            self._owed.append(exchange)
        else:
            exchange.settled = True
        self._unsent.append(exchange)
        self._backlog += len(exchange.data)

    def send(self, data: bytes) -> None:
        """Write a command that gets no reply of its own, as far as the socket has room. `flush` writes the rest."""
        if self.broken is not None:
            raise NotSent(*self.broken.args) from self.broken
        self._enqueue(Exchange(data, NONE, ()))
        self._write()

    async def flush(self) -> None:
        """Wait until everything is written. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.broken is None and self._has_unsent:
            await self._transport.wait_writable()
            self._write()
        self._raise_if_broken()

    async def receive(self) -> Any:
        """Wait for whatever the server says next, push messages included. Only while no reply is owed."""
        await checkpoint_if_cancelled()
        message = self._next_message()
        if message is not _NOTHING:
            await trio.lowlevel.cancel_shielded_checkpoint()
        while message is _NOTHING:
            await self._transport.wait_readable()
            message = self._next_message()
        return message

    def receive_nowait(self) -> Any:
        """What the server has said already; None if nothing."""
        message = self._next_message()
        return None if message is _NOTHING else message

    def _next_message(self) -> Any:
        assert not self._owed, "bug: messages are read while replies are owed"
        message = self._parse(decode=True)
        if message is _NOTHING:
            self._fill()
            message = self._parse(decode=True)
        if message is _NOTHING:
            self._raise_if_broken()
        return message

    async def listen_until(self, data: bytes, answers: list[Any]) -> None:
        """Write `data`, and drop what comes until one of its `answers`: the end of listening.

        Raises:
          redis.ConnectionError: the connection is broken, or too many messages come before the answer.
        """
        self.send(data)
        await self.flush()
        for _ in range(_LAST_MESSAGES):
            if await self.receive() in answers:
                return
        raise ConnectionError("too many messages to somebody who no longer listens")

    async def settle(self, limit: int) -> None:
        """Receive and drop every reply still owed, and whatever was pushed.

        Raises:
          redis.ConnectionError: the connection is broken, or more than `limit` bytes came and still not all.
        """
        await self.flush()
        while True:
            limit -= self._receive()
            self._raise_if_broken()
            if not self._owed:
                return self._drop_pushed()
            if limit < 0:
                raise ConnectionError("too much to read of replies that nobody waits for")
            await self._transport.wait_readable()

    def _drop_pushed(self) -> None:
        while (message := self._parse(decode=True)) is not _NOTHING:
            if not isinstance(message, PushNotification):
                raise ConnectionError("the server said something that was not asked for")

    async def hang_up(self) -> None:
        """Stop writing, and listen until the server has closed the connection too.

        Redis lets go of a blocked client that hangs up. If it had answered before, the answer arrives first; so if the
        end comes without, nothing was done.
        """
        self._transport.shut_writing()
        self._hung_up = True
        while self.broken is None:
            await self._transport.wait_readable()
            self._receive()

    def close(self) -> None:
        """Free the socket, and fail everybody who still waits. May be called twice."""
        self._break(ConnectionError("the connection has been closed"))

    @property
    def _has_unsent(self) -> bool:
        return bool(self._unsent) or self._transport.unflushed

    @property
    def _has_unread(self) -> bool:
        return bool(self._feed.pending or self._parser.has_data())

    def _raise_if_broken(self) -> None:
        if self.broken is not None:
            raise ConnectionError(*self.broken.args) from self.broken

    # Waiting. Exactly one of: write for all, read for all, park.

    async def _wait_for_room(self, exchange: Exchange) -> None:
        """Let the backlog shrink before more is added to it. Write it oneself, if whoever did has gone."""
        try:
            while self._backlog > _BACKLOG:
                if self._writer is None:
                    await self._write_patiently(exchange)
                else:
                    await self._room.park()
        except trio.Cancelled:
            self._hand_over()
            raise

    async def _read(self) -> None:
        """Be the leader for one turn: wait for the socket, then give out what came."""
        self._reading = True
        try:
            await self._transport.watch.wait_readable()
        except trio.ClosedResourceError:
            pass  # nudged: look again
        finally:
            self._reading = False
        self._receive()

    async def _write_batch(self, exchange: Exchange) -> None:
        """Let every task that is about to write in this batch of the scheduler do so, then write for all."""
        self._writer = exchange
        try:
            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._writer = None
        self._write()

    async def _write_patiently(self, exchange: Exchange) -> None:
        """Write for all once the socket has room."""
        self._writer = exchange
        try:
            self._hand_over()  # somebody else has to read meanwhile
            await self._transport.wait_writable()
        finally:
            self._writer = None
        self._write()

    def _hand_over(self) -> None:
        """See that somebody reads if replies are owed, and that somebody writes what is unsent."""
        writer_wanted = self._writer is None and self._has_unsent
        reader_wanted = not self._reading and self._owed
        if self._heir is not None or not (writer_wanted or reader_wanted):
            return
        self._heir = next((exchange for exchange in self._owed if exchange.task is not None), None)
        if self._heir is not None:
            assert self._heir.task is not None
            _wake(self._heir.task, self._heir)
            self._heir.task = None
        elif writer_wanted and self._room:
            self._room.unpark()
        elif writer_wanted and self._reading:
            self._transport.nudge()  # nobody but the reader is left: it writes first

    def _abandon(self, exchange: Exchange) -> None:
        """Its caller goes: withdraw it if the kernel has nothing of it yet, else let it swallow its replies."""
        exchange.abandoned = True
        if exchange in self._unsent and not self._is_started(exchange):
            self._owed.remove(exchange)
            self._unsent.remove(exchange)
            self._unload(len(exchange.data))

    def _is_started(self, unsent: Exchange) -> bool:
        return self._torn and unsent is self._unsent[0]

    def _unload(self, count: int) -> None:
        self._backlog -= count
        self._make_room()

    def _make_room(self) -> None:
        """Let in one of those who wait for room; once it has added its own, it lets in the next if there still is."""
        if self._room and self._backlog <= _BACKLOG:
            self._room.unpark()

    # Bytes.

    def _write_alone(self, exchange: Exchange) -> None:
        """What `_enqueue` and `_write` would do if there is nothing else, at a third of their cost."""
        if self.broken is not None:
            raise NotSent(*self.broken.args) from self.broken
        try:
            sent = self._transport.send(exchange.data)
        except ConnectionError as error:
            self._enqueue(exchange)
            self._break(error)
            return
        if sent == len(exchange.data) and exchange.decode:
            self._owed.append(exchange)
        else:
            self._enqueue(exchange)
            self._account(sent)

    def _write(self) -> None:
        """Write as much as the socket takes without waiting."""
        try:
            self._transport.flush()
            while self._unsent:
                sent = self._transport.send(self._next_data())
                if not sent:
                    return
                self._account(sent)
        except ConnectionError as error:
            self._break(error)

    def _next_data(self) -> bytes | memoryview:
        if len(self._unsent) == 1:
            return self._unsent[0].data
        return b"".join([exchange.data for exchange in islice(self._unsent, _BATCH)])

    def _account(self, sent: int) -> None:
        """Cross `sent` bytes off the oldest of the unsent."""
        everything = sent == self._backlog
        self._unload(sent)
        if everything:
            self._unsent.clear()
            self._torn = False
            return
        while sent >= len(self._unsent[0].data):
            sent -= len(self._unsent.popleft().data)
            self._torn = False
        if sent:
            self._unsent[0].data = memoryview(self._unsent[0].data)[sent:]
            self._torn = True

    def _receive(self) -> int:
        """Take what has arrived and give it out. Says how many bytes that was."""
        count = self._fill()
        if count:
            self._give_out()
        return count

    def _fill(self) -> int:
        if self.broken is not None:
            return 0
        try:
            data = self._transport.receive()
        except ConnectionError as error:
            self._break(error)
            return 0
        if data is None:
            return 0
        self._since_reply += len(data)
        if self._since_reply > self._max_reply_size:
            self._break(ConnectionError(f"a reply is longer than max_reply_size ({self._max_reply_size} bytes)"))
            return 0
        received = data.tobytes()
        # The bytes that headers of several elements begin with.
        if self._feed.pending or 42 in received or 62 in received or 124 in received or 126 in received:
            self._feed.add(received)
        else:
            self._parser.feed(received)
            self._feed.last = received[-1]
        return len(received)

    def _feed_on(self) -> bool:
        """Let the parser, which has read what it was given, have more of what has arrived. False if there is none."""
        try:
            room = self._feed.step(self._since_reply)
        except ConnectionError as error:
            self._break(error)
            return False
        self._since_reply += room or 0
        return room is not None

    def _parse(self, decode: bool) -> Any:
        try:
            reply = self._parser.gets(decode)
            while reply is _NOTHING and self._feed.pending and self._feed_on():
                reply = self._parser.gets(decode)
        except UnicodeDecodeError as error:
            reply = error  # this one reply is not text; the next one is not affected
        except _NONSENSE as error:
            self._break_as_nonsense(error)
            return _NOTHING
        if reply is not _NOTHING:
            self._since_reply = 0
        return reply

    def _break_as_nonsense(self, error: Exception) -> None:
        said = str(error) or "it announces a reply that fits no memory"
        self._break(ConnectionError(f"the server does not speak Redis: {said}"))

    def _give_out(self) -> None:
        """Give each complete reply to the oldest exchange. Push messages are nobody's reply."""
        owed = self._owed
        gets = self._parser.gets
        while owed:
            exchange = owed[0]
            decode = exchange.decode
            replies = exchange.replies
            try:
                reply = gets(decode[len(replies)])
            except UnicodeDecodeError as error:
                reply = error  # this one reply is not text; the next one is not affected
            except _NONSENSE as error:
                self._break_as_nonsense(error)
                return
            if reply is _NOTHING:
                if self._feed.pending and self._feed_on():
                    continue
                return
            if type(reply) is PushNotification:
                continue  # and still no reply
            self._since_reply = 0
            replies.append(reply)
            if len(replies) == len(decode):
                owed.popleft()
                exchange.settled = True
                if exchange.task is not None:
                    _wake(exchange.task, exchange)
                    exchange.task = None
                else:
                    self._settled_unparked(exchange)

    def _settled_unparked(self, exchange: Exchange) -> None:
        """Its caller is reading now, or writing for others, or gone."""
        if exchange.abandoned and exchange.commands:
            self._orphaned(exchange.commands, exchange.error or exchange.replies)
        elif exchange is self._writer:
            self._transport.nudge()

    def _break(self, error: ConnectionError) -> None:
        """The connection is of no more use: tell everybody who waits on it."""
        if self.broken is not None:
            return
        self.broken = error
        self._transport.close()
        if self._hung_up and isinstance(error, ClosedByServer) and not self._has_unread:
            self._owed.clear()  # none of it was done
        unsent = set(self._unsent)
        if self._torn:
            unsent.remove(self._unsent[0])
        self._unsent.clear()
        self._backlog = 0
        self._room.unpark_all()
        while self._owed:
            exchange = self._owed.popleft()
            exchange.error = (NotSent if exchange in unsent else type(error))(*error.args)
            exchange.error.__cause__ = error
            exchange.settled = True
            if exchange.task is not None:
                _wake(exchange.task, exchange)
                exchange.task = None
            else:
                self._settled_unparked(exchange)
