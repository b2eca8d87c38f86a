"""The throw-away servers keep their own promises."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.servers import (
    MariaDBServer,
    NginxServer,
    PgBouncerServer,
    PostgresServer,
    RedisServer,
    Server,
    ServerNotInstalled,
    ServerNotStarted,
)
from tests.servers._reaper import _children

KINDS: list[Callable[[], Server]] = [PostgresServer, MariaDBServer, RedisServer, NginxServer]


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind.kind))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param() as server:
        yield server


def connects(server: Server) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_port_outlives_stop_kill_and_restart(server: Server) -> None:
    """Whatever happens to a server, its port refuses while it is down and is its own again afterwards."""
    port = server.port
    assert connects(server)
    for end in (server.stop, server.kill):
        end()
        assert not connects(server)
        server.start()
        assert connects(server)
    server.restart()
    assert connects(server)
    assert server.port == port


def test_starting_does_not_connect_to_the_port(server: Server) -> None:
    """While a server comes back, tests count the connections to its port; on a busy machine ours was one of them."""
    server.stop()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server.host, server.port))
        listener.listen()
        with pytest.raises(OSError, match=r"refused|No such file"):
            server._is_ready()


def test_nginx_has_started_when_its_worker_has() -> None:
    """The port accepts before: by the kernel, on behalf of a worker to come."""
    with NginxServer() as server:
        (worker,) = _children()[server.process_id]
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            server._is_ready()
        os.kill(worker, signal.SIGCONT)
        server._wait_until_ready(20)


def test_pause_is_a_black_hole_until_resume(server: Server) -> None:
    """A paused server accepts and says nothing; it can be stopped all the same."""
    server.pause()
    assert connects(server)
    with socket.create_connection((server.host, server.port), timeout=0.05) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
    server.resume()
    assert connects(server)
    server.pause()
    server.stop()
    assert not connects(server)


def test_close_leaves_no_process_and_no_file(server: Server) -> None:
    """Closing kills every process and deletes every file."""
    process, directory = server.process_id, server.directory
    server.close()
    assert not Path(f"/proc/{process}").exists()
    assert not directory.exists()
    with pytest.raises(RuntimeError, match="not running: call start"):
        server.pause()


def test_pgbouncer_serves_its_postgres(postgres_server: PostgresServer) -> None:
    """PgBouncer passes a query on, and is down when it is stopped."""
    with PgBouncerServer(postgres_server, mode="session") as server:
        done = subprocess.run(["psql", server.url, "-Atc", "SELECT 42"], capture_output=True, text=True, check=True)
        assert done.stdout == "42\n"
        server.stop()
        assert not connects(server)


async def test_async_variants_leave_trio_running(fresh_redis_server: RedisServer) -> None:
    """While a server restarts, other tasks run."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await fresh_redis_server.restart_async()
        nursery.cancel_scope.cancel()
    assert turns > 3
    assert connects(fresh_redis_server)


def test_bad_setting_raises_with_the_servers_own_words() -> None:
    """A server that refuses its configuration says why."""
    with pytest.raises(ServerNotStarted, match="no_such_setting"), PostgresServer(settings={"no_such_setting": "1"}):
        pass


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server is an error that says what to install."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    server = RedisServer()
    with pytest.raises(ServerNotInstalled, match="apt-get install --no-install-recommends redis-server"), server:
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_end_with_the_run_however_it_ends(number: signal.Signals) -> None:
    """A run that is killed leaves no server and no directory behind."""
    program = (
        "import time\n"
        "from tests.servers import PostgresServer\n"
        "server = PostgresServer().start()\n"
        "server.pause()\n"
        "print(server.process_id, server.directory.parent, flush=True)\n"
        "time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    process, directory = run.stdout.readline().split()
    reaper = next(child for child in _children()[run.pid] if "_reaper" in command_of(child))
    descriptor = os.pidfd_open(reaper)
    run.send_signal(number)
    run.communicate()
    trio.run(wait_until_ended, descriptor)
    os.close(descriptor)
    assert command_of(int(process)) == ""
    assert not Path(directory).exists()


async def wait_until_ended(descriptor: int) -> None:
    """A pidfd is readable once its process has ended."""
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(descriptor)


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except FileNotFoundError:
        return ""
