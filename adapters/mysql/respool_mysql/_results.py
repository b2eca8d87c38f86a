"""What a server replies, read from a socket's buffer many packets at a time.

`Result` is what PyMySQL calls a result. What is replaced is what costs time: all the complete rows of a buffer are
parsed in one loop, and column definitions met before are recognised by their bytes (`Shape`). Whatever the loops do not
recognise they leave, unread, to PyMySQL's own code, which meets it in a `Packet`.
"""

from __future__ import annotations

import collections
import datetime as dt
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
from pymysql import converters, err
from pymysql.connections import MAX_PACKET_LEN, MySQLResult
from pymysql.constants import CR, ER, SERVER_STATUS
from pymysql.protocol import LoadLocalPacketWrapper, MysqlPacket

from ._socket import NotHereError

if TYPE_CHECKING:
    from ._wire import Wire

NOT_COUNTED = 18446744073709551615  # what PyMySQL says is the number of rows of an unbuffered result
MAX_HEAD = 1 << 14  # bytes of a result's column definitions that are worth remembering
MAX_COLUMNS = 65535  # what two bytes can count; MySQL and MariaDB allow 4096
MORE_RESULTS = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
UNREADABLE = (AssertionError, IndexError, struct.error, UnicodeDecodeError)  # what PyMySQL says of such packets
CR_LOAD_DATA_LOCAL_INFILE_REJECTED = 2068  # PyMySQL has no name for it

MANY = 2048  # bytes of rows: enough of them to be read column by column

header_at = struct.Struct("<I").unpack_from  # three bytes of length, one of sequence number
_two_shorts_at = struct.Struct("<HH").unpack_from
_ONE_PACKET, _LAST_BYTE = 1 << 24, 0xFF << 24  # of a header
_WIDTHS = {252: 2, 253: 3, 254: 8}  # first byte of a long length -> bytes the length takes

Reader = Callable[[bytes], Any]


def malformed(reason: object) -> err.InternalError:
    """The error for a packet that is not what it says: the server's fault, and not the program's."""
    return err.InternalError(CR.CR_MALFORMED_PACKET, f"Malformed packet: {reason}")


