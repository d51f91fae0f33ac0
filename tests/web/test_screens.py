"""Pages at the widths of a phone, a tablet and a desktop: nothing overflows, texts have contrast, scripts compute rightly."""

import pytest

from .conftest import in_browser
from .test_viewer import CONTRAST, HE, VIRTUAL, settle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    in_browser,
]
SIZES = ((390, 844), (1024, 768), (1440, 900))


@pytest.fixture(scope="module")
def page(server, browser):
    """One page for all tests, in which no script may fail."""
    faults = []
    page = browser.new_page(locale="en-GB")
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.goto(server.url)
    yield page
    page.close()
    assert faults == []


def test_nothing_overflows_and_text_has_contrast_at_three_widths(page, server):
    for path in ("/?sort=case", f"/view/{server.id_of(HE)}?mode=three&dab=0.7", "/review", "/study/new"):
        page.goto(server.url + path)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
        assert page.evaluate(CONTRAST) == [], path


def test_panes_stack_on_a_phone_and_overlays_belong_to_their_stain(page, server):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}/view/{server.id_of(HE)}?mode=three&dab=0.7&rotation=30")
    settle(page)
    boxes = [pane.bounding_box() for pane in page.locator(".pane:visible").all()]
    assert len(boxes) == 3
    assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]
    assert all(box["width"] > 380 for box in boxes)
    densities = page.evaluate("window.restainView.scene.all.map((pane) => pane.items.has('density'))")
    # The H&E and the virtual stain show the density of the virtual stain; the chemical one has none.
    assert densities == [True, True, False]
    assert page.locator("#dab-owner").inner_text() == f"of {VIRTUAL}"
    rotations = page.evaluate("window.restainView.scene.all.map((pane) => pane.viewer.viewport.getRotation())")
    assert rotations == [30, 30, 30]


def test_scripts_compute_lengths_places_and_addresses(page, server):
    page.goto(server.url)
    found = page.evaluate(
        """async () => {
            const { nearLine } = await import("./static/shapes.js");
            const { valueText } = await import("./static/annotations.js");
            const { niceLength } = await import("./static/scale-bar.js");
            const { readAddress } = await import("./static/address.js");
            const line = { type: "LineString", coordinates: [[0, 0], [10, 0]] };
            const state = readAddress("?mode=three&beside=a&third=b&rotation=90&contrast=9", [{ id: "a" }, { id: "b" }]);
            return {
              near: [nearLine(line, 5, 2, 3), nearLine(line, 5, 4, 3), nearLine(line, 14, 0, 3)],
              texts: [valueText("Area µm^2", 2500000), valueText("Length µm", 12.345), valueText("DAB: 1+ area %", 12.345)],
              nice: [niceLength(160), niceLength(0.07)],
              state: [state.mode, state.beside, state.third, state.rotation, state.contrast],
            };
        }"""
    )
    assert found["near"] == [True, False, False]
    assert found["texts"] == ["2.50 mm²", "12.3 µm", "12.3 %"]
    assert found["nice"] == pytest.approx([100, 0.05])
    assert found["state"] == ["three", "a", "b", 90, 1]


def test_a_ruler_is_drawn_with_the_keyboard_and_measured(page, server):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{server.url}/view/{server.id_of(VIRTUAL)}?mode=single&x=375&y=275&mpp=1")
    settle(page)
    page.keyboard.press("k")
    page.keyboard.press("Space")
    page.evaluate("window.restainView.scene.moveTo(475, 275, 1, true)")
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('#features td')?.textContent === '100 µm'")
    page.keyboard.press("Delete")
    page.wait_for_function("() => window.restainView.annotations.features.length === 0")
