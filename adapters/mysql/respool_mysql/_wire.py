"""PyMySQL's connection, reading packets from the buffer that they arrived in instead of one header at a time.

`Wire` is `pymysql.connections.Connection`: its handshake, its authentication, its commands and its errors. What is
replaced is what costs time, or what would block:

* packets are parsed where `Socket` buffered them, and results by `Result`;
* files for ``LOAD DATA LOCAL`` are read through Trio;
* and it always knows how much of a reply is still to come, so that nobody takes an old answer for a new one.

Everything here is synchronous. It runs in a connection's greenlet; or, as far as it needs nothing that has not arrived,
outside (`Wire.take_result`).
"""

from __future__ import annotations

import contextlib
import copy
import socket
import struct
from collections.abc import Sequence
from typing import Any

import trio
from pymysql import connections, converters, err
from pymysql.connections import MAX_PACKET_LEN
from pymysql.constants import COMMAND, CR, ER, SERVER_STATUS
from pymysql.cursors import Cursor
from pymysql.protocol import OKPacketWrapper

from ._results import UNREADABLE, Packet, Result, Shape, header_at, malformed
from ._socket import NotHereError, Socket, TLSContext, wait

IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS | 8192  # 8192: in a READ ONLY transaction
WATCHED = IN_TRANSACTION | SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
MAX_SHAPES = 256  # result shapes remembered per connection; a program that makes more starts over
MAX_RESULT_SIZE = 1 << 30  # bytes of a result that is read whole

# PyMySQL has no names for these.
COM_RESET_CONNECTION = 31
CR_NET_PACKET_TOO_LARGE = 2020

SHORT = 1 << 16  # bytes of a query that may be copied without a thought

_command = struct.Struct("<IB").pack
_COM_QUERY = COMMAND.COM_QUERY
_escape_int = converters.escape_int


_CLEAR_PLUGINS = (b"mysql_clear_password", b"dialog")


class AbandonedError(Exception):
    """A command that must not be sent any more, because the task that wanted it has been cancelled."""


