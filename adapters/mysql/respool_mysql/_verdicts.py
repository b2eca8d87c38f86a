"""What MySQL's and MariaDB's error numbers say about a connection, about its siblings, and about trying again."""

from __future__ import annotations

import ssl

from pymysql import err
from pymysql.constants import CR, ER

from respool.abc import Verdict

_BROKEN = {
    CR.CR_SERVER_GONE_ERROR,  # 2006
    CR.CR_SERVER_LOST,  # 2013
    CR.CR_COMMANDS_OUT_OF_SYNC,
    CR.CR_MALFORMED_PACKET,
    ER.ABORTING_CONNECTION,  # 1152
    ER.NET_PACKET_TOO_LARGE,  # 1153: the server hangs up after it
    ER.NET_READ_ERROR_FROM_PIPE,
    ER.NET_FCNTL_ERROR,
    ER.NET_PACKETS_OUT_OF_ORDER,
    ER.NET_UNCOMPRESS_ERROR,
    ER.NET_READ_ERROR,
    ER.NET_READ_INTERRUPTED,
    ER.NET_ERROR_ON_WRITE,
    ER.NET_WRITE_INTERRUPTED,
    ER.NEW_ABORTING_CONNECTION,  # 1184
    1792,  # cannot execute in a READ ONLY transaction: the session may date from when the server was read-only
    1927,  # MariaDB: connection was killed
    3169,  # MySQL: session was killed
    4031,  # MySQL: closed for inactivity
}

_RETIRING = {
    ER.SERVER_SHUTDOWN,  # 1053
    ER.NORMAL_SHUTDOWN,  # 1077
    1836,  # running in read-only mode
    3032,  # offline mode
}

_PERMANENT = {
    ER.DBACCESS_DENIED_ERROR,  # 1044
    ER.ACCESS_DENIED_ERROR,  # 1045
    ER.BAD_DB_ERROR,  # 1049
    ER.UNKNOWN_CHARACTER_SET,
    ER.HOST_IS_BLOCKED,  # 1129: until an administrator flushes the hosts; more attempts make it no better
    ER.HOST_NOT_PRIVILEGED,  # 1130
    ER.NOT_SUPPORTED_AUTH_MODE,  # 1251
    1524,  # plugin is not loaded
    1698,  # access denied, no password
    1820,  # password must be changed first
    1862,  # password expired
    3118,  # account locked
    3159,  # only secure transports allowed
    4151,  # MariaDB: account locked
    CR.CR_SSL_CONNECTION_ERROR,  # 2026
    CR.CR_AUTH_PLUGIN_CANNOT_LOAD,  # 2059
    CR.CR_AUTH_PLUGIN_ERR,
}


def verdict(error: BaseException) -> Verdict:
    """What `error` says. 1040 (too many connections), deadlocks, duplicates and the like say nothing."""
    if isinstance(error, err.MySQLError):
        return _of_mysql(error)
    # Whatever else a block ended in, a cancellation too, the connection itself knows how it was left. As the end of
    # an attempt to connect, a mistake in the settings, or a package that is not installed, stays what it is.
    return Verdict.PERMANENT if isinstance(error, (TypeError, ValueError, RuntimeError)) else Verdict.KEEP


def _of_mysql(error: err.MySQLError) -> Verdict:
    number = error.args[0] if error.args else None
    text = str(error.args[1]) if len(error.args) > 1 else ""
    if number in _RETIRING or _says_read_only(number, text) or (number == ER.UNKNOWN_COM_ERROR and "WSREP" in text):
        return Verdict.DISCARD | Verdict.RETIRE
    if number in _PERMANENT or isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
        return Verdict.PERMANENT
    if number in _BROKEN or isinstance(error, err.InterfaceError) or "sequence number wrong" in str(number):
        return Verdict.DISCARD
    return Verdict.KEEP


def _says_read_only(number: object, text: str) -> bool:
    """1290 is about any option that forbids something; only one kind of them means a failover."""
    return number == ER.OPTION_PREVENTS_STATEMENT and ("read-only" in text or "read_only" in text)
