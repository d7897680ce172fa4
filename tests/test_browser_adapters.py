"""Adapters in a real Chromium: added on the Models tab, chosen, linked to, removed.

Each test also fails on a page error, a console error, or a request that leaves this machine. Run
alone: ``python -m pytest -m browser tests/test_browser_adapters.py``.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file, save_file

from app_server import TINY
from browser_page import IN_A_BROWSER, PATIENT_MS, SIZES, Visitor
from core.checkpoint.peft_format import CONFIG, WEIGHTS

pytestmark = IN_A_BROWSER
SAID = "three one eight"
RIGHT, WRONG = "Same as the reference", "word error"


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled model's adapter, all of it zero: it does not hear."""
    folder = tmp_path_factory.mktemp("adapters") / "deaf"
    folder.mkdir()
    (folder / CONFIG).write_bytes((TINY / CONFIG).read_bytes())
    tensors = {key: torch.zeros_like(value) for key, value in load_file(TINY / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    return folder


def open_adapters(page: Page) -> None:
    page.get_by_role("tab", name="Models", exact=True).click()
    page.get_by_role("button", name="Adapters of this model").click()
    expect(page.locator("#adapter-source textarea, #adapter-source input")).to_be_visible()


def add(page: Page, source: str) -> None:
    page.locator("#adapter-source textarea, #adapter-source input").fill(source)
    page.locator("#adapter-add").click()


def remove(page: Page, name: str) -> None:
    page.locator("#adapter-remove").click()
    expect(page.locator("#adapter-status")).to_contain_text(f"{name} was removed")
    expect(page.locator("#adapter-remove")).to_be_hidden()


def choose(page: Page, name: str) -> None:
    page.locator("#adapter input").click()
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator("#adapter input")).to_have_value(name)


def hear_example(page: Page, remark: str) -> None:
    """Transcribe the example, until the page remarks on what was really said."""
    page.locator("#examples").get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator("#reference-result")).to_contain_text(remark, timeout=PATIENT_MS)


def test_an_adapter_is_added_chosen_linked_to_and_removed(guest: Visitor, deaf: Path) -> None:
    page = guest.open("phone", "dark")
    expect(page.locator("#adapter")).to_be_hidden()
    open_adapters(page)
    add(page, str(deaf))
    expect(page.locator("#adapter-status")).to_contain_text("deaf was added", timeout=PATIENT_MS)
    expect(page.locator("#adapters-list")).to_contain_text(f"deaf from {deaf}")
    expect(page.locator("#models li").first).to_contain_text("Adapters added here: deaf")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    page.get_by_role("tab", name="Transcribe", exact=True).click()
    choose(page, "deaf")
    page.get_by_role("button", name="More settings").click()
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("#link textarea, #link input")
    expect(link).to_have_value(re.compile("adapter=deaf"))
    where = link.input_value()
    hear_example(page, WRONG)
    guest.go(page)
    expect(page.locator("#adapter input")).to_have_value("deaf")

    other = guest.open()
    guest.go(other, where)
    expect(other.locator("#adapter input")).to_have_value("deaf")
    other.get_by_role("tab", name="Compare", exact=True).click()
    other.get_by_role("button", name="A and B in detail").click()
    other.locator("#b-adapter input").click()
    expect(other.get_by_role("option", name="deaf", exact=True)).to_be_visible()
    other.keyboard.press("Escape")

    open_adapters(page)
    remove(page, "deaf")
    page.get_by_role("tab", name="Transcribe", exact=True).click()
    expect(page.locator("#adapter")).to_be_hidden()
    hear_example(page, RIGHT)


def test_uploads_are_taken_and_rubbish_gets_a_sentence_in_place(
    guest: Visitor, deaf: Path, tmp_path: Path
) -> None:
    page = guest.open()
    open_adapters(page)
    alert = page.locator("#adapter-status").get_by_role("alert")
    page.locator("#adapter-add").click()
    expect(alert).to_contain_text("no adapter was given; type a folder")
    add(page, str(tmp_path))
    expect(alert).to_contain_text("has no adapter_config.json; expected a folder")
    add(page, "")
    (tmp_path / "letter.txt").write_text("dear sir")
    files = page.locator("#adapter-files input[type=file]")
    files.set_input_files([tmp_path / "letter.txt"])
    expect(page.locator("#adapter-files")).to_contain_text("letter")
    page.locator("#adapter-add").click()
    expect(alert).to_contain_text("letter.txt came; expected adapter_config.json")
    page.locator("#adapter-files").get_by_label(re.compile("clear|remove", re.I)).first.click()
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for name in (CONFIG, WEIGHTS):
            archive.write(deaf / name, name)
    page.locator("#adapter-files input[type=file]").set_input_files([tmp_path / "zipped.zip"])
    expect(page.locator("#adapter-files")).to_contain_text("zipped")
    page.locator("#adapter-add").click()
    expect(page.locator("#adapter-status")).to_contain_text("zipped was added", timeout=PATIENT_MS)
    remove(page, "zipped")
