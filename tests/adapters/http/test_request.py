"""Nothing a caller passes can add a line, a field or a second request."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from respool_http import Body, HeaderInput, InvalidRequest
from respool_http._origin import split_url
from respool_http._request import write_request


def wire(method: str = "GET", target: str = "/", headers: HeaderInput = None, length: int | None = 0) -> bytes:
    """The head of a request whose body is of that length, or of one that is not known."""
    body = (iter(()) if length is None else bytes(length)) if length != 0 else None
    written = write_request(method, target, b"example.com", headers, body).wire
    return written[: written.index(b"\r\n\r\n") + 4]


def test_a_plain_get_is_three_lines() -> None:
    assert wire(target="/a?b=c") == b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_long_urls_are_not_remembered() -> None:
    """A thousand of them, such as a stranger may send through a proxy, would fill the memory."""
    tracemalloc.start()
    try:
        for i in range(400):
            _, target = split_url(f"http://example.com/{'x' * 50_000}{i}")
            assert wire(target=target).count(b"x") > 50_000
        assert tracemalloc.get_traced_memory()[0] < 400 * 50_000  # urllib.parse itself remembers 128 of them
    finally:
        tracemalloc.stop()


def test_header_fields_keep_their_order_case_and_repetitions() -> None:
    headers: HeaderInput = [("X-B", "2"), ("x-a", "1"), (b"X-B", b"\xff")]
    assert wire(headers=headers).endswith(b"\r\nX-B: 2\r\nx-a: 1\r\nX-B: \xff\r\n\r\n")


def test_the_callers_host_replaces_ours() -> None:
    assert wire(headers={"host": "other"}).count(b"ost:") == 1


@pytest.mark.parametrize(
    ("method", "length", "line"),
    [
        ("GET", 0, b""),
        ("POST", 0, b"Content-Length: 0\r\n"),
        ("PUT", 0, b"Content-Length: 0\r\n"),
        ("GET", 5, b"Content-Length: 5\r\n"),
        ("POST", None, b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_the_body_is_framed(method: str, length: int | None, line: bytes) -> None:
    assert wire(method, length=length) == method.encode() + b" / HTTP/1.1\r\nHost: example.com\r\n" + line + b"\r\n"


def test_the_callers_own_framing_is_kept() -> None:
    assert wire("POST", headers={"Content-Length": "7"}, length=None).count(b"ength: 7") == 1
    assert b"Content-Length" not in wire("POST", headers={"Transfer-Encoding": "chunked"}, length=None)
    chunked = write_request("POST", "/", b"h", {"transfer-encoding": "chunked"}, b"abc")
    assert (chunked.length, chunked.body) == (None, b"abc")  # and so it is sent as a chunk, not behind the head


def test_a_small_body_travels_with_its_head() -> None:
    small, large = bytes(65536), bytes(65537)
    assert write_request("POST", "/", b"h", None, small).wire.endswith(b"\r\n\r\n" + small)
    assert write_request("POST", "/", b"h", None, large).wire.endswith(b"\r\n\r\n")
    assert write_request("POST", "/", b"h", {"Expect": "100-continue"}, small).wire.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["", "GET ", "G ET", "GET\r\nX: y", "GÉT", "?", "G\0T"])
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(InvalidRequest, match="method"):
        wire(method)


@pytest.mark.parametrize(
    "target", ["", "x", "/a b", "/a\r\nX: y", "/a\0", "/ä", "/a\x7f", "/a#fragment", "/ HTTP/1.1\r\n\r\nGET /"]
)
def test_a_target_is_visible_ascii(target: str) -> None:
    with pytest.raises(InvalidRequest, match="target"):
        wire(target=target)


@pytest.mark.parametrize("target", ["/", "*", "/%20?a=%0d", "http://other/x", "/a//b:c@d"])
def test_targets_of_every_form_are_sent(target: str) -> None:
    assert wire("OPTIONS", target).startswith(b"OPTIONS " + target.encode() + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "ä", "a\0", " a"])
def test_a_header_name_is_a_token(name: str) -> None:
    with pytest.raises(InvalidRequest, match="header name"):
        wire(headers={name: "x"})


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "a\rb", "a\0b", " a", "a ", "\t", "a\x01", "a\x7f"])
def test_a_header_value_has_no_control_characters(value: str) -> None:
    """And the error names the field but never quotes the value, which may be a secret."""
    with pytest.raises(InvalidRequest, match="'x-token'") as caught:
        wire(headers={"x-token": value})
    assert "Evil" not in str(caught.value)


def test_text_that_is_not_ascii_must_be_passed_as_bytes() -> None:
    with pytest.raises(InvalidRequest, match="pass bytes"):
        wire(headers={"x": "é"})
    assert b"x: \xc3\xa9\r\n" in wire(headers=[("x", "é".encode())])


@pytest.mark.parametrize(
    ("headers", "length", "message"),
    [
        ([("Host", "a"), ("host", "b")], 0, "twice"),
        ([("Content-Length", "1"), ("content-length", "1")], 1, "twice"),
        ([("Content-Length", "1"), ("Transfer-Encoding", "chunked")], None, "exclude"),
        ([("Transfer-Encoding", "gzip, chunked")], None, "'chunked'"),
        ([("Content-Length", "5")], 4, "the body has 4 bytes"),
        ([("Content-Length", "+5")], None, "decimal"),
        ([("Content-Length", "1" * 30)], None, "decimal"),
    ],
)
def test_framing_that_contradicts_itself_is_refused(
    headers: list[tuple[str | bytes, str | bytes]], length: int | None, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        wire("POST", headers=headers, length=length)


@given(
    method=st.text(max_size=8),
    target=st.text(max_size=20),
    headers=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=20)), max_size=4),
)
def test_whatever_is_passed_makes_one_request_or_none(
    method: str, target: str, headers: list[tuple[str | bytes, str | bytes]]
) -> None:
    """As many lines as fields, every one of them well-formed, and only the last one blank."""
    try:
        head = wire(method, target, headers)
    except InvalidRequest:
        return
    lines = head.split(b"\r\n")
    assert re.fullmatch(rb"[!-~]+ [!-~]+ HTTP/1\.1", lines[0])
    assert lines[-2:] == [b"", b""]
    fields = lines[1:-2]
    assert len(headers) <= len(fields) <= len(headers) + 2
    assert all(re.fullmatch(rb"[!-9;-~]+: [\t -~\x80-\xff]*", field) for field in fields)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x-count": 1}, "the value of header 'x-count' must be str or bytes, not int"),
        ({"x-count": None}, "the value of header 'x-count' must be str or bytes, not NoneType"),
        ({1: "x"}, "header name 1 is not a token"),
        ("x: y", "headers must be a mapping, or pairs of a name and a value, not str"),
        (5, "headers must be a mapping, or pairs of a name and a value, not int"),
        (["x: y"], "one of them is something else"),
    ],
)
def test_headers_of_the_wrong_type(headers: HeaderInput, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        wire(headers=headers)


@pytest.mark.parametrize("method", [None, b"GET", 5])
def test_a_method_of_the_wrong_type(method: str) -> None:
    with pytest.raises(InvalidRequest, match="method must be a token such as 'GET', not"):
        wire(method)


def test_a_mapping_is_no_body() -> None:
    body: Body = {"a": 1}  # type: ignore[dict-item]  # which it could tell
    with pytest.raises(InvalidRequest, match=r"json\.dumps"):
        write_request("POST", "/", b"h", None, body)
