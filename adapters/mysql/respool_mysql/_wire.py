"""PyMySQL's connection, reading many packets from one buffer instead of one header at a time.

`Wire` is `pymysql.connections.Connection`: its handshake, its authentication, its commands and its errors. What is
replaced is what costs time, or what would block:

* packets are parsed where `Socket` buffered them, all the complete rows of a buffer in one loop (`Result`);
* column definitions met before are recognised by their bytes and not parsed again (`Wire.shapes`);
* files for ``LOAD DATA LOCAL`` are read through Trio;
* and it always knows how much of a reply is still to come, so that nobody takes an old answer for a new one.

Everything here is synchronous. It runs in a connection's greenlet; or, as far as it needs nothing that has not arrived,
outside (`Wire.take_result`). Whatever the loops below do not recognise they leave, unread, to PyMySQL's own code.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import datetime as dt
import socket
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import trio
from pymysql import connections, converters, err
from pymysql.connections import MAX_PACKET_LEN
from pymysql.constants import COMMAND, CR, ER, SERVER_STATUS
from pymysql.cursors import Cursor
from pymysql.protocol import LoadLocalPacketWrapper, MysqlPacket, OKPacketWrapper

from ._socket import NotHereError, Socket, TLSContext, wait

IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS | 8192  # 8192: in a READ ONLY transaction
WATCHED = IN_TRANSACTION | SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
NOT_COUNTED = 18446744073709551615  # what PyMySQL says is the number of rows of an unbuffered result
MAX_HEAD = 1 << 14  # bytes of a result's column definitions that are worth remembering
MAX_SHAPES = 256  # result shapes remembered per connection; a program that makes more starts over

UNREADABLE = (AssertionError, IndexError, struct.error, UnicodeDecodeError)  # what PyMySQL says of such packets
MAX_COLUMNS = 65535  # what two bytes can count; MySQL and MariaDB allow 4096
MAX_RESULT_SIZE = 1 << 30  # bytes of a result that is read whole

# PyMySQL has no names for these.
COM_RESET_CONNECTION = 31
CR_NET_PACKET_TOO_LARGE = 2020
CR_LOAD_DATA_LOCAL_INFILE_REJECTED = 2068

SHORT = 1 << 16  # bytes of a query that may be copied without a thought

_command = struct.Struct("<IB").pack
_header = struct.Struct("<I").unpack_from  # three bytes of length, one of sequence number
_eof = struct.Struct("<HH").unpack_from  # warnings, server status
_WIDTHS = {252: 2, 253: 3, 254: 8}  # first byte of a long length -> bytes the length takes

Reader = Callable[[bytes], Any]


def malformed(reason: object) -> err.InternalError:
    """The error for a packet that is not what it says: the server's fault, and not the program's."""
    return err.InternalError(CR.CR_MALFORMED_PACKET, f"Malformed packet: {reason}")


def _careful(read: Callable[..., Any]) -> Callable[..., Any]:
    def careful(*args: Any) -> Any:
        try:
            return read(*args)
        except UNREADABLE as exc:
            raise malformed(exc) from exc

    return careful


class Packet(MysqlPacket):
    """PyMySQL's packet, read with care."""

    read = _careful(MysqlPacket.read)
    read_uint8 = _careful(MysqlPacket.read_uint8)
    read_uint16 = _careful(MysqlPacket.read_uint16)
    read_uint24 = _careful(MysqlPacket.read_uint24)
    read_uint64 = _careful(MysqlPacket.read_uint64)
    read_struct = _careful(MysqlPacket.read_struct)


class AbandonedError(Exception):
    """A command that must not be sent any more, because the task that wanted it has been cancelled."""


@attrs.frozen
class Shape:
    """What the columns of a result are: parsed once, used for every result that begins with the same bytes."""

    fields: list[Any]
    description: tuple[tuple[Any, ...], ...] | None
    converters: list[tuple[str | None, Callable[[Any], Any] | None]]
    readers: list[Reader]


def _read_datetime(value: bytes) -> Any:
    text = value.decode("ascii")
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return converters.convert_datetime(text)  # 0000-00-00 and its like stay text


def _read_date(value: bytes) -> Any:
    text = value.decode("ascii")
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return converters.convert_date(text)


