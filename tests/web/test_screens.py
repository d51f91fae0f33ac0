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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_overflows_and_text_has_contrast_at_three_widths(page, server, language):
    view = f"/view/{server.id_of(HE)}?mode=three&dab=0.7&ood=1&"
    for path in ("/?sort=case&folder=BCI/HE&", "/?kind=unreadable&", view, "/review?", "/study/new?", "/nothing?"):
        page.goto(f"{server.url}{path}lang={language}")
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate(CONTRAST) == [], (path, width, scheme)
    page.goto(f"{server.url}/?lang=en")


def titles(page) -> list[str]:
    return page.locator(".card .title").all_inner_texts()


def apply(page) -> None:
    with page.expect_navigation():
        page.get_by_role("button", name="Apply").click()


def test_the_library_is_filtered_by_kind_case_and_folder(page, server):
    page.goto(server.url)
    page.locator("[name=kind]").select_option("virtual")
    apply(page)
    assert titles(page) == [VIRTUAL]
    page.locator("[name=kind]").select_option("unreadable")
    apply(page)
    assert sorted(titles(page)) == ["odd/broken.png", "odd/cut.ome.tiff"]
    assert page.locator("[name=kind]").input_value() == "unreadable"
    # The folders keep the filter, and the filter keeps the folder.
    page.get_by_role("link", name="BCI (").click()
    page.wait_for_url("**folder=BCI**")
    assert page.get_by_role("heading", name="No matching images").is_visible()
    page.locator("[name=kind]").select_option("")
    apply(page)
    assert len(titles(page)) == 2
    page.locator("[name=patient]").select_option("BCI")
    page.locator("[name=sort]").select_option("case")
    apply(page)
    assert page.locator(".case h2").all_inner_texts() == ["Patient BCI"]
    assert titles(page) == [f"BCI/{stain}/train/00001_train_2+.png" for stain in ("HE", "IHC")]


def test_the_view_is_rotated_and_its_brightness_and_contrast_changed(page, server):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{server.url}/view/{server.id_of(HE)}?mode=side")
    settle(page)
    page.get_by_text("Rotation, brightness, contrast").click()
    for key, value in (("rotation", "90"), ("brightness", "150"), ("contrast", "80")):
        page.locator(f"#{key}").fill(value)
    page.wait_for_url("**rotation=90**contrast=0.8**")
    filters = page.evaluate("window.restainView.scene.panes.map((pane) => pane.viewer.canvas.style.filter)")
    assert filters == ["brightness(1.5) contrast(0.8)"] * 2
    before = page.evaluate("window.restainView.scene.first.viewer.viewport.getCenter().y")
    page.locator("#panes").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    # Right on the screen is up or down in a picture turned by a quarter.
    assert abs(page.evaluate("window.restainView.scene.first.viewer.viewport.getCenter().y") - before) > 0.05
    page.reload()
    settle(page)
    assert page.evaluate("window.restainView.scene.first.viewer.viewport.getRotation()") == 90
    page.get_by_text("Rotation, brightness, contrast").click()
    page.locator("#original").click()
    page.wait_for_function("() => window.restainView.scene.first.viewer.viewport.getRotation() === 0")
    assert page.evaluate("window.restainView.scene.first.viewer.canvas.style.filter") == ""


@pytest.mark.parametrize(("width", "height"), SIZES[1:])
def test_three_panes_stand_side_by_side_on_a_screen(page, server, width, height):
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{server.url}/view/{server.id_of(HE)}?mode=three")
    settle(page)
    boxes = [pane.bounding_box() for pane in page.locator(".pane:visible").all()]
    assert len(boxes) == 3
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    assert min(box["width"] for box in boxes) > 200


def test_everything_works_under_the_path_of_a_proxy(page, start, tmp_path):
    running = start(tmp_path, root_path="/her2")
    lost = []
    page.on("response", lambda answer: lost.append(answer.url) if answer.status == 404 else None)
    try:
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(f"{running.url}/?q=block")
        page.get_by_role("heading", name=HE, exact=True).get_by_role("link").click()
        settle(page)
        page.keyboard.press("p")
        page.keyboard.press("Space")
        page.wait_for_function("() => document.getElementById('saved').textContent === 'Saved'")
        page.get_by_role("link", name="简体中文").click()
        settle(page)
        assert page.locator("html").get_attribute("lang") == "zh-Hans"
        for link in page.locator("header a").all():
            assert link.evaluate("(one) => one.href").startswith(f"{running.url}/")
        page.goto(f"{running.url}/review?lang=en")
        page.get_by_role("link", name="New study").click()
        page.wait_for_url("**/her2/study/new")
        page.goto(running.url)
        page.get_by_role("link", name="BCI (").click()
        page.wait_for_url("**/her2/*folder=BCI")
        assert lost == []
    finally:
        running.stop()


def test_panes_stack_on_a_phone_and_overlays_belong_to_their_stain(page, server):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}/view/{server.id_of(HE)}?mode=three&dab=0.7&rotation=30")
    settle(page)
    boxes = [pane.bounding_box() for pane in page.locator(".pane:visible").all()]
    assert len(boxes) == 3
    assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]
    assert all(box["width"] > 380 for box in boxes)
    # The overview would cover a pane.
    assert not page.locator(".navigator").is_visible()
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
            const { Refused, isTemporary } = await import("./static/review-answers.js");
            const { ViewTimer } = await import("./static/review-timer.js");
            const timer = new ViewTimer("test ");
            timer.begin("one");
            timer.last -= 1000;
            timer.tick(false);
            const hidden = timer.seconds;
            timer.last -= 60_000;
            timer.tick(true);
            const slept = timer.seconds;
            timer.begin("two");
            const other = timer.seconds;
            timer.begin("one");
            const line = { type: "LineString", coordinates: [[0, 0], [10, 0]] };
            const state = readAddress("?mode=three&beside=a&third=b&rotation=90&contrast=9", [{ id: "a" }, { id: "b" }]);
            return {
              near: [nearLine(line, 5, 2, 3), nearLine(line, 5, 4, 3), nearLine(line, 14, 0, 3)],
              texts: [valueText("Area µm^2", 2500000), valueText("Length µm", 12.345), valueText("DAB: 1+ area %", 12.345)],
              nice: [niceLength(160), niceLength(0.07)],
              hidden, slept, other, again: timer.seconds,
              temporary: [isTemporary(new TypeError()), isTemporary(new Refused(503)), isTemporary(new Refused(409))],
              alone: [readAddress("?mode=three", [{ id: "a" }]).mode, readAddress("?map=0", []).map],
              state: [state.mode, state.beside, state.third, state.rotation, state.contrast],
            };
        }"""
    )
    assert found["near"] == [True, False, False]
    assert found["texts"] == ["2.50 mm²", "12.3 µm", "12.3 %"]
    assert found["nice"] == pytest.approx([100, 0.05])
    # Time out of sight does not count, nor more than two seconds of a sleep; each item has its own.
    assert (found["hidden"], found["other"]) == (pytest.approx(0, abs=0.3), pytest.approx(0, abs=0.3))
    assert found["slept"] == found["again"] == pytest.approx(2, abs=0.3)
    assert found["alone"] == ["side", False]
    assert found["temporary"] == [True, True, False]
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
