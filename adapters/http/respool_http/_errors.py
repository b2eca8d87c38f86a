"""What can go wrong in an HTTP exchange, named by who is at fault."""

from __future__ import annotations

import trio

__all__ = [
    "HTTPError",
    "InvalidRequest",
    "NotReusable",
    "ProtocolError",
    "ProxyError",
    "ReadTimeout",
    "ServerDisconnected",
    "WriteTimeout",
]


class HTTPError(Exception):
    """Base of everything this package raises about an exchange or a connection."""


class InvalidRequest(HTTPError, ValueError):
    """*Your* request cannot be sent as it is: a line break in a header, two lengths, a target with a space in it.

    Raised before the first byte of it is sent, except for a body that turned out longer or shorter than its
    ``Content-Length``.
    """


class ProtocolError(HTTPError):
    """The *server* broke HTTP/1.1, or tried to: its response cannot be trusted and its connection is dropped."""


class ServerDisconnected(HTTPError, trio.BrokenResourceError):
    """The server closed or reset the connection before its response was complete.

    `sent` says whether any byte of the request had left, `answered` whether any byte of the response had arrived.
    `reached` is false if none of the request had left, or the server's side of the TCP connection has acknowledged none
    of it: then no server has read the request, or only just, when it broke the connection off. It is true where that
    cannot be told: through Unix sockets, and on other systems than Linux.
    """

    def __init__(self, message: str, *, sent: bool, answered: bool, reached: bool) -> None:
        super().__init__(message)
        self.sent = sent
        self.answered = answered
        self.reached = reached


class ProxyError(HTTPError):
    """The *proxy* refused to open a tunnel, or answered with something that is not HTTP.

    `status_code` is its answer, if it had one: 407 wants credentials, 502 and 504 could not reach the server.
    """

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


class NotReusable(HTTPError):
    """The connection's last exchange did not end exactly where it should, or its server has closed it since."""


class ReadTimeout(HTTPError, trio.TooSlowError):
    """Nothing arrived from the server for `read_timeout` seconds."""


class WriteTimeout(HTTPError, trio.TooSlowError):
    """The server took nothing of the request for `write_timeout` seconds."""
