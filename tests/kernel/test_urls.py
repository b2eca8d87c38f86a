"""From a URL to an adapter: through entry points, and never a password in an error's text."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import respool
from respool._urls import adapter_from_url
from respool.testing import FakeResource, GatedAdapter


@attrs.define(eq=False)
class UrlAdapter(GatedAdapter):
    url: str = ""

    @classmethod
    def from_url(cls, url: str) -> UrlAdapter:
        return cls(url=url)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution is installed whose adapter serves fake: and fake+tls: URLs."""
    information = tmp_path / "respool_fake-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: respool-fake\nVersion: 1.0\n")
    target = f"{__name__}:UrlAdapter.from_url"
    (information / "entry_points.txt").write_text(f"[respool.adapters]\nfake = {target}\nfake+tls = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    importlib.invalidate_caches()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("url", ["fake://user:hunter2@host:1234/path?option=1", "fake+tls://host", "FAKE://host"])
def test_a_scheme_finds_its_adapter(url: str) -> None:
    """Written in whatever case; the adapter gets the URL as it is."""
    adapter = adapter_from_url(url)
    assert isinstance(adapter, UrlAdapter)
    assert adapter.url == url


@pytest.mark.usefixtures("installed")
async def test_open_pool_takes_a_url() -> None:
    """And lends what the adapter opens."""
    async with respool.open_pool("fake://host", name="by URL", max_size=1) as pool, pool.acquire() as resource:
        assert pool.name == "by URL"
        assert isinstance(resource, FakeResource)


@pytest.mark.usefixtures("installed")
def test_an_unknown_scheme_is_told_what_there_is() -> None:
    """The scheme and those that are served, but nothing else of the URL."""
    with pytest.raises(ValueError, match=r"^no installed adapter serves 'nosuch' URLs") as raised:
        adapter_from_url("nosuch://user:hunter2@host/secret")
    assert "fake, fake+tls" in str(raised.value)
    assert "install its package" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":",
        "://host",
        "user:hunter2@host/path",
        "password=hunter2 host=::1",
        "password=hunter2 url=fake://host",
        "1hunter2://host",
        "hunter2:secret://host",
    ],
)
def test_what_has_no_scheme_is_refused(text: str) -> None:
    """A connection string of another kind, or half a URL, is not taken for a scheme, and not repeated."""
    with pytest.raises(ValueError, match=r"'postgresql://host/database' is needed: this one has no scheme$") as raised:
        adapter_from_url(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("url", ["nosuch://user:hunter2@host", "nosuch+tls://:hunter2@", "nosuch:hunter2@host"])
def test_the_password_never_shows(url: str) -> None:
    """Neither in the text nor in a cause."""
    with pytest.raises(ValueError, match="URL") as raised:
        adapter_from_url(url)
    assert "hunter2" not in repr(raised.value)
    assert raised.value.__cause__ is raised.value.__context__ is None
