"""Staining in a real browser: an image is dropped, a region drawn, tiles come, and the result is taken away."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain import NOTICE

from ..samples import ONE_ISLAND, small_recipe, tissue_picture, write_bundle
from .conftest import in_browser, watch

pytestmark = [pytest.mark.browser, in_browser]


def tissue(height: int, width: int) -> np.ndarray:
    return tissue_picture(height, width, 5, islands=ONE_ISLAND)


@pytest.fixture(scope="module")
def staining(start: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("stained") / "slides"
    root.mkdir()
    Image.fromarray(tissue(300, 400)).save(root / "block.png", dpi=(50_800, 50_800))
    Image.fromarray(tissue(260, 300)).save(root / "biopsy.png", dpi=(50_800, 50_800))
    Image.fromarray(tissue(1600, 3200)).save(root / "large.png", compress_level=1)
    quick = write_bundle(root.parent / "quick", small_recipe("quick"))
    server = start(tmp_path_factory.mktemp("state"), of=root, models=[quick])
    yield server
    server.stop()


@pytest.fixture
def page(browser) -> Iterator[Any]:
    """A page in which nothing may be logged as an error or asked of another host."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB", accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    watch(page, faults)
    page.faults = faults
    yield page
    context.close()
    assert faults == []


def drop(page, name: str, data: bytes) -> None:
    """As a file manager does it."""
    page.evaluate(
        """([name, bytes]) => {
            const moved = new DataTransfer();
            moved.items.add(new File([new Uint8Array(bytes)], name));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                document.getElementById("drop").dispatchEvent(new DragEvent(kind, { dataTransfer: moved, bubbles: true, cancelable: true }));
            }
        }""",
        [name, list(data)],
    )


@pytest.mark.slow
def test_from_a_dropped_image_to_its_virtual_slide(page, staining, tmp_path: Path):
    buffer = io.BytesIO()
    Image.fromarray(tissue(900, 1200)).save(buffer, "PNG", compress_level=9)
    page.goto(f"{staining.url}/stain")
    drop(page, "notes.txt", b"no image")
    assert "file type not supported" in page.locator("#refused").inner_text()
    drop(page, "dropped.png", buffer.getvalue())
    page.wait_for_url("**/stain?image=*")
    page.wait_for_selector("body[data-ready]")
    page.locator("#mpp").fill("0.5")
    page.get_by_label("Rectangle").check()
    page.get_by_role("button", name="Draw").click()
    box = page.locator("#first").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] - 150, middle[1] - 100)
    page.mouse.down()
    page.mouse.move(middle[0] + 150, middle[1] + 100, steps=5)
    page.mouse.up()
    assert page.locator("#draw").get_attribute("aria-pressed") == "false"
    assert page.locator("#width").input_value() != ""
    assert page.locator("svg.shapes path.chosen").count() == 1
    page.get_by_label("Save the DAB density").check()
    page.get_by_label("Stain the whole image").uncheck()
    page.get_by_role("button", name="Start staining").click()
    page.wait_for_url(re.compile(r"/stain/[0-9a-f]+$"))
    page.wait_for_selector("body[data-state=done]")
    page.wait_for_selector("body[data-layer^=result]")
    assert page.locator(".strip.virtual").inner_text() == "Virtual stain, research use only"
    assert page.locator("#first .corner").is_visible()
    with page.expect_download() as taken:
        page.get_by_role("link", name="Virtual slide (OME-TIFF)").click()
    taken.value.save_as(tmp_path / "taken.ome.tiff")
    assert taken.value.suggested_filename == "dropped.ome.tiff"
    with tifffile.TiffFile(tmp_path / "taken.ome.tiff") as tiff:
        assert tiff.pages[0].shape == (900, 1200, 3)
        assert NOTICE in tiff.ome_metadata
    page.get_by_role("link", name="Open in the viewer").click()
    page.wait_for_url("**/view/**")
    page.wait_for_selector("body[data-ready]")
    assert "dropped.ome.tiff" in page.locator("#second .strip.virtual").inner_text()


@pytest.mark.slow
def test_tiles_come_while_it_runs_and_cancel_and_resume_are_there(page, staining):
    page.goto(f"{staining.url}/?q=large")
    page.get_by_role("link", name="Run virtual stain").click()
    page.locator("#mpp").fill("0.5")
    page.get_by_label("Stain the whole image").uncheck()
    page.get_by_role("button", name="Start staining").click()
    page.wait_for_url(re.compile(r"/stain/[0-9a-f]+$"))
    page.wait_for_selector("body[data-layer^=partial]")
    assert page.locator(".strip.virtual").is_visible()
    assert re.search(r"[1-9]\d* of \d+ tiles", page.locator("#tiles-done").inner_text())
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("body[data-state=cancelled]")
    page.wait_for_selector("body[data-layer^=partial]")
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector("body[data-state=done]")
    page.wait_for_selector("body[data-layer^=result]")
    page.get_by_role("button", name="Delete this job").click()
    page.locator("#sure").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/stain")
    page.wait_for_load_state("networkidle")


def test_a_region_is_drawn_with_the_keyboard_alone(page, staining):
    page.goto(f"{staining.url}/stain?image={staining.id_of('block.png')}")
    page.wait_for_selector("body[data-ready]")
    page.locator("#panes").focus()
    page.keyboard.press("r")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => Number(document.getElementById('position').textContent.match(/[0-9.]+/)) > 110")
    page.keyboard.press("Space")
    assert page.locator("#draw").get_attribute("aria-pressed") == "false"
    assert float(page.locator("#width").input_value()) > 5


def test_several_images_are_stained_by_one_press(page, staining):
    page.goto(f"{staining.url}/stain?q=b")
    press = page.get_by_role("button", name="Stain selected images")
    assert press.is_disabled()
    for name in ("block.png", "biopsy.png"):
        page.locator(f"[name=image][value='{staining.id_of(name)}']").check()
    press.click()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#tools li").all_inner_texts() == ["biopsy.png", "block.png"]
    page.get_by_label("Stain the whole image").uncheck()
    page.get_by_role("button", name="Start staining").click()
    page.wait_for_url("**/stain")
    for name in ("block.png", "biopsy.png"):
        page.locator(f"#jobs > li[data-state=done]:has-text('{name}')").first.wait_for()
