"""Build the site from a checkout: `python -m docs.site [FOLDER]`, by default into build/site. Broken links are errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.site import prose
from docs.site.reference import write_reference

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself; links that people follow may lead anywhere.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\"\s>]+)|<link\b(?=[^>]*stylesheet)[^>]*href=\"?(https?:[^\"\s>]+)"
)


def build(out: Path) -> None:
    """Write the site into `out`, whose pages work from disk. Raises SystemExit for a broken link, and for a page that fetches something."""
    shutil.rmtree(out, ignore_errors=True)
    pages = out / "pages"
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("site", "*.py", "__pycache__"))
    shutil.copytree(ROOT / "docs/site/static", pages / "static")
    write_reference(pages / "reference")
    shutil.copy(ROOT / "mkdocs.yml", out)
    zensical = Path(sys.executable).parent / "zensical"
    run = subprocess.run([zensical, "build", "--strict"], cwd=out, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(_broken(run.stdout + run.stderr.partition("Traceback")[0]))
    if fetched := sorted({name for page in (out / "site").rglob("*.html") for name in _outside(page)}):
        raise SystemExit(f"Pages fetch what is not theirs: {', '.join(fetched)}.")


def report() -> str:
    """Return words of each document, and the sentences that are too long."""
    pages = prose.read_pages(ROOT)
    counts = {page: prose.words(text) for page, text in pages.items()}
    lines = [f"{count:7,}  {page}" for page, count in counts.items()]
    long = prose.long_sentences(pages)
    lines.append(f"{sum(counts.values()):7,}  words; {len(long)} sentences have more than {prose.LONG}")
    return "\n".join([*lines, *(f"{one.words:7}  {one.page}: {one.text[:100]}" for one in long[:20])])


def _broken(said: str) -> str:
    """Return what is broken and where, a line each, of Zensical's coloured report."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    found = re.findall(r"Warning: (.+)\n\s*\S*\[ (\S+) \]", plain)
    return "\n".join(f"docs/{place}: {what}" for what, place in found) or plain


def _outside(page: Path) -> list[str]:
    return [first or second for first, second in _FETCHED.findall(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs").resolve()
    build(folder)
    print(report())
    print(f"The site: {folder / 'site/index.html'}")