def _number_at(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded number, and where it ends; behind the end of `data`, if this is not one."""
    number = data[at]
    if number < 251:
        return number, at + 1
    end = at + 1 + _WIDTHS.get(number, len(data))
    return int.from_bytes(data[at + 1 : end], "little"), end


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


_describe = _careful(MySQLResult._get_descriptions)


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


@attrs.frozen
class Shape:
    """What the columns of a result are: parsed once, used for every result that begins with the same bytes."""

    head: bytes
    """All that comes before the rows, but the last four bytes, which are each result's own."""
    fields: list[Any]
    description: tuple[tuple[Any, ...], ...] | None
    converters: list[tuple[str | None, Callable[[Any], Any] | None]]
    readers: list[Reader]
    size: int = attrs.field(init=False)
    """Bytes before the rows."""
    sequence: int = attrs.field(init=False)
    """The number of its first packet, which is one of those bytes."""
    next_sequence: int = attrs.field(init=False)

    @size.default
    def _(self) -> int:
        return len(self.head) + 4

    @sequence.default
    def _(self) -> int:
        return self.head[3]

    @next_sequence.default
    def _(self) -> int:
        return (self.head[3] + len(self.readers) + 2) & 0xFF


NONE_READY: collections.deque[tuple[Any, ...]] = collections.deque(maxlen=0)  # and it can take up none


class Result:
    """PyMySQL's result, whose rows arrive a bufferful at a time.

    A buffered result is an unbuffered one that is read to its end. Whatever stops the reading half way, the
    connection's ``_result`` is this object, and its ``unbuffered_active`` says that there is more to come.

    PyMySQL's class lends its methods and is no base, because its ``__del__`` reads the rest from the socket.
    """

    affected_rows: Any = None
    insert_id: int | None = None
    server_status: int | None = None
    warning_count = 0
    message: bytes | None = None
    field_count = 0
    fields: list[Any]
    most_received: int  # by the socket, in all, when the column definitions end
    readers: list[Reader]
    description: tuple[tuple[Any, ...], ...] | None = None
    converters: list[tuple[str | None, Any]]
    rows: tuple[tuple[Any, ...], ...] | None = None
    has_next: int | None = None
    unbuffered_active = False
    thrown_away = False
    ordinary = True  # whether all rows so far were what their columns' definitions say
    connection: Any = None  # as long as there is something to read from it
    ready: collections.deque[tuple[Any, ...]] = NONE_READY  # rows an unbuffered result may hand out

    _read_ok_packet = MySQLResult._read_ok_packet
    _read_row_from_packet = MySQLResult._read_row_from_packet

    # -- Before the rows ----------------------------------------------------------------------------------------

    def begin(self, wire: Wire) -> None:
        """Read what comes before the rows, or all of a reply that has none."""
        self.connection = wire
        sock = wire._sock
        shape = wire.expected
        if shape is None or not sock.data.startswith(shape.head, sock.at):
            if self._read_ok_if_here():
                return
            head = wire.peek_head()
            shape = wire.shapes.get(head)
            if shape is None:
                self._begin_unknown(head)
                return
            wire.expected = shape
        if shape.sequence != wire._next_seq_id:
            self._begin_unknown(b"")
            return
        if len(sock.data) - sock.at < shape.size:
            wire.need(shape.size)
        sock.at += shape.size
        wire._next_seq_id = shape.next_sequence
        wire._reply_pending = False  # from here on the result itself knows what is still to come
        self.fields, self.description = shape.fields, shape.description
        self.converters, self.readers = shape.converters, shape.readers
        self.affected_rows = NOT_COUNTED
        self.unbuffered_active = True

    def _read_ok_if_here(self) -> bool:
        """Read the reply if it is an OK packet and has arrived; whether it was that."""
        wire = self.connection
        sock = wire._sock
        data, start = sock.data, sock.at
        if len(data) < start + 11 or data[start + 4] != 0:
            return False
        end = start + 4 + (header_at(data, start)[0] ^ wire._next_seq_id << 24)
        if end > len(data):
            return False
        packet = data[start + 4 : end]
        try:
            affected_rows, at = _number_at(packet, 1)
            insert_id, at = _number_at(packet, at)
            status, warnings = _two_shorts_at(packet, at)
        except UNREADABLE:
            return False  # PyMySQL's code will say what is wrong
        self.affected_rows, self.insert_id = affected_rows, insert_id
        self.message = packet[at + 4 :]
        self._end(warnings, status)
        sock.at = end
        wire._next_seq_id = (wire._next_seq_id + 1) & 0xFF
        wire._reply_pending = False
        return True

    def _begin_unknown(self, head: bytes) -> None:
        """Let PyMySQL's code do it, and remember the columns, if there are any, for the next time."""
        wire = self.connection
        self.most_received = wire._sock.received + wire.max_result_size
        MySQLResult.init_unbuffered_query(self)
        wire._reply_pending = False
        if self.server_status is not None:
            wire.end_reply(self.server_status)
        if self.unbuffered_active:
            self.readers = [_reader(encoding, converter) for encoding, converter in self.converters]
            if 0 < len(head) <= MAX_HEAD:
                wire.remember(Shape(head, self.fields, self.description, self.converters, self.readers))

    def _get_descriptions(self) -> None:
        if self.field_count > MAX_COLUMNS:
            raise malformed(f"a result of {self.field_count} columns")
        _describe(self)

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

    # -- The rows -----------------------------------------------------------------------------------------------

    def _keep(self, rows: list[tuple[Any, ...]]) -> None:
        """Let `rows` be handed out after those that are ready already."""
        if self.ready:
            self.ready += rows
        else:
            self.ready = collections.deque(rows)

    def read_all(self) -> None:
        """Read and keep all rows."""
        rows: Any = self._arrived_rows()
        if self.unbuffered_active or self.ready:
            self._keep(rows)
            self._fetch_all()
            rows, self.ready = self.ready, NONE_READY
        self.rows = tuple(rows)
        self.affected_rows = len(self.rows)

    def _fetch_all(self) -> None:
        wire = self.connection
        most_received = wire._sock.received + wire.max_result_size
        while self.unbuffered_active:
            self.fetch()
            if wire._sock.received > most_received:
                raise wire.too_long("stream it with SSCursor")

    def take_arrived(self) -> bool:
        """Make ready the rows that have arrived; whether there were any, or there will be none."""
        rows = self._arrived_rows()
        self._keep(rows)
        return bool(rows) or not self.unbuffered_active

    def fetch(self) -> None:
        """Wait for at least one more row of an unbuffered result, or for its end."""
        rows = self._arrived_rows()
        if not rows and self.unbuffered_active:
            packet = self.connection._read_packet()
            if packet.is_eof_packet():
                self._end(*_two_shorts_at(packet.get_all_data(), 1))
            else:
                rows.append(self._read_row_from_packet(packet))
        self._keep(rows)

    def throw_away(self) -> None:
        """Read to the end of an unbuffered result, keeping nothing."""
        self.ready = NONE_READY
        self.thrown_away = True
        while self.unbuffered_active:
            self._skip_rows()
            packet = self.connection._read_packet()
            if packet.is_eof_packet():
                self._end(*_two_shorts_at(packet.get_all_data(), 1))

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
        data, start = sock.data, sock.at
        received = len(data)
        if received - start > MAX_PACKET_LEN:
            return []  # this may well be a row of several packets
        expected = wire._next_seq_id << 24  # in the header's last byte
        readers = self.readers
        rows: list[tuple[Any, ...]] = []
        if received - start > MANY and self.ordinary:
            try:
                rows, start, expected = self._many_rows(data, start, expected)
            except Exception:  # noqa: BLE001  the loop below gets as far as can be got
                self.ordinary = False
        try:
            while start + 4 < received:
                at = start + 4
                end = at + (header_at(data, start)[0] ^ expected)  # with another number, far behind what was received
                if end > received:
                    break
                if data[at] > 253:
                    if data[at] == 254 and end == at + 5:
                        warnings, status = _two_shorts_at(data, at + 1)
                        self._end(warnings, status)
                        start, expected = end, expected + _ONE_PACKET
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
                start, expected = end, (expected + _ONE_PACKET) & _LAST_BYTE
        except Exception:  # noqa: BLE001, S110  that row stays in the buffer, so PyMySQL's code meets it, and raises
            pass
        sock.at, wire._next_seq_id = start, (expected >> 24) & 0xFF
        return rows

    def _many_rows(self, data: bytes, start: int, expected: int) -> tuple[list[tuple[Any, ...]], int, int]:
        """Parse rows column by column, which is quicker; return where they end, and what is expected there.

        Raises whatever comes of a row that is not an ordinary one.
        """
        columns = range(len(self.readers))
        values: list[Any] = []  # None for NULL
        add = values.append
        nulls = False
        received = len(data)
        while start + 4 < received:
            at = start + 4
            end = at + (header_at(data, start)[0] ^ expected)
            if end > received or data[at] > 253:
                break
            for _ in columns:
                size = data[at]
                at += 1
                if size > 250:
                    if size == 251:
                        add(None)
                        nulls = True
                        continue
                    width = _WIDTHS[size]
                    size = int.from_bytes(data[at : at + width], "little")
                    at += width
                stop = at + size
                add(data[at:stop])
                at = stop
            if at != end:
                raise malformed("a row is longer or shorter than its packet")
            start, expected = end, (expected + _ONE_PACKET) & _LAST_BYTE
        read_columns = [
            [None if value is None else read(value) for value in values[i :: len(columns)]]
            if nulls
            else map(read, values[i :: len(columns)])
            for i, read in enumerate(self.readers)
        ]
        rows = list(zip(*read_columns, strict=True))
        if len(rows) * len(columns) != len(values):
            raise RuntimeError("a converter raised StopIteration, which map takes for the end of the only column")
        return rows, start, expected

    def _skip_rows(self) -> None:
        """Drop the row packets in the buffer, up to the result's end or anything that is not an ordinary row."""
        wire = self.connection
        sock = wire._sock
        data, start, sequence = sock.data, sock.at, wire._next_seq_id
        received = len(data)
        while start + 4 < received:
            (header,) = header_at(data, start)
            end = start + 4 + (header & 0xFFFFFF)
            if end > received or data[start + 4] > 253 or header >> 24 != sequence:
                break
            start, sequence = end, (sequence + 1) & 0xFF
        sock.at, wire._next_seq_id = start, sequence

    def _end(self, warnings: int, status: int) -> None:
        """Take in what the packet that ends a reply says."""
        wire = self.connection
        self.warning_count = warnings
        # PyMySQL leaves the connection's status as it is: but a SELECT may have begun a transaction.
        self.server_status = wire.server_status = status
        wire._status_unknown = False
        self.has_next = status & MORE_RESULTS
        self.unbuffered_active = False
        self.connection = None

    _finish_unbuffered_query = throw_away
