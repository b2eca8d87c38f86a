"""URLs, arguments, names that keep secrets, and what errors mean."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import pytest
import trio
from pymysql import err
from respool_mysql import MySQLAdapter

from respool.abc import Verdict

KEEP, DISCARD, PERMANENT = Verdict.KEEP, Verdict.DISCARD, Verdict.PERMANENT
RETIRE = Verdict.RETIRE | Verdict.DISCARD


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mysql://", "localhost:3306/"),
        ("mysql://db.example.org/shop", "db.example.org:3306/shop"),
        ("mariadb://app:secret@[::1]:3307/caf%C3%A9?charset=utf8mb4", "::1:3307/café"),
        ("mysql://app@/shop?unix_socket=/run/mysqld.sock&autocommit=on&read_timeout=2.5", "/run/mysqld.sock/shop"),
    ],
)
def test_urls(url: str, name: str) -> None:
    """The name says where, as OpenTelemetry asks, and never as whom."""
    adapter = MySQLAdapter.from_url(url)
    assert adapter.name == name
    assert repr(adapter) == f"<MySQLAdapter {name}>"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:secret@h/", "mysql://user@host"),
        ("mysql://u:secret/#@h/", "write / as %2F"),
        ("mysql://u:secret@h/?colour=green", "no option 'colour'; it has autocommit, "),
        ("mysql://u:secret@h/?autocommit=perhaps", "'autocommit' of the URL must be true or false"),
        ("mysql://u:secret@h/?read_timeout=secret", "'read_timeout' of the URL must be a number"),
        ("mysql://u@h/?sql_mode=a#secret", "write # as %23"),
        ("mysql://u:secret@h:0/", "port must not be 0"),
        ("mysql://u:secret@h/?ssl_ca=", "'ssl_ca' of the URL must not be empty"),
        ("mysql://u:secret@h/?charset=secret", "does not know that charset"),
    ],
)
def test_urls_that_cannot_be_read(url: str, says: str) -> None:
    """What is wrong, what to do, and nothing that may be a password."""
    with pytest.raises(ValueError, match=says) as caught:
        MySQLAdapter(url)
    assert "secret" not in str(caught.value)


def test_arguments_that_cannot_work() -> None:
    """PyMySQL's own checks, when the adapter is made and not when a pool first opens."""
    with pytest.raises(TypeError, match="colour"):
        MySQLAdapter(colour="green")  # type: ignore[call-arg]
    with pytest.raises(NotImplementedError, match="compress"):
        MySQLAdapter(compress=True)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="connect_timeout"):
        MySQLAdapter(connect_timeout=0)
    with pytest.raises(FileNotFoundError):
        MySQLAdapter(ssl_ca="/nowhere")


def test_arguments_win_over_the_url() -> None:
    assert MySQLAdapter("mysql://h/one", database="two").name == "h:3306/two"


def test_an_adapter_is_a_value() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        MySQLAdapter().reset_session = True  # type: ignore[misc]


def test_option_files(tmp_path: Path) -> None:
    """Read once; ours as PyMySQL's."""
    file = tmp_path / "my.cnf"
    file.write_text("[client]\nhost = db.example.org\nport = 3307\ndatabase = 'shop'\npassword = secret\n")
    adapter = MySQLAdapter(read_default_file=str(file))
    file.unlink()
    assert adapter.name == "db.example.org:3307/shop"
    assert "secret" not in repr(adapter)


def operational(number: int, text: str = "…") -> err.OperationalError:
    return err.OperationalError(number, text)


def certificate() -> err.OperationalError:
    error = operational(2003, "Can't connect")
    error.original_exception = ssl.SSLCertVerificationError("self-signed certificate")
    return error


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        *(
            (operational(number), DISCARD)
            for number in (2006, 2013, 2014, 1152, 1153, 1158, 1161, 1184, 1927, 3169, 4031)
        ),
        *((operational(number), RETIRE) for number in (1053, 1077, 1836, 3032)),
        *((operational(number), PERMANENT) for number in (1044, 1045, 1049, 1129, 1130, 1698, 2026, 2059, 3118, 4151)),
        *((operational(number), KEEP) for number in (1040, 1203, 1205, 1213, 1317, 2003)),
        (operational(1792), DISCARD),
        (operational(1290, "running with the --read-only option so it cannot"), RETIRE),
        (operational(1290, "running with the --super-read-only option so it cannot"), RETIRE),
        (operational(1290, "running with the --secure-file-priv option so it cannot"), KEEP),
        (operational(1047, "WSREP has not yet prepared node for application use"), RETIRE),
        (operational(1047, "Unknown command"), KEEP),
        (err.InternalError("Packet sequence number wrong - got 5 expected 1"), DISCARD),
        (err.InterfaceError(0, ""), DISCARD),
        (err.IntegrityError(1062, "Duplicate entry"), KEEP),
        (err.ProgrammingError("Cursor closed"), KEEP),
        (certificate(), PERMANENT),
        (RuntimeError("'cryptography' package is required"), PERMANENT),
        (KeyError("a borrower's own"), KEEP),
        (trio.TooSlowError(), KEEP),
        (KeyboardInterrupt(), KEEP),
    ],
    ids=repr,
)
def test_verdicts(error: BaseException, verdict: Verdict) -> None:
    assert MySQLAdapter().verdict(error) == verdict


async def test_a_cancellation_says_nothing() -> None:
    """`is_clean` knows how the connection was left."""
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as caught:
            await trio.lowlevel.checkpoint()
    assert MySQLAdapter().verdict(caught.value) == KEEP
