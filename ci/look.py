"""Look at the pages of the documentation as they were built: nothing is loaded from elsewhere, and nothing is cut.

    python ci/look.py docs/_build/html

What a page loads is read from its text. Where there is a Chromium, it opens every page at two widths: no line of code
is cut, nothing is wider than the page, and every picture is there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (390, 1280)
LOADS = re.compile(
    r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["'](https?:)?//|url\(["']?(?:https?:)?//|@import"""
)
LEFT_OUT = ("genindex.html", "search.html", "py-modindex.html")
PROBE = """<!DOCTYPE html><title>probe</title><body><script>
const pages = PAGES, widths = WIDTHS, found = [];
const look = (name, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument, room = page.documentElement.clientWidth;
    const all = selector => [...page.querySelectorAll(selector)];
    const moves = x => x && (/auto|scroll|hidden/.test(getComputedStyle(x).overflowX) || moves(x.parentElement));
    const said = x => (x.textContent || x.src || "").trim().slice(0, 60);
    const say = (what, x) => found.push(`${name} at ${width}: ${what}: ${said(x)}`);
    all("pre").filter(x => x.scrollWidth > x.clientWidth + 1).forEach(x => say("a line of code is cut", x));
    all("article *").filter(x => x.getBoundingClientRect().right > room + 1 && !moves(x.parentElement))
      .forEach(x => say("wider than the page", x));
    all("img").filter(x => x.complete && !x.naturalWidth).forEach(x => say("no picture", x));
    frame.remove();
    done();
  };
  frame.src = name;
  document.body.append(frame);
});
onload = async () => {
  for (const name of pages) for (const width of widths) await look(name, width);
  document.body.innerHTML = "";
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify({looked: pages.length, found});
  document.body.append(out);
};
</script>"""


def pages(folder: Path) -> list[Path]:
    """The pages of the documentation, without indices and what belongs to the theme."""
    found = (page.relative_to(folder) for page in sorted(folder.rglob("*.html")))
    return [page for page in found if page.name not in LEFT_OUT and not page.parts[0].startswith("_")]


def loads(folder: Path) -> list[str]:
    """What is loaded from elsewhere."""
    files = [folder / page for page in pages(folder)] + sorted(folder.rglob("*.css"))
    return [
        f"{file.relative_to(folder)} loads something from elsewhere: {match[0]}"
        for file in files
        if (match := LOADS.search(file.read_text(encoding="utf-8")))
    ]


def cut(folder: Path, chromium: str) -> list[str]:
    """What does not fit, in a browser."""
    names = [page.as_posix() for page in pages(folder)]
    with tempfile.TemporaryDirectory() as home:
        probe = Path(home, "site", "probe.html")
        shutil.copytree(folder, probe.parent)
        text = PROBE.replace("PAGES", json.dumps(names)).replace("WIDTHS", json.dumps(WIDTHS))
        probe.write_text(text, encoding="utf-8")
        words = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--allow-file-access-from-files",
            f"--user-data-dir={home}/profile", "--window-size=1400,1000",
            "--virtual-time-budget=600000", "--dump-dom", probe.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    (said,) = re.findall(r'<pre id="found">(.+?)</pre>', done.stdout, flags=re.DOTALL)
    seen = json.loads(said.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    if seen["looked"] != len(names):
        sys.exit(f"the browser looked at {seen['looked']} pages of {len(names)}")
    return list(seen["found"])


def main(folder: str) -> None:
    """Say what is wrong, if anything."""
    root = Path(folder).resolve()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    found = loads(root) + (cut(root, chromium) if chromium else [])
    how = (
        f"looked at in {Path(chromium).name} at {WIDTHS} pixels"
        if chromium
        else "read; there is no Chromium to look at them"
    )
    print(*found, f"{len(pages(root))} pages {how}, {len(found)} findings", sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main(sys.argv[1])