class Wire(connections.Connection):
    """PyMySQL's connection over a `Socket`. Construct it with ``defer_connect=True``; `copy` it, then `connect`."""

    _sock: Any
    _result: Any
    _next_seq_id: int
    _current_timeout: float | None

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, defer_connect=True)
        self.server_status = 0
        self.shapes: dict[bytes, Shape] = {}
        self.expected: Shape | None = None  # of `shapes`, what the last result had
        self.address: tuple[str, int] | None = None  # where to connect, if that is not for `host` to say
        self.max_result_size = MAX_RESULT_SIZE
        self.killers = trio.CapacityLimiter(1)  # shared by all copies: connections open only to send KILL QUERY

    @property
    def name(self) -> str:
        """``host:port/database``."""
        database = self.db.decode(self.encoding) if isinstance(self.db, bytes) else self.db or ""
        return f"{self.unix_socket or f'{self.host}:{self.port}'}/{database}"

    def copy(self) -> Wire:
        """Return another unconnected one with the same settings, files and certificates already read."""
        twin = copy.copy(self)
        twin._sock = twin._rfile = twin._result = None
        twin.encoders, twin.decoders = dict(self.encoders), dict(self.decoders)
        twin.shapes, twin.expected = {}, None
        twin._reply_pending = twin._status_unknown = twin._sending_file = False
        twin.forbidden = twin.moved = twin.used = False
        return twin

    # -- Opening ------------------------------------------------------------------------------------------------

    def _create_ssl_ctx(self, sslp: Any) -> TLSContext:
        return TLSContext(super()._create_ssl_ctx(sslp))

    def connect(self, sock: Any = None) -> None:
        """Connect, authenticate, and prepare the session as PyMySQL does."""
        if self.unix_socket:
            self.host_info, self._secure = "Localhost via UNIX socket", True
        else:
            self.host_info = f"socket {self.host}:{self.port}"
        try:
            super().connect(sock or wait(open_socket, self))
        except UNREADABLE as exc:
            raise malformed(exc) from exc
        self.home = (self.charset, self.collation, self.db)
        self.home_status = self.server_status & WATCHED
        self.moved = self.used = False

    def _process_auth(self, plugin_name: bytes, auth_packet: Any, handler: Any = None) -> Any:
        """Answer the server's wish to sign in by another plugin, which whoever stands between may have forged."""
        if plugin_name in _CLEAR_PLUGINS and handler is None and not self._secure:
            raise err.OperationalError(
                CR.CR_AUTH_PLUGIN_CANNOT_LOAD,
                f"the server asks for the password as it is ({plugin_name.decode()}), which everybody on the way could "
                "read: use TLS or a Unix socket, or allow it with auth_plugin_map",
            )
        return super()._process_auth(plugin_name, auth_packet, handler)

    def cursor(self, cursor: None = None) -> Cursor:
        """Make one for PyMySQL's own use in `connect`."""
        return Cursor(self)

    # -- Packets ------------------------------------------------------------------------------------------------

    def need(self, size: int) -> Socket:
        """Return the socket when `size` unused bytes are in its buffer."""
        sock = self._sock
        if len(sock.data) - sock.at < size:
            if size > self.max_result_size:
                raise self.too_long("its column definitions, or one row, are longer")
            try:
                sock.need(size)
            except (EOFError, OSError) as exc:
                raise self.lost(exc) from exc
        return sock

    def lost(self, error: OSError | EOFError) -> Exception:
        """Close, and return what PyMySQL would raise for `error`; if it was closed already, what Trio would."""
        if self._sock is None:
            return trio.ClosedResourceError("another task has closed this MySQL connection")
        sending = self._sock.sending
        self._force_close()
        if sending:
            return err.OperationalError(CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})")
        reason = "" if isinstance(error, EOFError) else f" ({error})"
        return err.OperationalError(CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query{reason}")

    def too_long(self, advice: str) -> err.OperationalError:
        """Close, because nobody would want to read the rest, and return what to raise."""
        self._force_close()
        text = f"The reply is longer than max_result_size ({self.max_result_size} bytes): {advice}"
        return err.OperationalError(CR_NET_PACKET_TOO_LARGE, text)

    def _read_payload(self) -> bytes:
        payload = self._read_piece()
        if len(payload) < MAX_PACKET_LEN:
            return payload
        pieces = [payload]
        while len(pieces[-1]) == MAX_PACKET_LEN:
            if len(pieces) * MAX_PACKET_LEN > self.max_result_size:
                raise self.too_long("one row is longer")
            pieces.append(self._read_piece())
        return b"".join(pieces)

    def _read_piece(self) -> bytes:
        """Read one packet, which is all of a payload unless it has the greatest length a packet may have."""
        sock = self.need(4)
        (header,) = header_at(sock.data, sock.at)
        size, sequence = header & 0xFFFFFF, header >> 24
        if sequence != self._next_seq_id:
            self._force_close()
            if sequence == 0:  # an error nobody asked about: the server is closing the connection
                raise err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
            raise err.InternalError(f"Packet sequence number wrong - got {sequence} expected {self._next_seq_id}")
        start = self.need(size + 4).at + 4
        payload = sock.data[start : start + size]
        sock.at = start + size
        self._next_seq_id = (sequence + 1) & 0xFF
        return payload

    def _read_packet(self, packet_type: Any = Packet) -> Any:
        payload = self._read_payload()
        if packet_type is not Packet and self._sock.received > self._result.most_received:
            raise self.too_long("its column definitions are longer")
        if not payload:
            raise malformed("it is empty")
        if payload[0] == 0xFF:
            self._reply_pending = False
            self._status_unknown = True  # an error carries no status, and may have come after a BEGIN in a procedure
            if self._result is not None:
                self._result.unbuffered_active = False
        try:
            if payload[0] == 0xFF:
                err.raise_mysql_exception(payload)
            return packet_type(payload, self.encoding)
        except UNREADABLE as exc:
            raise malformed(exc) from exc

    def _write_bytes(self, data: bytes) -> None:
        if self.forbidden:
            raise AbandonedError
        self._reply_pending = True
        super()._write_bytes(data)

    def peek_head(self) -> bytes:
        """Return all that comes before the rows of the next result, but the last four bytes, which are its own.

        It stays in the buffer. Nothing is returned if that is no result with up to 250 columns, and less than all if
        one of the packets is an error.
        """
        sock = self.need(5)
        data, at = sock.data, sock.at
        columns = data[at + 4]
        if not (0 < columns < 251 and data.startswith(b"\1\0\0", at)):
            return b""
        size = 5
        for _ in range(columns + 1):  # and an EOF packet
            if len(data) < at + size + 5:
                sock = self.need(size + 5)
                data, at = sock.data, sock.at
            (header,) = header_at(data, at + size)
            failed = data[at + size + 4] == 0xFF
            size += 4 + (header & 0xFFFFFF)
            if failed:
                break
        sock = self.need(size)
        return sock.data[sock.at : sock.at + size - 4]

    def remember(self, shape: Shape) -> None:
        """Keep `shape` for the next result that begins with the same bytes."""
        if len(self.shapes) >= MAX_SHAPES:
            self.shapes.clear()
        self.shapes[shape.head] = self.expected = shape

    def has_packet(self) -> bool:
        """Whether the next packet has arrived whole."""
        sock = self._sock
        return bool(sock.unused >= 4 + int.from_bytes(sock.data[sock.at : sock.at + 3], "little"))

    # -- Commands and replies -----------------------------------------------------------------------------------

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        super()._execute_command(command, sql)
        if command != COMMAND.COM_PING:
            self.used = True

    def _read_query_result(self, unbuffered: bool = False) -> int:
        self._reply_pending = True
        return self.finish_result(unbuffered)

    def finish_result(self, unbuffered: bool) -> int:
        """Read what is left to read of the reply to a query; return how many rows were returned or changed."""
        if self._reply_pending:
            self._result = Result()
            self._result.begin(self)
        result = self._result
        if result.unbuffered_active and not unbuffered:
            result.read_all()
        self._affected_rows: int = result.affected_rows
        return self._affected_rows

    def escape(self, obj: object, mapping: Any = None) -> str:
        """Turn a value into SQL text. Those that are most frequent, in fewer steps than PyMySQL."""
        if type(obj) is str:
            return f"'{self._escape_string(obj)}'"
        if mapping is None and self.encoders.get(type(obj)) is _escape_int:
            return str(obj)
        return str(super().escape(obj, mapping))

    def bind(self, query: str, args: Sequence[Any]) -> str:
        """Put `args` into a query, as PyMySQL's cursors do, in fewer steps."""
        texts = []
        for arg in args:
            texts.append(self.escape(arg))  # noqa: PERF401  a comprehension is a call, and there are few arguments
        try:
            return query % tuple(texts)
        except TypeError as exc:
            raise err.ProgrammingError(str(exc)) from exc

    # A query outside the greenlet, for `Connection.exchange`

    def begin_query(self, sql: bytes) -> bytes | None:
        """Get ready for the reply to `sql`; return the packet to send. None if it is not so simple."""
        result = self._result
        if self._sock is None or len(sql) >= SHORT or (result is not None and result.has_next):
            return None
        self._result = None
        self._next_seq_id = 1
        self._reply_pending = self.used = True
        return _command(len(sql) + 1, _COM_QUERY) + sql

    def take_result(self, unbuffered: bool) -> bool:
        """Read the reply to a query if it is here; whether it was. The rest is left to `finish_result`."""
        sock = self._sock
        at = sock.at
        sock.may_wait = False
        self._result = result = Result()
        try:
            result.begin(self)
            if result.unbuffered_active and not unbuffered:
                result.read_all()
        except NotHereError:
            if self._reply_pending:
                sock.at, self._next_seq_id, self._result = at, 1, None
            return False
        finally:
            sock.may_wait = True
        self._affected_rows = result.affected_rows
        return True

    def _read_ok_packet(self) -> OKPacketWrapper:
        ok = super()._read_ok_packet()
        self.end_reply(ok.server_status)
        return ok

    def end_reply(self, status: int) -> None:
        """Note that a command has been answered in full, and believe the status flags of the answer."""
        self._reply_pending = False
        self.server_status = status
        self._status_unknown = False

    def show_warnings(self) -> tuple[tuple[Any, ...], ...]:
        """Send ``SHOW WARNINGS`` and return its rows."""
        self.query("SHOW WARNINGS")
        return self._result.rows

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Send ``SET NAMES``."""
        super().set_character_set(charset, collation)
        self._reply_pending = False
        self.shapes.clear()
        self.expected = None
        self.moved = True

    def select_db(self, db: str | bytes) -> None:
        """Change the current database."""
        super().select_db(db)
        self.db = db
        self.moved = True

    def send_file(self, filename: bytes) -> OSError | None:
        """Send a local file's contents; return the error if it cannot be read."""
        self._sending_file = True
        size = min(self.max_allowed_packet, 16 * 1024)
        failure = None
        try:
            file = wait(_open_file, filename)
            with contextlib.closing(file.wrapped):
                while chunk := wait(file.read, 64 * size):
                    for start in range(0, len(chunk), size):
                        self.write_packet(chunk[start : start + size])
        except OSError as exc:
            failure = exc
        self._sending_file = False
        return failure

    # -- What state it is in ------------------------------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        """Whether an unbuffered result has rows left to read."""
        return self._result is not None and self._result.unbuffered_active

    @property
    def unread(self) -> bool:
        """Whether the server has more to say about the last command."""
        result = self._result
        return self._reply_pending or (result is not None and bool(result.unbuffered_active or result.has_next))

    @property
    def mid_sentence(self) -> bool:
        """Whether the server is in the middle of receiving something, and would take all else for the rest of it."""
        return self._sending_file or (self._sock is not None and self._sock.sending)

    # -- Putting it in order ------------------------------------------------------------------------------------

    def finish_reply(self) -> None:
        """Read the rest of the last command's results, keeping nothing; errors the server sends are ends as well."""
        while self.unread:
            try:
                if self.streaming:
                    self._result.throw_away()
                else:
                    self.next_result(unbuffered=True)
            except err.MySQLError:
                if self._sock is None:
                    raise

    def settle(self) -> None:
        """Make sure that a KILL QUERY the server has accepted cannot hit anything later."""
        for _ in range(2):
            try:
                self.query("DO SLEEP(0)")
            except err.OperationalError as exc:
                if exc.args[0] != ER.QUERY_INTERRUPTED:
                    raise

    def tidy(self, reset_session: bool) -> None:
        """Undo what the last borrower left in the session, asking the server at least once whether it is there."""
        autocommit = bool(self.home_status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT)
        charset, collation, db = self.home
        if reset_session and self.used:
            self._reset_session()
        elif self._status_unknown or self.server_status & IN_TRANSACTION:
            self.rollback()
        elif not self.moved:
            self.ping()
        if self.moved and (self.charset, self.collation) != (charset, collation):
            self.set_character_set(charset, collation)
        if self.moved and db and self.db != db:
            self.select_db(db)
        self.autocommit(autocommit)
        self.moved = self.used = False

    def _reset_session(self) -> None:
        """COM_RESET_CONNECTION, and what `connect` had set on top of the server's own defaults."""
        self._execute_command(COM_RESET_CONNECTION, b"")
        self._read_ok_packet()
        self.set_character_set(*self.home[:2])
        if self.home[2]:
            self.select_db(self.home[2])
        if self.sql_mode is not None:
            self._run_alone(f"SET sql_mode={self.escape(self.sql_mode)}")
        if self.init_command is not None:
            self._run_alone(self.init_command)

    def _run_alone(self, sql: str) -> None:
        self.query(sql)
        self.finish_reply()

    def side_door(self) -> Wire:
        """Return another to connect to the same server, to give it orders about this one."""
        twin = self.copy()
        twin.sql_mode = twin.init_command = twin.autocommit_mode = None
        twin.use_unicode, twin.decoders = True, converters.decoders
        twin.address = None if self.unix_socket else self._sock.raw.getpeername()[:2]
        return twin

    def kill_query_of(self, other: Wire) -> bool:
        """Stop the query of `other`; False if this server does not know that connection."""
        number = other.server_thread_id[0]
        self.query("SHOW PROCESSLIST")
        if not any(int(row[0]) == number and other.comes_from(row[2]) for row in self._result.rows):
            return False
        self.query(f"KILL QUERY {number}")
        return True

    def comes_from(self, host: str) -> bool:
        """Whether a server that sees a client at `host` (``address:port``) sees this connection."""
        return bool(self.unix_socket) or host.rpartition(":")[2] == str(self._sock.raw.getsockname()[1])

    # -- Closing ------------------------------------------------------------------------------------------------

    def give_up_if_lost(self) -> None:
        """Close if a command failed in the middle of a reply, where nobody can tell any more what comes next."""
        if self._reply_pending:
            self._force_close()

    def say_goodbye(self) -> None:
        """Send COM_QUIT and wait for the server to close: until then it counts this connection."""
        self._write_bytes(struct.pack("<iB", 1, COMMAND.COM_QUIT))
        with contextlib.suppress(OSError, EOFError):
            self._sock.need(1)

    def _force_close(self) -> None:
        super()._force_close()
        self._reply_pending = False

    def hang_up(self, polite: bool) -> None:
        """Close without waiting for anything."""
        self._closed = True
        if self._sock is not None:
            if polite and not self.unread:
                self._sock.send_now(struct.pack("<iB", 1, COMMAND.COM_QUIT))
            self._sock.watch.close()
            self._force_close()


async def open_socket(wire: Wire) -> Socket:
    """Connect to where `wire` says."""
    try:
        stream: trio.SocketStream
        if wire.unix_socket:
            stream = await trio.open_unix_socket(wire.unix_socket)
        else:
            host, port = wire.address or (wire.host, wire.port)
            stream = await trio.open_tcp_stream(host, port, local_address=wire.bind_address)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as exc:
        cause = _last_cause(exc)
        error = err.OperationalError(CR.CR_CONN_HOST_ERROR, f"Can't connect to MySQL server on {wire.host!r} ({cause})")
        error.original_exception = cause  # PyMySQL's own attribute
        raise error from exc
    raw = socket.socket(fileno=stream.socket.detach())
    raw.setblocking(False)
    return Socket(raw, wire._read_timeout, wire._write_timeout)


def _last_cause(error: OSError) -> OSError:
    """Of several addresses' errors, which Trio sums up in one, the last: as `socket.create_connection` does."""
    cause: Any = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    return cause if isinstance(cause, OSError) else error


async def _open_file(name: bytes) -> Any:
    return await trio.open_file(name, "rb")
