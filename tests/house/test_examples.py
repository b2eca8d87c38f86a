"""What readers are told to run, runs.

An example is one program a file in examples/. It reads the URL of each server it needs from an environment variable,
RESPOOL_POSTGRES_URL, RESPOOL_MYSQL_URL, RESPOOL_REDIS_URL or RESPOOL_HTTP_URL; merely naming one in its source makes
this test start that server. It ends by itself within seconds, prints something, and warns of nothing.

In a README, a Python block that calls ``trio.run`` is a whole program: it is run with the URLs in it replaced by those
of real servers. Other Python blocks, there and in docs/, must at least compile.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house._house import ROOT
from tests.servers import Server

EXAMPLES = sorted(path for path in ROOT.glob("examples/*.py") if path.name not in {"__init__.py", "demo.py"})
READMES = [ROOT / "README.md", *sorted(ROOT.glob("adapters/*/README.md"))]
DOCS = sorted(ROOT.glob("docs/**/*.rst"))
FIXTURES = {
    "POSTGRES": "postgres_server",
    "MYSQL": "mariadb_server",
    "REDIS": "redis_server",
    "HTTP": "nginx_server",
}
SCHEMES = {"postgresql": "POSTGRES", "postgres": "POSTGRES", "mysql": "MYSQL", "redis": "REDIS", "http": "HTTP"}
SHOP = "CREATE TABLE IF NOT EXISTS item (id integer PRIMARY KEY, name text); DELETE FROM item; "
SHOP += "INSERT INTO item VALUES (42, 'towel')"

UrlOf = Callable[[str], str]


@pytest.fixture
def url_of(request: pytest.FixtureRequest) -> UrlOf:
    """The URL of a running server of a kind, started when first asked for."""

    def url_of(kind: str) -> str:
        server: Server = request.getfixturevalue(FIXTURES[kind])
        return server.url

    return url_of


def end_of(program: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program, and return how it ended."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(program: Path, environment: dict[str, str]) -> str:
    """Run a program that ends well, and return what it printed."""
    done = end_of(program, environment)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example: Path, url_of: UrlOf) -> None:
    """Each example ends well, and has something to say."""
    kinds = set(re.findall(r"RESPOOL_([A-Z]+)_URL", example.read_text()))
    assert run(example, {f"RESPOOL_{kind}_URL": url_of(kind) for kind in kinds}) != ""


@pytest.mark.parametrize("example", ["http_httpx2.py", "http_reverse_proxy.py"])
def test_an_example_says_which_variable_it_needs(example: str) -> None:
    """Databases have a usual place, which is the default; what there is to ask of an HTTP server nobody knows."""
    done = end_of(ROOT / "examples" / example, {})
    assert (done.stderr.splitlines(), done.returncode) == (
        ["Set RESPOOL_HTTP_URL to a server's URL: http://127.0.0.1:8000"],
        1,
    )


def python_blocks(path: Path) -> list[str]:
    text = path.read_text()
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^\.\. code-block:: python\n((?:\n|[ \t]+.*\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(re.sub(r"^\s*:\w+:.*\n", "", block)) for block in blocks]


PROGRAMS = [(path, block) for path in READMES for block in python_blocks(path) if "trio.run(" in block]


@pytest.mark.parametrize(
    ("path", "block"), PROGRAMS, ids=lambda value: value.parent.name if isinstance(value, Path) else ""
)
def test_readme_programs_run(path: Path, block: str, url_of: UrlOf, tmp_path: Path) -> None:
    """The README's lines work when pasted."""

    def real_url(match: re.Match[str]) -> str:
        kind = SCHEMES[match["scheme"]]
        if kind == "POSTGRES":
            subprocess.run(["psql", "-qc", SHOP, url_of(kind)], check=True, capture_output=True)
        return f'"{url_of(kind)}'

    program = tmp_path / "readme.py"
    program.write_text(re.sub(r'"(?P<scheme>[a-z]+)://[^"/]*(?:/\w+)?', real_url, block))
    assert run(program, {}) != ""


@pytest.mark.parametrize("path", [*READMES, *DOCS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_python_block_compiles(path: Path) -> None:
    """Fragments are Python too; ``await`` may stand alone in them."""
    for block in python_blocks(path):
        compile(block, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_docs_include_only_tested_files(path: Path) -> None:
    """Whatever program the docs pull in is an example, which has been run."""
    for target in re.findall(r"^\.\. literalinclude:: (\S+\.py)$", path.read_text(), re.MULTILINE):
        assert (path.parent / target).resolve() in EXAMPLES
