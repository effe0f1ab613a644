"""The site: built with broken links as errors, from pages that fetch nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("zensical", reason="the site needs the extra `docs`")

from docs.site import __main__ as site
from docs.site.reference import api_page, errors_page

pytestmark = pytest.mark.slow


def test_the_documents_become_a_site_that_works_from_disk(tmp_path: Path) -> None:
    site.build(tmp_path)
    pages = {page.relative_to(tmp_path / "site").as_posix() for page in (tmp_path / "site").rglob("*.html")}
    documents = {
        page.relative_to(site.ROOT / "docs").with_suffix(".html").as_posix() for page in (site.ROOT / "docs").rglob("*.md")
    }
    assert documents | {"reference/api.html", "reference/commands.html", "reference/errors.html"} <= pages
    commands = (tmp_path / "site/reference/commands.html").read_text(encoding="utf-8")
    assert "<code>--feature-cache SIZE</code>" in commands
    assert "<code>espalier add repo --task birds=birds.safetensors</code>" in commands
    assert "span style" not in commands
    assert "predict_folder" in (tmp_path / "site/reference/api.html").read_text(encoding="utf-8")
    assert "words;" in site.report()


def test_pages_that_are_made_from_the_code() -> None:
    errors = errors_page()
    assert "| `QueueFull` | 429 | RESOURCE_EXHAUSTED |" in errors
    assert "| `NotWritten` |  |  |" in errors  # of the command line alone
    assert "timeout_s: float = 60.0" in api_page()
    assert "self" not in re.findall(r"```python\nClient\((.*?)\)", api_page())[0]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("[a link](nowhere.md)", "docs/more.md:1:10: page does not exist"),
        ("[a link](index.md#no-such-heading)", "docs/more.md:1:19: anchor does not exist"),
        ('<script src="https://example.org/x.js"></script>', "Pages fetch what is not theirs: https://example.org/x.js."),
    ],
)
def test_what_is_broken_ends_the_build(page: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkout"
    (root / "docs/site/static").mkdir(parents=True)
    (root / "docs/reference").mkdir()
    (root / "docs/guides").mkdir()
    (root / "docs/guides/python.md").write_text("# From Python\n")  # which a page that is made leads to
    (root / "docs/index.md").write_text("# Home\n")
    (root / "docs/more.md").write_text(page + "\n")
    (root / "mkdocs.yml").write_text((site.ROOT / "mkdocs.yml").read_text())
    monkeypatch.setattr(site, "ROOT", root)
    with pytest.raises(SystemExit) as ended:
        site.build(tmp_path / "out")
    assert said in str(ended.value)
