"""What a connection's own commands do to its session on the server, as far as the next borrower would notice.

The server keeps a database number, watched keys, an open MULTI, the RESP version, the user, and more for each
connection. All of it is changed by commands sent on that connection and by nothing else, so following them is enough.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from redis.exceptions import DataError

__all__ = ["Session", "blocks", "command_name", "disturbs", "is_noted", "takes"]

_BLOCKING = frozenset(
    {"BLPOP", "BRPOP", "BLMPOP", "BLMOVE", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT", "WAITAOF"}
)
_TAKING = frozenset(
    {"BLPOP", "BRPOP", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "LPOP", "RPOP", "LMPOP", "SPOP"}
    | {"ZPOPMIN", "ZPOPMAX", "ZMPOP", "GETDEL", "HGETDEL"}
)
_TRANSACTIONS = frozenset({"WATCH", "UNWATCH", "MULTI", "EXEC", "DISCARD"})
_LASTING = frozenset({"AUTH", "HELLO", "READONLY", "READWRITE", "ASKING", "QUIT", "HIMPORT", "SCRIPT DEBUG"})
_ASKING_CLIENT = frozenset(
    {"GETNAME", "GETREDIR", "HELP", "ID", "INFO", "KILL", "LIST", "PAUSE", "UNPAUSE", "UNBLOCK", "TRACKINGINFO"}
)
_LISTENING = {
    **dict.fromkeys(
        ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"], "pubsub()"
    ),
    "MONITOR": "monitor()",
    "SYNC": "a replica",
    "PSYNC": "a replica",
}
_NOTED = frozenset({*_TRANSACTIONS, *_LASTING, *_LISTENING, "SELECT", "CLIENT", "RESET", "SCRIPT"})


def command_name(args: tuple[Any, ...]) -> str:
    """The first word of a command, in capitals."""
    name = args[0]
    text = name if isinstance(name, str) else bytes(name).decode("ascii", "replace")
    return text.split(" ", 1)[0].upper()


def blocks(args: tuple[Any, ...]) -> bool:
    """Whether a command may keep its connection waiting for something to happen on the server."""
    name = command_name(args)
    if name in {"XREAD", "XREADGROUP"}:
        return any(arg in {"BLOCK", b"BLOCK"} for arg in _upper(args))
    return name in _BLOCKING


def disturbs(args: tuple[Any, ...]) -> bool:
    """Whether whoever shares a connection would feel that a command was sent on it."""
    # Of a server's scripts all connections know; being debugged is one connection's own business.
    harmless = command_name(args) == "SCRIPT" and "DEBUG" not in _words_of(args[:2])
    return (is_noted(args[0]) and not harmless) or blocks(args)


def takes(args: tuple[Any, ...]) -> bool:
    """Whether a command's reply is the only copy of what it took."""
    return command_name(args) in _TAKING


@lru_cache(maxsize=1024)
def is_noted(name: str | bytes) -> bool:
    """Whether a `Session` has to hear about commands that begin like this."""
    return command_name((name,)) in _NOTED


def _upper(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.upper() if isinstance(arg, (str, bytes)) else arg for arg in args)


class Session:
    """What the server remembers about a connection whose handshake asked for database `db`."""

    def __init__(self, db: int) -> None:
        self._home = db
        self._db = db
        self._watching = False
        self._in_transaction = False
        self._altered = False  # in some way that only RESET undoes
        self._answering = True  # CLIENT REPLY
        self._skipping = False  # CLIENT REPLY SKIP, for the next command
        self.listening = False
        """Whether the connection subscribed, or monitors: replies and messages can no longer be told apart."""
        self.is_fresh = True
        """Whether it is as the handshake left it."""
        self.is_silent = False
        """Whether some commands will not be answered: then every command has to be noted."""

    def note(self, args: tuple[Any, ...]) -> bool:
        """Follow a command that is about to be sent. Says whether it will be answered.

        Raises:
          redis.DataError: it is not a command with a reply.
        """
        words = _words_of(args)
        name = words[0]
        if name in _LISTENING:
            raise DataError(f"{name} has no reply, but makes its connection listen: use {_LISTENING[name]} instead")
        answered = not self.is_silent
        skipped, self._skipping = self._skipping, False
        if name in _TRANSACTIONS:
            self._note_transaction(name)
        elif name == "SELECT":
            self._note_select(words)
        elif name == "RESET":
            self._answering = self._altered = True
            answered = not skipped
        elif name == "CLIENT":
            answered = self._note_client(words[1:], answered)
        elif name in _LASTING or words[:2] == ["SCRIPT", "DEBUG"]:
            self._altered = True
        self._judge()
        return answered

    def listen(self) -> None:
        """The connection is about to subscribe, or to monitor."""
        self.listening = True
        self._judge()

    def _judge(self) -> None:
        self.is_silent = not self._answering or self._skipping
        altered = self._altered or self._watching or self._in_transaction or self._db != self._home
        self.is_fresh = not (altered or self.is_silent or self.listening)

    def _note_transaction(self, name: str) -> None:
        if name == "MULTI":
            self._in_transaction = True
        elif name == "WATCH":
            self._watching = True
        elif name == "UNWATCH":
            self._watching = self._watching and self._in_transaction  # inside MULTI it is only queued
        elif self._in_transaction:  # EXEC, DISCARD; outside they are errors that change nothing
            self._watching = self._in_transaction = False

    def _note_select(self, words: list[Any]) -> None:
        try:
            self._db = int(words[1])
        except (IndexError, ValueError):
            self._altered = True  # surely an error; better safe
        self._altered |= self._in_transaction  # queued, and perhaps discarded

    def _note_client(self, words: list[Any], answered: bool) -> bool:
        if words[:1] != ["REPLY"]:
            self._altered |= not _ASKING_CLIENT.issuperset(words[:1])
            return answered
        mode = words[-1]
        self._skipping = mode == "SKIP" and self._answering
        if mode in {"ON", "OFF"}:
            self._answering = mode == "ON"
        return self._answering and not self._skipping


def _words_of(args: tuple[Any, ...]) -> list[Any]:
    """In capitals."""
    return [word for arg in _upper(args) for word in _words(arg)]


def _words(arg: Any) -> list[Any]:
    if isinstance(arg, bytes):
        arg = arg.decode("ascii", "replace")
    return arg.split() if isinstance(arg, str) else [arg]
