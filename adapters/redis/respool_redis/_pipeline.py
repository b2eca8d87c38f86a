"""Pipelines: many commands in one write, in a transaction or not. Semantics are redis-py's, line by line."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, Self

import redis.asyncio.client
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ConnectionError, ExecAbortError, RedisError, ResponseError, WatchError
from redis.typing import KeyT

from ._commands import RedisCommands
from ._hold import Hold
from ._session import command_name
from ._wire import Commands, NotSent

if TYPE_CHECKING:
    from redis.commands.core import AsyncScript

    from ._connection import Connection

__all__ = ["Pipeline"]


class Pipeline(RedisCommands):
    """Commands queued until `execute` sends them together.

    Every command method queues and returns the pipeline, so calls can be chained. After `watch` commands are sent at
    once, on a connection of the pipeline's own, until `multi`.
    """

    def __init__(self, source: RedisCommands, *, transaction: bool = True) -> None:
        super().__init__(source.connection_pool)
        self.response_callbacks = source.response_callbacks
        self._source = source
        self._hold = Hold(source)
        self.is_transaction = transaction
        self.explicit_transaction = False
        self.watching = False
        self.command_stack: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.scripts: set[AsyncScript] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self._reset(error)

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self

    def __len__(self) -> int:
        return len(self.command_stack)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Pipeline of {len(self)} commands on {self._source!r}>"

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command; or, while watching and before `multi`, send it and return its reply."""
        if (self.watching or command_name(args) == "WATCH") and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **options)
        self.command_stack.append((args, options))
        return self

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command now, on the pipeline's own connection."""
        await self._hold.take()
        try:
            value = await super().execute_command(*args, **options)
        except ConnectionError as error:
            await self._lost(error)
            raise
        name = command_name(args)
        self.watching = name == "WATCH" or (self.watching and name not in {"UNWATCH", "DISCARD", "EXEC"})
        return value

    async def watch(self, *names: KeyT) -> bool:  # type: ignore[override]
        """Have `execute` fail with `redis.WatchError` if one of these keys changes before."""
        if self.explicit_transaction:
            raise RedisError("Cannot issue a WATCH after a MULTI")
        watched: bool = await self.immediate_execute_command("WATCH", *names)
        return watched

    async def unwatch(self) -> bool:  # type: ignore[override]
        """Forget the watched keys."""
        return bool(self.watching and await self.immediate_execute_command("UNWATCH")) or True

    def multi(self) -> None:
        """Queue commands again, for a transaction that depends on what is watched."""
        if self.explicit_transaction:
            raise RedisError("Cannot issue nested calls to MULTI")
        if self.command_stack:
            raise RedisError("Commands without an initial WATCH have already been issued")
        self.explicit_transaction = True

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what is queued and return a result for each command.

        Args:
          raise_on_error: raise the first command's error. Otherwise errors stand in the list. Either way all commands
            are executed: Redis knows no rollback.

        Raises:
          redis.WatchError: a watched key has changed, and nothing was executed.
        """
        if not self.command_stack and not self.watching:
            return []
        try:
            if self.scripts:
                await self._load_scripts()
            if self.is_transaction or self.explicit_transaction:
                results = await self._execute_transaction()
            else:
                results = await self._execute_pipeline()
            if raise_on_error:
                self._raise_first_error(results)
        except NotSent as error:
            await self._lost(error)
            raise
        except BaseException as error:
            await self._reset(error)
            raise
        await self._reset(None)
        return results

    async def discard(self) -> None:
        """Send DISCARD, as in redis-py; queued commands are forgotten by `reset`."""
        await self.execute_command("DISCARD")

    async def reset(self) -> None:  # type: ignore[override]  # as in redis-py, not the command
        """Forget queued commands and watched keys, and give a connection of the pipeline's own back."""
        await self._reset(None)

    aclose = reset

    async def _lost(self, error: ConnectionError) -> None:
        """The connection went before anything was executed: to somebody who watches, that is a `WatchError`."""
        watching = self.watching
        self.watching = False  # the server has forgotten
        await self._reset(error)
        if watching:
            raise WatchError(f"A {type(error).__name__} occurred while watching one or more keys") from error

    async def _reset(self, error: BaseException | None) -> None:
        self.command_stack = []
        self.scripts = set()
        self.explicit_transaction = False
        watching, self.watching = self.watching, False
        connection = self._hold.connection
        try:
            if watching and connection is not None:
                with suppress(ConnectionError):  # a connection that is gone watches nothing
                    await connection.execute_command("UNWATCH")
        finally:
            await self._hold.let_go(error)

    async def _load_scripts(self) -> None:
        scripts = list(self.scripts)
        exists = await super().execute_command("SCRIPT EXISTS", *(script.sha for script in scripts))
        for script, known in zip(scripts, exists, strict=True):
            if not known:
                script.sha = await super().execute_command("SCRIPT LOAD", script.script)

    async def _execute_pipeline(self) -> list[Any]:
        commands = [args for args, _ in self.command_stack]
        replies = await self._exchange(commands, [NEVER_DECODE not in options for _, options in self.command_stack])
        return [await self._result(*queued, reply) for queued, reply in zip(self.command_stack, replies, strict=True)]

    async def _execute_transaction(self) -> list[Any]:
        sent = [args for args, options in self.command_stack if EMPTY_RESPONSE not in options]
        commands = [("MULTI",), *sent, ("EXEC",)]
        first, *queued, results = await self._exchange(commands, [True] * len(commands))
        errors = [(0, first)] if isinstance(first, ResponseError) else []
        errors += self._queueing_errors(iter(queued))
        self.watching = False  # EXEC forgets
        if isinstance(results, ExecAbortError) and errors:
            raise errors[0][1] from results
        if isinstance(results, Exception):
            raise results
        if results is None:
            raise WatchError("Watched variable changed.")
        for position, error in errors:
            results.insert(position, error)
        if len(results) != len(self.command_stack):
            raise ResponseError("Wrong number of response items from pipeline execution")
        return [await self._result(*queued, reply) for queued, reply in zip(self.command_stack, results, strict=True)]

    def _queueing_errors(self, replies: Any) -> list[tuple[int, Any]]:
        """What was refused when it was queued, each with its place; and stand-ins for what was not sent at all."""
        errors = []
        for position, (args, options) in enumerate(self.command_stack):
            if EMPTY_RESPONSE in options:
                errors.append((position, options[EMPTY_RESPONSE]))
            elif isinstance(reply := next(replies), ResponseError):
                errors.append((position, _annotated(reply, position, args)))
            elif isinstance(reply, Exception):
                raise reply
        return errors

    async def _result(self, args: tuple[Any, ...], options: dict[str, Any], reply: Any) -> Any:
        try:
            value = self._interpret(args[0], options, reply)
            return await value if hasattr(value, "__await__") else value
        except ResponseError as error:
            return error

    def _raise_first_error(self, results: list[Any]) -> None:
        for position, result in enumerate(results):
            if isinstance(result, ResponseError):
                raise _annotated(result, position, self.command_stack[position][0])

    async def _exchange(self, commands: Commands, decode: Sequence[bool]) -> list[Any]:
        return await (self._hold.connection or self._source)._exchange(commands, decode)

    def _own_connection(self) -> AbstractAsyncContextManager[Connection]:
        return self._source._own_connection()


redis.asyncio.client.Pipeline.register(Pipeline)  # redis-py's scripts ask whether their client is one


def _annotated(error: ResponseError, position: int, args: tuple[Any, ...]) -> ResponseError:
    """Say which command it was. Unlike redis-py without its arguments: an error's text ends up in logs."""
    text = str(error)
    if not text.startswith("Command # "):
        error.args = (
            f"Command # {position + 1} ({command_name(args)}) of pipeline caused error: {text}",
            *error.args[1:],
        )
    return error
