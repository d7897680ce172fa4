"""Take pictures of the running app: ``python docs/screenshots.py ADDRESS [--all FOLDER]``.

In: the address of an app with the bundled model. Out: README's pictures in ``docs/images``, each
under 300 KB; with ``--all``, every tab whole, light and dark, wide and at 390 px, to be looked at.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import soundfile
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from torchaudio.functional import resample

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SPOKEN = ROOT / "assets" / "examples" / "string_three_one_eight.flac"
SAID, SHORT = "six three oh seven zero six", "three six"
MAX_BYTES = 300_000
MICROPHONE_HZ = 48_000
SHOTS = {"app-light.png": ("light", 1280, 1140), "app-phone-dark.png": ("dark", 390, 844)}
SCHEMES, WIDTHS, HEIGHT = ("light", "dark"), (1280, 390), 900
PATIENT_MS = 900_000


def transcribe(page: Page) -> None:
    """Transcribe an example, twice: the first run is slower than the rest."""
    example = page.locator("#examples").get_by_role("button", name=SAID, exact=True)
    for _ in range(2):
        example.click()
        page.wait_for_timeout(1000)  # what the run before it said is gone
        page.get_by_text("s of audio in").wait_for(timeout=PATIENT_MS)
        page.locator("#chart .js-plotly-plot").wait_for(timeout=PATIENT_MS)
        page.wait_for_timeout(1500)
    page.mouse.move(0, 0)


def speak(page: Page) -> None:
    """Let the microphone play a recording until its words are there."""
    tab(page, "Live")
    page.locator("#live-panel").get_by_role("button", name="Record", exact=True).click()
    page.locator("[data-live=text] .committed:not(:empty)").wait_for(timeout=PATIENT_MS)
    page.wait_for_timeout(1500)


def compare(page: Page) -> None:
    """Compare exact drafts with greedy decoding, as shortly as allows a verdict."""
    tab(page, "Compare")
    page.locator("#compare-examples").get_by_role("button", name=SHORT, exact=True).click()
    page.locator("#compare-recording").get_by_label("Clear").wait_for()
    page.get_by_label("Exact drafts against greedy").check()
    page.locator("#compare-blocks input[type=number]").fill("6")
    page.locator("#compare-go").click()
    page.locator(".verdict").wait_for(timeout=PATIENT_MS)


def sweep(page: Page) -> None:
    """Sweep two lengths, LoRA on and off, as shortly as shows a table and both charts."""
    tab(page, "Compare")
    page.locator("#compare-examples").get_by_role("button", name=SHORT, exact=True).click()
    page.locator("#compare-recording").get_by_label("Clear").wait_for()
    page.get_by_role("button", name="Sweep: every combination").click()
    page.locator("#sweep-engines").get_by_label("Compiled").uncheck()
    page.locator("#sweep-lora").get_by_label("off").check()
    page.locator("#sweep-lengths textarea, #sweep-lengths input").fill("1, 2")
    page.locator("#sweep-blocks input[type=number]").fill("1")
    page.locator("#sweep-go").click()
    page.locator("#sweep-heat .js-plotly-plot").wait_for(timeout=PATIENT_MS)


def evaluate(page: Page) -> None:
    """Evaluate the bundled examples with LoRA and without."""
    tab(page, "Evaluate")
    page.locator("#evaluate-go").click()
    page.locator("#evaluate-picture .js-plotly-plot").wait_for(timeout=PATIENT_MS)


def profile(page: Page) -> None:
    """Open the run that comes with the app."""
    tab(page, "Profile")
    page.locator("#profile-head .tiles").wait_for(timeout=PATIENT_MS)


def models(page: Page) -> None:
    """Open the list of models."""
    tab(page, "Models")


SCENES: dict[str, Callable[[Page], None]] = {
    "transcribe": transcribe,
    "live": speak,
    "compare": compare,
    "sweep": sweep,
    "evaluate": evaluate,
    "profile": profile,
    "models": models,
}


def tab(page: Page, name: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def visit(browser: Browser, address: str, scheme: str, width: int, height: int) -> Page:
    """A page of its own on the app."""
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page.set_default_timeout(PATIENT_MS)
    page.goto(address)
    page.get_by_role("tab", name="Transcribe", exact=True).wait_for()
    return page


def microphone(folder: Path) -> list[str]:
    """Arguments that make the browser's microphone play a recording, again and again."""
    samples, rate = soundfile.read(SPOKEN, dtype="float32")
    spoken = resample(torch.from_numpy(samples), rate, MICROPHONE_HZ).numpy()
    soundfile.write(folder / "said.wav", spoken, MICROPHONE_HZ, subtype="PCM_16")
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'said.wav'}",
    ]


def take_readme(browser: Browser, address: str) -> None:
    """The pictures that README shows.

    Raises:
        ValueError: a picture is too large for the repository.
    """
    IMAGES.mkdir(exist_ok=True)
    for name, (scheme, width, height) in SHOTS.items():
        page = visit(browser, address, scheme, width, height)
        transcribe(page)
        page.screenshot(path=IMAGES / name)
        page.close()
        size = (IMAGES / name).stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{name} has {size} bytes; expected at most {MAX_BYTES}")


def take_all(browser: Browser, address: str, folder: Path, only: str | None) -> None:
    """Every tab, whole, in both schemes and at both widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene, show in SCENES.items():
        if only not in (None, scene):
            continue
        for scheme in SCHEMES:
            for width in WIDTHS:
                page = visit(browser, address, scheme, width, HEIGHT)
                show(page)
                page.wait_for_timeout(1500)  # figures and colours settle
                page.screenshot(path=folder / f"{scene}-{scheme}-{width}.png", full_page=True)
                page.close()


def main() -> None:
    """Read the arguments and take the pictures."""
    parser = argparse.ArgumentParser(description="Pictures of the running app")
    parser.add_argument("address")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every tab, to be looked at")
    parser.add_argument("--only", choices=SCENES, help="of --all: one tab")
    given = parser.parse_args()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as sounds:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", *microphone(Path(sounds))],
        )
        if given.all is None:
            take_readme(browser, given.address)
        else:
            take_all(browser, given.address, given.all, given.only)


if __name__ == "__main__":
    main()
