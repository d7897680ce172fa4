"""Take the README's pictures of the running app: ``python docs/screenshots.py ADDRESS``.

In: the address of an app with the bundled model. Out: ``docs/images/*.png``, each under 300 KB.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parent / "images"
SAID = "six three oh seven zero six"
MAX_BYTES = 300_000
SHOTS = {"app-light.png": ("light", 1280, 1140), "app-phone-dark.png": ("dark", 390, 844)}


def transcribe(page: Page, address: str) -> None:
    """Open the page and transcribe an example, twice: the first run is slower than the rest."""
    page.goto(address)
    example = page.locator("#examples").get_by_role("button", name=SAID, exact=True)
    for _ in range(2):
        example.click()
        page.get_by_text("of sound became text").wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
    page.mouse.move(0, 0)


def main(address: str) -> None:
    """Take every picture.

    Raises:
        ValueError: a picture is too large for the repository.
    """
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (scheme, width, height) in SHOTS.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            transcribe(page, address)
            page.screenshot(path=IMAGES / name)
            size = (IMAGES / name).stat().st_size
            if size > MAX_BYTES:
                raise ValueError(f"{name} has {size} bytes; expected at most {MAX_BYTES}")


if __name__ == "__main__":
    main(sys.argv[1])
