"""Every command method there is, compared with ``redis.asyncio``: the same request, and the same value or error.

Against a real server, for what it knows; and against one that gives a strange answer to everything, for all there is:
then a value can only be the same if requests, parsers, response callbacks and options are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

import attrs
import hiredis
import pytest
import redis.asyncio
import trio
from respool_redis import Connection, RedisAdapter

from tests.adapters.redis.calls import MODULE_STORIES, STORIES, Call, calls_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # old commands are to work as well
    pytest.mark.filterwarnings("ignore::UserWarning"),  # and experimental ones
]

OPTIONS: list[dict[str, Any]] = [
    {"protocol": protocol, "decode_responses": decode} for protocol in (None, 2, 3) for decode in (False, True)
]

VARYING = {
    "acl_genpass", "acl_log", "client_id", "client_info", "client_list", "command", "command_list",
    "hotkeys_get", "hpttl", "httl", "info", "lastsave", "latency_histogram", "latency_latest", "lolwut",
    "memory_doctor", "memory_malloc_stats", "memory_stats", "memory_usage", "pttl", "role", "slowlog_get",
    "slowlog_len", "time", "ttl", "xautoclaim", "xinfo_consumers",
}  # fmt: skip
"""Two calls give two values, or their parts in another order."""

DISTURBING = {"bgrewriteaof", "bgsave", "config_rewrite", "save"}
"""What a server that others use is not asked to do."""

ELSEWHERE = {
    "client_reply": "test_adapter.py: it has no reply",
    "bitfield": "test_commands.py: builds a command step by step",
    "hscan_iter sscan_iter scan_iter zscan_iter": "test_commands.py: iterators",
    "lock register_script set_response_callback load_external_module": "test_commands.py: these are no commands",
    "pipeline transaction": "test_pipeline.py",
    "monitor pubsub": "test_pubsub.py",
    "get_encoder get_connection_kwargs": "no commands, but settings",
    "bf cf cms ft json tdigest topk ts vset": "modules, compared below",
    "aclose close client from_pool from_url get_retry set_retry initialize parse_response": "redis-py's own pool",
    "debug_segfault failover psync quit reset shutdown sync": "the end of the connection",
    "keyspace_notifications himport_discard himport_discard_all himport_prepare": "not offered",
}
ELSEWHERE_NAMES = {name for names in ELSEWHERE for name in names.split()}


def test_no_command_is_forgotten() -> None:
    there_are = {name for name, _ in inspect.getmembers(redis.asyncio.Redis, callable) if not name.startswith("_")}
    compared = {call.method for story in STORIES for call in calls_of(story)}
    sentinels = {name for name in there_are if name.startswith("sentinel")}
    assert there_are == compared | ELSEWHERE_NAMES | sentinels


def test_no_command_of_a_module_is_forgotten() -> None:
    client = redis.asyncio.Redis()
    calls = [call for story in MODULE_STORIES for call in calls_of(story)]
    for module in ("bf", "cf", "cms", "ft", "json", "tdigest", "topk", "ts", "vset"):
        commands = getattr(client, module)()
        there_are = {name for name, _ in inspect.getmembers(commands, inspect.ismethod) if name[0] != "_"}
        helpers = {name for name in there_are if name.startswith("append_")}
        helpers |= {"batch_indexer", "execute_command", "get_params_args", "pipeline", "set_file", "set_path", "sugadd"}
        # One takes half a dozen builders; the other of redis-py's own returns a coroutine in its result.
        helpers |= {"hybrid_search", "profile"}
        assert there_are - helpers == {call.method for call in calls if call.module == module}


def plain(value: Any) -> Any:
    """Something that is equal only if type and content are: redis-py's result objects do not compare themselves."""
    if isinstance(value, dict):
        return type(value).__name__, sorted((repr(key), plain(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(map(repr, value))
    if isinstance(value, Exception):
        return type(value).__name__, str(value)
    if hasattr(value, "__dict__"):
        return type(value).__name__, plain({name: item for name, item in vars(value).items() if name != "duration"})
    return type(value).__name__, repr(value)


async def outcome(call: Call, client: Any) -> Any:
    try:
        value = call.on(client)
        return plain(await value if inspect.isawaitable(value) else value)
    except Exception as error:  # noqa: BLE001  # whatever it is, it has to be the same
        return plain(error)


def of_redis_py(url: str, options: dict[str, Any], calls: Sequence[Call]) -> list[Any]:
    """What ``redis.asyncio`` makes of `calls`."""

    async def play() -> list[Any]:
        async with redis.asyncio.Redis.from_url(url, single_connection_client=True, **options) as client:
            await client.echo("begin")
            return [await outcome(call, client) for call in calls]

    return asyncio.run(play())


async def of_ours(url: str, options: dict[str, Any], calls: Sequence[Call]) -> list[Any]:
    connection = await RedisAdapter(url, **options).open()
    try:
        await connection.echo("begin")
        return [await outcome(call, connection) for call in calls]
    finally:
        connection.close_now()


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_a_real_server(url: str, conn: Connection, story: Any, options: dict[str, Any]) -> None:
    calls = [call for call in calls_of(story) if call.method not in DISTURBING]
    expected = await trio.to_thread.run_sync(of_redis_py, url, options, calls)
    await conn.flushall()
    await conn.script_flush()
    for call, theirs, ours in zip(calls, expected, await of_ours(url, options, calls), strict=True):
        if call.method in VARYING:
            theirs, ours = theirs[0], ours[0]  # noqa: PLW2901  # the type, at least
        assert (call, ours) == (call, theirs)


# Whatever the server says.


@attrs.define
class Oracle:
    """A server that gives the same answer to every command after the greeting, and writes down what it is asked."""

    answer: bytes
    url: str = ""
    heard: list[Any] = attrs.Factory(list)

    async def serve(self, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self._speak, listeners, task_status=task_status)

    async def _speak(self, stream: trio.SocketStream) -> None:
        reader, begun = hiredis.Reader(), False
        async for data in stream:
            reader.feed(bytes(data))
            while (command := reader.gets()) is not False:
                if begun:
                    self.heard.append(command)
                await stream.send_all(self.answer if begun else self._greet(command))
                begun = begun or command == [b"ECHO", b"begin"]

    @staticmethod
    def _greet(command: list[bytes]) -> bytes:
        return {b"HELLO": b"%1\r\n+proto\r\n:3\r\n", b"PING": b"+PONG\r\n"}.get(command[0], b"+OK\r\n")


ANSWERS = {
    "OK": b"+OK\r\n",
    "a number": b":1\r\n",
    "text": b"$6\r\nfoo:12\r\n",
    "nothing": b"$-1\r\n",
    "no list": b"*-1\r\n",
    "an empty list": b"*0\r\n",
    "a pair": b"*2\r\n$1\r\na\r\n$3\r\n1.5\r\n",
    "numbers": b"*3\r\n:0\r\n:1\r\n:-1\r\n",
    "pairs": b"*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n*2\r\n:3\r\n$3\r\n2.5\r\n",
    "a count and names": b"*3\r\n:1\r\n$4\r\ndoc1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
    "an error": b"-ERR no such thing\r\n",
    "an error in a list": b"*2\r\n:1\r\n-WRONGTYPE no\r\n",
}
ANSWERS_OF_RESP3 = {
    "null": b"_\r\n",
    "true": b"#t\r\n",
    "a double": b",1.5\r\n",
    "a map": b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*2\r\n:3\r\n,2.5\r\n",
    "a map of maps": b"%1\r\n$1\r\na\r\n%1\r\n+b\r\n*1\r\n%1\r\n+c\r\n,0.5\r\n",
    "a set": b"~1\r\n$1\r\na\r\n",
    "verbatim text": b"=7\r\ntxt:a=b\r\n",
}


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        *[(answer, options) for answer in ANSWERS for options in OPTIONS],
        *[(answer, options) for answer in ANSWERS_OF_RESP3 for options in OPTIONS if options["protocol"] != 2],
    ],
    ids=str,
)
async def test_whatever_the_server_says(answer: str, options: dict[str, Any], nursery: trio.Nursery) -> None:
    """Server's and modules' commands alike."""
    calls = [call for story in [*STORIES, *MODULE_STORIES] for call in calls_of(story)]
    oracle = Oracle({**ANSWERS, **ANSWERS_OF_RESP3}[answer])
    await nursery.start(oracle.serve)
    expected = await trio.to_thread.run_sync(of_redis_py, oracle.url, options, calls)
    asked, oracle.heard = oracle.heard, []
    for call, theirs, ours in zip(calls, expected, await of_ours(oracle.url, options, calls), strict=True):
        assert (call, ours) == (call, theirs)
    assert oracle.heard == asked


def bulk(*texts: str) -> bytes:
    return b"".join(b"$%d\r\n%s\r\n" % (len(text), text.encode()) for text in texts)


RECORDED: dict[str, tuple[Call, bytes, dict[str, Any], Any]] = {
    "JSON.GET": (
        Call("json", (), "get", ("doc", "$.a"), {}),
        bulk('[{"b": [1, 2.5, null]}]'),
        {},
        [{"b": [1, 2.5, None]}],
    ),
    "JSON.NUMINCRBY": (
        Call("json", (), "numincrby", ("doc", "$.n", 1), {}),
        bulk("[2,null]"),
        {"protocol": 2},
        [2, None],
    ),
    "TS.GET": (Call("ts", (), "get", ("t",), {}), b"*2\r\n:1700000000000\r\n+2.5\r\n", {}, (1700000000000, 2.5)),
    "TS.RANGE": (
        Call("ts", (), "range", ("t", "-", "+"), {}),
        b"*2\r\n*2\r\n:1\r\n+0.5\r\n*2\r\n:2\r\n+7\r\n",
        {"protocol": 2},
        [(1, 0.5), (2, 7.0)],
    ),
    "BF.MEXISTS": (Call("bf", (), "mexists", ("b", "x", "y"), {}), b"*2\r\n:1\r\n:0\r\n", {}, [1, 0]),
    "TOPK.LIST": (
        Call("topk", (), "list", ("t",), {}),
        b"*2\r\n" + bulk("x", "y"),
        {"decode_responses": True},
        ["x", "y"],
    ),
    "VSIM": (
        Call("vset", (), "vsim", ("v", "x"), {"with_scores": True}),
        b"%2\r\n" + bulk("x") + b",1\r\n" + bulk("y") + b",0.25\r\n",
        {"protocol": 3, "decode_responses": True},
        {"x": 1.0, "y": 0.25},
    ),
    "FT.DICTDUMP": (Call("ft", ("idx",), "dict_dump", ("d",), {}), b"*1\r\n" + bulk("a"), {"protocol": 2}, [b"a"]),
}


@pytest.mark.parametrize("command", RECORDED)
async def test_what_modules_answer(command: str, nursery: trio.Nursery) -> None:
    """As their documentation has it, and what becomes of it."""
    call, answer, options, value = RECORDED[command]
    oracle = Oracle(answer)
    await nursery.start(oracle.serve)
    (theirs,) = await trio.to_thread.run_sync(of_redis_py, oracle.url, options, [call])
    (ours,) = await of_ours(oracle.url, options, [call])
    assert ours == theirs == plain(value)


async def test_what_a_search_answers(nursery: trio.Nursery) -> None:
    """Documents, as objects."""
    rows = bulk("doc1") + b"*4\r\n" + bulk("title", "Redis", "year", "2009")
    oracle = Oracle(b"*3\r\n:7\r\n" + rows)
    await nursery.start(oracle.serve)
    connection = await RedisAdapter(oracle.url, protocol=2, decode_responses=True).open()
    await connection.echo("begin")
    result = await connection.ft("idx").search("redis")
    assert result.total == 7
    assert [(doc.id, doc.title, doc.year) for doc in result.docs] == [("doc1", "Redis", "2009")]
    connection.close_now()