_QUICK_READERS: dict[Any, Reader] = {
    int: int,
    float: float,
    Decimal: lambda value: Decimal(value.decode("ascii")),
    converters.convert_datetime: _read_datetime,
    converters.convert_date: _read_date,
}


def _reader(encoding: str | None, converter: Callable[[Any], Any] | None) -> Reader:
    """Fold PyMySQL's "decode, then convert" into one call."""
    if encoding == "ascii" and converter in _QUICK_READERS:
        return _QUICK_READERS[converter]
    if encoding is None:
        return converter or bytes
    if converter is None:
        return bytes.decode if encoding == "utf8" else lambda value: value.decode(encoding)
    return lambda value: converter(value.decode(encoding))


class Result(connections.MySQLResult):
    """PyMySQL's result, whose rows arrive a bufferful at a time.

    A buffered result is an unbuffered one that is read to its end. Whatever stops the reading half way, the
    connection's ``_result`` is this object, and its ``unbuffered_active`` says that there is more to come.
    """

    # What PyMySQL's `__init__` sets, set once for all.
    affected_rows: Any = None
    insert_id: int | None = None
    server_status: int | None = None
    warning_count = 0
    message: bytes | None = None
    field_count = 0
    fields: list[Any]
    readers: list[Reader]
    description: tuple[tuple[Any, ...], ...] | None = None
    converters: list[tuple[str | None, Any]]
    rows: tuple[tuple[Any, ...], ...] | None = None
    has_next: int | None = None
    unbuffered_active = False
    thrown_away = False

    def __init__(self, connection: Wire) -> None:
        self.connection: Any = connection
        self.most_received = connection._sock.received + connection.max_result_size
        self.ready: collections.deque[tuple[Any, ...]] = collections.deque()  # rows an unbuffered result may hand out

    def __del__(self) -> None:
        """Do nothing. PyMySQL would read the rest from the socket, but here is no greenlet to wait in."""

    def read(self) -> None:
        """Read it whole. What PyMySQL calls where it wants no cursor."""
        self.init_unbuffered_query()
        self.read_all()

    def read_all(self) -> None:
        """Read and keep all rows, if there are any."""
        if self.field_count:
            wire = self.connection
            while self.unbuffered_active:
                self.fetch()
                if wire._sock.received > self.most_received:
                    raise wire.too_long("stream it with SSCursor")
            self.rows = tuple(self.ready)
            self.ready.clear()
            self.affected_rows = len(self.rows)

    def take_arrived(self) -> bool:
        """Make ready the rows that have arrived; whether there were any, or there will be none."""
        rows = self._arrived_rows()
        self.ready += rows
        return bool(rows) or not self.unbuffered_active

    def fetch(self) -> None:
        """Wait for at least one more row of an unbuffered result, or for its end."""
        rows = self._arrived_rows()
        if not rows and self.unbuffered_active:
            packet = self.connection._read_packet()
            if packet.is_eof_packet():
                self._end(packet.get_all_data(), 1)
            else:
                rows.append(self._read_row_from_packet(packet))
        self.ready += rows

    def _finish_unbuffered_query(self) -> None:
        self.throw_away()

    def throw_away(self) -> None:
        """Read to the end of an unbuffered result, keeping nothing."""
        self.ready.clear()
        self.thrown_away = True
        while self.unbuffered_active:
            self._skip_rows()
            packet = self.connection._read_packet()
            if packet.is_eof_packet():
                self._end(packet.get_all_data(), 1)

    def _read_rowdata_packet_unbuffered(self) -> tuple[Any, ...] | None:
        if self.thrown_away:
            raise err.ProgrammingError(
                "the rest of this result is gone: a task was cancelled, or something else executed"
            )
        return self.ready.popleft() if self.ready else None

    def _arrived_rows(self) -> list[tuple[Any, ...]]:
        """Parse the row packets in the buffer, up to the result's end or anything that is not an ordinary row."""
        wire = self.connection
        sock = wire._sock
        data, start, sequence = sock.data, sock.at, wire._next_seq_id
        received = len(data)
        readers = self.readers
        rows: list[tuple[Any, ...]] = []
        try:
            while start + 4 < received:
                (header,) = _header(data, start)
                size = header & 0xFFFFFF
                at = start + 4
                end = at + size
                if end > received or size == MAX_PACKET_LEN or header >> 24 != sequence:
                    break
                if data[at] > 253:
                    if data[at] == 254 and size == 5:
                        self._end(data, at + 1)
                        start, sequence = end, sequence + 1
                    break
                row: list[Any] = []
                for read in readers:
                    size = data[at]
                    at += 1
                    if size > 250:
                        if size == 251:
                            row.append(None)
                            continue
                        width = _WIDTHS[size]
                        size = int.from_bytes(data[at : at + width], "little")
                        at += width
                    stop = at + size
                    row.append(read(data[at:stop]))
                    at = stop
                if at != end:
                    break
                rows.append(tuple(row))
                start = end
                sequence = (sequence + 1) & 0xFF
        except Exception:  # noqa: BLE001, S110  that row stays in the buffer, so PyMySQL's code meets it, and raises
            pass
        sock.at, wire._next_seq_id = start, sequence & 0xFF
        return rows

    def _skip_rows(self) -> None:
        """Drop the row packets in the buffer, up to the result's end or anything that is not an ordinary row."""
        wire = self.connection
        sock = wire._sock
        data, start, sequence = sock.data, sock.at, wire._next_seq_id
        received = len(data)
        while start + 4 < received:
            (header,) = _header(data, start)
            end = start + 4 + (header & 0xFFFFFF)
            if end > received or data[start + 4] > 253 or header >> 24 != sequence:
                break
            start, sequence = end, (sequence + 1) & 0xFF
        sock.at, wire._next_seq_id = start, sequence

    def _end(self, data: bytes, at: int) -> None:
        """Take in what the EOF packet behind the last row says."""
        self.warning_count, self.server_status = _eof(data, at)
        self.has_next = self.server_status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
        self.connection.take_status(self.server_status)  # PyMySQL does not: a SELECT may have begun a transaction
        self.unbuffered_active = False
        self.connection = None

    def init_unbuffered_query(self) -> None:
        """Read what comes before the rows, or all of a reply that has none."""
        wire = self.connection
        head = wire.peek_head()
        shape = wire.shapes.get(head)
        if shape is None or head[3] != wire._next_seq_id:
            super().init_unbuffered_query()
            if self.unbuffered_active:
                self.readers = [_reader(encoding, converter) for encoding, converter in self.converters]
                wire.remember(head, Shape(self.fields, self.description, self.converters, self.readers))
            return
        wire.skip_head(head, len(shape.readers) + 2)
        self.fields, self.description = shape.fields, shape.description
        self.converters, self.readers = shape.converters, shape.readers
        self.field_count = len(shape.readers)
        self.affected_rows = NOT_COUNTED
        self.unbuffered_active = True

    def _get_descriptions(self) -> None:
        if self.field_count > MAX_COLUMNS:
            raise malformed(f"a result of {self.field_count} columns")
        super()._get_descriptions()

    def _read_load_local_packet(self, first_packet: MysqlPacket) -> None:
        wire = self.connection
        if not wire._local_infile:
            wire._force_close()
            text = "The server asked for a file, which local_infile does not allow"
            raise err.OperationalError(CR_LOAD_DATA_LOCAL_INFILE_REJECTED, text)
        if not wire._sock.may_wait:
            raise NotHereError
        filename = LoadLocalPacketWrapper(first_packet).filename
        failure = wire.send_file(filename)
        wire.write_packet(b"")  # the file's end
        packet = wire._read_packet()
        if not packet.is_ok_packet():
            raise err.OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "Commands Out of Sync")
        self._read_ok_packet(packet)
        if failure is not None:
            wire.end_reply(self.server_status)
            raise err.OperationalError(ER.FILE_NOT_FOUND, f"Can't open file {filename!r}: {failure}") from failure


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
        self.last_head = b""  # of `shapes`, what is to be expected next
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
        twin.shapes = {}
        twin.last_head = b""
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
        (header,) = _header(sock.data, sock.at)
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
        head = self.last_head
        if head and sock.data.startswith(head, sock.at):
            return head
        count = sock.data[sock.at + 4]
        if not (0 < count < 251 and sock.data.startswith(b"\1\0\0", sock.at)):
            return b""
        size = 5
        for _ in range(count + 1):  # the columns, and an EOF packet
            sock = self.need(size + 5)
            (header,) = _header(sock.data, sock.at + size)
            failed = sock.data[sock.at + size + 4] == 0xFF
            size += 4 + (header & 0xFFFFFF)
            if failed:
                break
        sock = self.need(size)
        return sock.data[sock.at : sock.at + size - 4]

    def skip_head(self, head: bytes, packets: int) -> None:
        """Take as read what `peek_head` has returned, and the four bytes behind it."""
        size = len(head) + 4
        self.need(size).at += size
        self._next_seq_id = (self._next_seq_id + packets) & 0xFF
        self.last_head = head

    def remember(self, head: bytes, shape: Shape) -> None:
        """Keep `shape` for the next result that begins with `head`."""
        if 0 < len(head) <= MAX_HEAD:
            if len(self.shapes) >= MAX_SHAPES:
                self.shapes.clear()
            self.shapes[head] = shape
            self.last_head = head

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
        self._begin_result()
        return self.finish_result(unbuffered)

    def _begin_result(self) -> None:
        self._result = result = Result(self)
        result.init_unbuffered_query()
        self._reply_pending = False  # from here on the result itself knows what is still to come

    def finish_result(self, unbuffered: bool) -> int:
        """Read what is left to read of the reply to a query; return how many rows were returned or changed."""
        if self._reply_pending:
            self._begin_result()
        result = self._result
        if not unbuffered:
            result.read_all()
        if result.server_status is not None:
            self.take_status(result.server_status)
        self._affected_rows: int = result.affected_rows
        return self._affected_rows

    def escape(self, obj: object, mapping: Any = None) -> str:
        """Turn a value into SQL text. That of a number in three steps less than PyMySQL."""
        if mapping is None and self.encoders.get(type(obj)) is converters.escape_int:
            return str(obj)
        return str(super().escape(obj, mapping))

    # A query outside the greenlet, for `Connection.exchange`

    def begin_query(self, sql: bytes) -> bytes | None:
        """Get ready for the reply to `sql`; return the packet to send. None if it is not so simple."""
        result = self._result
        if self._sock is None or len(sql) >= SHORT or (result is not None and result.has_next):
            return None
        self._result = None
        self._next_seq_id = 1
        self._reply_pending = self.used = True
        return _command(len(sql) + 1, COMMAND.COM_QUERY) + sql

    def take_result(self, unbuffered: bool) -> bool:
        """Read the reply to a query if it is here; whether it was. The rest is left to `finish_result`."""
        sock = self._sock
        at = sock.at
        sock.may_wait = False
        try:
            self._begin_result()
        except NotHereError:
            sock.at, self._next_seq_id, self._result = at, 1, None
            return False
        finally:
            sock.may_wait = True
        result = self._result
        if result.unbuffered_active and not unbuffered:
            result.take_arrived()
            if result.unbuffered_active:
                return False
        self.finish_result(unbuffered)
        return True

    def _read_ok_packet(self) -> OKPacketWrapper:
        ok = super()._read_ok_packet()
        self.end_reply(ok.server_status)
        return ok

    def end_reply(self, status: int) -> None:
        """Note that a command has been answered in full."""
        self._reply_pending = False
        self.take_status(status)

    def take_status(self, status: int) -> None:
        """Believe the status flags the server has just sent."""
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
        self.last_head = b""
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
    def behind(self) -> bool:
        """Whether something is to be read before the next command, and not by it."""
        result = self._result
        return self._reply_pending or (result is not None and bool(result.unbuffered_active))

    @property
    def unread(self) -> bool:
        """Whether the server has more to say about the last command."""
        result = self._result
        return self._reply_pending or (result is not None and bool(result.unbuffered_active or result.has_next))

    @property
    def mid_sentence(self) -> bool:
        """Whether the server is in the middle of receiving something, and would take all else for the rest of it."""
        return self._sending_file or (self._sock is not None and self._sock.sending)

    def is_clean(self) -> bool:
        """Whether nothing is left to read or to undo."""
        return (
            self._sock is not None
            and not self.unread
            and not self._status_unknown
            and self.server_status & WATCHED == self.home_status
            and not self.moved
            and self._sock.is_quiet()
        )

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
