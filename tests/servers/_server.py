"""What every throw-away server has in common."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import trio

from ._reaper import kill_tree, pause_tree, resume_tree, start_reaper

Settings = Mapping[str, str | Sequence[str]]
"""Lines for a server's own configuration file. A sequence repeats its name once a value."""


class ServerNotInstalled(RuntimeError):
    """A server's program is not on this machine. The message says which Debian package has it."""


class ServerNotStarted(RuntimeError):
    """A server ended, or was not ready in time. The message has the end of its log."""


class _Run:
    """What this process's servers share: one directory, and the reaper that deletes it when this process is gone."""

    def __init__(self) -> None:
        # Servers that run as another user must be able to pass through.
        self.directory = Path(tempfile.mkdtemp(prefix="respool-"))
        self.directory.chmod(0o711)
        self._reaper = start_reaper(self.directory)
        atexit.register(self._reaper.communicate)

    def tell_reaper(self, verb: str, process: int) -> None:
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(f"{verb} {process}\n")


@functools.cache
def this_run() -> _Run:
    """The one `_Run` of this process."""
    return _Run()


def new_directory(name: str, owner: str | None) -> Path:
    """Make an empty directory that belongs to the user `owner`."""
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=this_run().directory))
    if owner is not None:
        shutil.chown(directory, owner, pwd.getpwnam(owner).pw_gid)
    return directory


def program(name: str, package: str) -> str:
    """Find a server's program, also where Debian keeps it out of the way."""
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    path = os.pathsep.join([*map(str, postgres), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerNotInstalled(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return found


def other_user(*names: str) -> str | None:
    """The user to run a server as which refuses root: the first that exists, or None when this is not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*names, "nobody") if name in known)


def run_as(user: str | None, command: Sequence[str], *, directory: Path) -> None:
    """Run one command to its end; what it said is in the error if it fails."""
    log = directory / "log"
    process = start_as(user, command, directory=directory, log=log)
    if process.wait():
        raise ServerNotStarted(f"{' '.join(command)} failed ({process.returncode}):\n{log.read_text(errors='replace')}")


def start_as(user: str | None, command: Sequence[str], *, directory: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, so that Ctrl-C reaches only the process that started it."""
    group = None if user is None else pwd.getpwnam(user).pw_gid
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )


def lines(settings: Settings, form: str) -> str:
    """Settings as configuration lines: `form` holds ``{name}`` and ``{value}``."""
    return "".join(
        form.format(name=name, value=value) + "\n"
        for name, values in settings.items()
        for value in ([values] if isinstance(values, str) else values)
    )


class Server(ABC):
    """One throw-away server process, its directory and its port, which stay the same over restarts."""

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    host = "127.0.0.1"

    def __init__(self, *, user: str | None = None, tls: bool = False) -> None:
        self.user = user
        self.directory = new_directory(self.kind, user)
        # Bound for good but never listening: nobody else is given this port while the server is down, and Linux lets
        # the server listen on it because both sides set SO_REUSEADDR.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind((self.host, 0))
        self.port: int = self._reservation.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.tls = tls
        if tls:
            self._write_certificate()

    # What each kind of server says about itself

    @property
    @abstractmethod
    def url(self) -> str:
        """Where and as whom to connect."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it serves. OSError means not yet."""

    # TLS

    @property
    def ca_file(self) -> Path:
        """The authority that a client should trust."""
        return self.directory / "ca.pem"

    @property
    def certificate_file(self) -> Path:
        """The server's certificate, for 127.0.0.1 and localhost."""
        return self.directory / "server.pem"

    @property
    def key_file(self) -> Path:
        """The server's key."""
        return self.directory / "server.key"

    def _write_certificate(self) -> None:
        import trustme

        authority = trustme.CA()
        certificate = authority.issue_cert(self.host, "localhost")
        authority.cert_pem.write_to_path(self.ca_file)
        certificate.cert_chain_pems[0].write_to_path(self.certificate_file)
        certificate.private_key_pem.write_to_path(self.key_file)
        self.key_file.chmod(0o600)
        if self.user is not None:
            shutil.chown(self.key_file, self.user)

    # Life

    @property
    def process_id(self) -> int:
        """The server's main process.

        Raises:
          RuntimeError: if it is not running.
        """
        if self._process is None:
            raise RuntimeError(f"this {self.kind} server is not running: call start() first")
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has said so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, *, timeout: float = 20.0) -> Self:
        """Start, and wait until it serves.

        Raises:
          ServerNotStarted: with the end of the server's log.
        """
        if self._process is not None:
            raise RuntimeError(f"this {self.kind} server is already running: call stop() or kill() first")
        log = self.directory / "log"
        self._process = start_as(self.user, self._command(), directory=self.directory, log=log)
        this_run().tell_reaper("started", self._process.pid)
        try:
            self._wait_until_ready(timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_until_ready(self, timeout: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError):
                if self._is_ready():
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerNotStarted(f"{self.kind} did not start:\n{self.log[-4000:]}")
            time.sleep(0.01)

    def stop(self, *, timeout: float = 10.0) -> None:
        """Ask it to shut down as an administrator would, and wait until it has. Killed if it takes too long."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._ended()

    def kill(self) -> None:
        """SIGKILL every process of it, and wait until they are gone."""
        if self._process is None:
            return
        kill_tree(self._process.pid)
        self._process.wait()
        self._ended()

    def _ended(self) -> None:
        assert self._process is not None
        this_run().tell_reaper("ended", self._process.pid)
        self._process = None

    def pause(self) -> None:
        """SIGSTOP every process of it: its port still accepts, and nothing answers."""
        pause_tree(self.process_id)

    def resume(self) -> None:
        """Undo `pause`."""
        resume_tree(self.process_id)

    def restart(self) -> None:
        """`stop` and `start`: same port, same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and delete everything. Twice is harmless."""
        self.kill()
        self._reservation.close()
        if self.directory.exists():
            shutil.rmtree(self.directory)

    async def start_async(self) -> Self:
        """Call `start` while Trio runs on."""
        return await trio.to_thread.run_sync(self.start)

    async def stop_async(self) -> None:
        """Call `stop` while Trio runs on."""
        await trio.to_thread.run_sync(self.stop)

    async def kill_async(self) -> None:
        """Call `kill` while Trio runs on."""
        await trio.to_thread.run_sync(self.kill)

    async def restart_async(self) -> None:
        """Call `restart` while Trio runs on."""
        await trio.to_thread.run_sync(self.restart)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
