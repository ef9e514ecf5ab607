"""Pictures of the pages for ``docs/pictures``, at 1280 and 390 pixels, light and dark.

Needs Playwright, Pillow and Chromium. Each page is a file or an address; the text box and the file
field of the served page are filled in.

    python benchmarks/pictures.py --report report/report.html --audit audit/audit.html
    python benchmarks/pictures.py --explain why.html --docs build/docs/index.html
    python benchmarks/pictures.py --page http://127.0.0.1:8080/ --file new.csv
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

PAGES = {"report": 2000, "audit": 2000, "explain": 900, "docs": 900, "page": 1600}
"""Pages, and the most pixels of their height that are shown."""
WIDTHS = {1280: 900, 390: 844}
SCHEMES = ("light", "dark")
MOST_BYTES = 100_000  # larger pictures get 256 colors


def address(place: str) -> str:
    """The address of a file, or the address itself."""
    return place if "://" in place else Path(place).resolve().as_uri()


def fill_in(page: Any, text: str, file: str | None) -> None:
    """Type a text into the served page, and drop a file on it."""
    page.locator("textarea").first.fill(text)
    page.locator("#bars button").first.wait_for()
    if file is not None:
        page.set_input_files("#file", file)
        page.locator("#rows tr").nth(2).wait_for(timeout=60_000)
    page.wait_for_timeout(3000)


def take(browser: Any, name: str, options: argparse.Namespace) -> None:
    """The pictures of one page."""
    for width, height in WIDTHS.items():
        for scheme in SCHEMES:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(address(getattr(options, name)))
            page.wait_for_timeout(1000)
            if name == "page":
                fill_in(page, options.text, options.file)
            whole = page.evaluate("document.documentElement.scrollHeight")
            shown = max(height, min(whole, PAGES[name]))
            page.set_viewport_size({"width": width, "height": shown})
            page.wait_for_timeout(500)
            path = options.out / f"{name}-{width}-{scheme}.png"
            page.screenshot(path=path)
            if path.stat().st_size > MOST_BYTES:
                small = Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
                small.save(path, optimize=True)
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            print(f"{name} {width} {scheme}: {whole} pixels high, {max(0, over)} too wide")
            page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in PAGES:
        parser.add_argument(f"--{name}", help="file or address")
    parser.add_argument("--text", default="Light and quick, but the battery is poor.")
    parser.add_argument("--file", help="CSV for the served page")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name in PAGES:
            if getattr(options, name):
                take(browser, name, options)
        browser.close()


if __name__ == "__main__":
    main()
