"""The pages in a real browser against a real server."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from .conftest import in_browser, watch

pytestmark = [pytest.mark.browser, in_browser]

HE, VIRTUAL, IHC = "block_1.ome.tiff", "virtual/block_1.ome.tiff", "ihc/her2 §1.ome.tiff"
DESK, TABLET = {"width": 1440, "height": 900}, {"width": 820, "height": 1180}


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Opens a page; at the end of a test nothing may have been logged, failed, or asked of another host."""
    contexts, faults = [], []

    def make(url: str, size: dict = DESK, language: str = "en-GB"):
        context = browser.new_context(viewport=size, locale=language, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        watch(page, faults)
        page.on("dialog", lambda dialog: faults.append("a script ran: " + dialog.message))
        page.goto(url)
        return page

    make.faults = faults
    yield make
    for context in contexts:
        context.close()
    assert faults == []


def view_of(page) -> dict[str, float]:
    return page.evaluate("(({x, y, mpp}) => ({x, y, mpp}))(window.restainView.state)")


def settle(page) -> None:
    """Until the view stands still, its tiles are drawn, and the address holds it."""
    page.wait_for_selector("body[data-ready]")
    page.wait_for_function(
        """() => {
            const { scene, state } = window.restainView;
            const { viewport } = scene.first.viewer;
            const still = Math.abs(viewport.getZoom(true) / viewport.getZoom() - 1) < 1e-9
              && viewport.getCenter(true).minus(viewport.getCenter()).x ** 2 < 1e-18;
            const loaded = scene.panes.every((pane) => [...pane.items.values()].every((item) => item.getFullyLoaded()));
            const given = new URLSearchParams(location.search);
            const split = state.mode !== "curtain" || Math.abs(Number(given.get("split")) - state.split) < 0.001;
            return still && loaded && split && given.has("mpp") && given.get("mode") === state.mode
              && Math.abs(Number(given.get("x")) - state.x) < 0.01 && Math.abs(Number(given.get("mpp")) / state.mpp - 1) < 1e-5;
        }"""
    )


def viewer(open_page, server, name: str = HE, query: str = "", **more):
    page = open_page(f"{server.url}/view/{server.id_of(name)}{query}", **more)
    settle(page)
    return page


def colour(page, selector: str, x: float, y: float) -> list[int]:
    """The colour of the pane's canvas at shares of its sides."""
    return page.evaluate(
        """([selector, x, y]) => {
            const canvas = document.querySelector(`${selector} .openseadragon-canvas canvas`);
            const data = canvas.getContext("2d").getImageData(canvas.width * x, canvas.height * y, 1, 1).data;
            return [...data].slice(0, 3);
        }""",
        [selector, x, y],
    )


def test_from_the_library_to_a_slide(open_page, server):
    page = open_page(f"{server.url}/?q=block")
    page.get_by_role("heading", name=HE, exact=True).get_by_role("link").click()
    settle(page)
    assert HE in page.title()
    assert page.locator("#position").inner_text() == "x 375.0, y 275.0 µm"
    assert re.match(r"\d+ µm", page.locator("#scale b").inner_text())


def test_the_search_narrows_the_library_and_says_when_nothing_is_left(open_page, server):
    page = open_page(f"{server.url}/?q=block")
    page.get_by_label("Search by name").fill("her2")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=her2")
    assert page.locator(".card").count() == 1
    page.goto(f"{server.url}/?q=nothing-like-it")
    assert page.get_by_role("heading", name="No matching images").is_visible()


@pytest.mark.slow
def test_wheel_buttons_and_keys_zoom(open_page, server):
    page = viewer(open_page, server)
    whole = view_of(page)["mpp"]
    page.mouse.move(400, 400)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"() => window.restainView.state.mpp < {whole * 0.9}")
    settle(page)
    for power, button in ((10, "10×"), (40, "40×")):
        page.get_by_role("button", name=button).click()
        settle(page)
        assert view_of(page)["mpp"] == pytest.approx(10 / power, rel=1e-4)
        assert page.get_by_role("button", name=button).get_attribute("aria-pressed") == "true"
    page.locator("#panes").focus()
    page.keyboard.press("1")
    settle(page)
    assert view_of(page)["mpp"] == pytest.approx(2, rel=1e-4)
    before = view_of(page)["x"]
    page.keyboard.press("ArrowRight")
    settle(page)
    assert view_of(page)["x"] > before
    page.keyboard.press("0")
    settle(page)
    assert view_of(page)["mpp"] == pytest.approx(whole, rel=1e-4)


def test_the_scale_bar_is_as_long_as_it_says(open_page, server):
    page = viewer(open_page, server, query="?x=300&y=300&mpp=0.37&mode=single")
    length = float(page.locator("#scale b").inner_text().split()[0])
    wide = page.locator("#scale i").bounding_box()["width"]
    assert wide * 0.37 == pytest.approx(length, rel=0.02)


@pytest.mark.slow
def test_a_link_restores_the_exact_view(open_page, server):
    page = viewer(open_page, server, query="?x=231.25&y=187.5&mpp=0.613&mode=curtain&split=0.3&tissue=1")
    assert view_of(page) == pytest.approx({"x": 231.25, "y": 187.5, "mpp": 0.613}, rel=1e-6)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("+")
    settle(page)
    again = open_page(page.url)
    settle(again)
    assert view_of(again) == pytest.approx(view_of(page), abs=0.002)
    side = viewer(open_page, server, query="?x=231.25&y=187.5&mpp=0.613&mode=side")
    assert view_of(side) == pytest.approx({"x": 231.25, "y": 187.5, "mpp": 0.613}, rel=1e-6)
    kept = parse_qs(urlsplit(again.url).query)
    assert (kept["mode"], kept["split"], kept["tissue"]) == (["curtain"], ["0.3"], ["1"])


def test_a_spoilt_link_shows_the_whole_slide(open_page, server):
    page = viewer(open_page, server, query="?x=1e99&y=<b>&mpp=-1&beside=../x&dab=2&mode=evil&split=9")
    assert view_of(page)["x"] == pytest.approx(375, abs=0.01)
    assert page.locator("[data-mode=side]").get_attribute("aria-pressed") == "true"


def test_panes_side_by_side_move_together(open_page, server):
    page = viewer(open_page, server, query="?mode=side")
    for selector in ("#first", "#second"):
        box = page.locator(selector).bounding_box()
        page.mouse.move(box["x"] + 200, box["y"] + 300)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 220, steps=4)
        page.mouse.up()
        settle(page)
        centres = page.evaluate(
            "window.restainView.scene.panes.map(({viewer: {viewport: v}}) => [v.getCenter(true).x, v.getCenter(true).y, v.getZoom(true)])"
        )
        assert centres[0] == pytest.approx(centres[1], rel=1e-6)
    assert view_of(page)["x"] > 380


@pytest.mark.slow
def test_the_curtain_shows_one_image_left_and_the_other_right(open_page, server):
    single = viewer(open_page, server, query="?mode=single")
    place = (0.32, 0.35)
    he = colour(single, "#first", *place)
    page = viewer(open_page, server, query="?mode=curtain&split=0.9")
    assert colour(page, "#first", *place) == pytest.approx(he, abs=3)
    handle = page.locator("#curtain").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 200)
    page.mouse.down()
    page.mouse.move(60, 300, steps=5)
    page.mouse.up()
    settle(page)
    assert float(parse_qs(urlsplit(page.url).query)["split"][0]) < 0.1
    assert colour(page, "#first", *place) != pytest.approx(he, abs=3)
    page.locator("#curtain").focus()
    page.keyboard.press("End")
    assert page.locator("#curtain").get_attribute("aria-valuenow") == "100"


def test_a_registered_ihc_lies_where_the_he_lies(open_page, server):
    # The IHC slide of the fixture is the H&E, moved: laid over, nothing may change.
    single = viewer(open_page, server, query="?mode=single&x=225&y=190&mpp=0.5")
    page = viewer(open_page, server, query=f"?mode=blend&blend=1&x=225&y=190&mpp=0.5&beside={server.id_of(IHC)}")
    for place in ((0.5, 0.5), (0.3, 0.4), (0.6, 0.6)):
        assert colour(page, "#first", *place) == pytest.approx(colour(single, "#first", *place), abs=25)


@pytest.mark.slow
def test_the_notice_stands_wherever_a_virtual_stain_is_shown(open_page, server):
    page = viewer(open_page, server, query="?mode=single")
    for key, marked in (("o", 0), ("s", 1), ("c", 1), ("b", 1)):
        page.keyboard.press(key)
        for shown in (page.locator(".strip.virtual:visible"), page.locator(".corner:visible")):
            assert shown.count() == marked
            assert all("Virtual stain, research use only" in text for text in shown.all_inner_texts())
    # A density of a virtual stain is one too.
    page.keyboard.press("o")
    page.keyboard.press("d")
    assert page.locator(".corner:visible").count() == 1
    own = viewer(open_page, server, VIRTUAL)
    assert own.locator(".strip.virtual:visible").count() == 1


def test_keys_switch_layouts_and_overlays(open_page, server):
    page = viewer(open_page, server, query="?mode=single")
    for key, mode in (("s", "side"), ("c", "curtain"), ("b", "blend"), ("o", "single")):
        page.keyboard.press(key)
        assert page.locator(f"[data-mode={mode}]").get_attribute("aria-pressed") == "true"
    place = (0.32, 0.35)
    before = colour(page, "#first", *place)
    for key in "dt":
        page.keyboard.press(key)
    settle(page)
    page.wait_for_selector("path.tissue")
    assert colour(page, "#first", *place) != before
    assert page.locator("#legend li").count() == 4
    explained = page.get_by_text("so the virtual stain is least reliable there")
    assert not explained.is_visible()
    page.keyboard.press("u")
    page.wait_for_selector("path.ood")
    assert explained.is_visible()
    page.wait_for_url("**ood=1**")
    page.keyboard.press("u")
    page.wait_for_selector("path.ood", state="detached")
    page.keyboard.press("m")
    assert not page.locator(".navigator").is_visible()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_overlays_are_those_of_the_stain_that_is_compared(open_page, server):
    page = viewer(open_page, server, query="?mode=side&dab=0.7&ood=1&tissue=1")
    page.wait_for_selector("path.ood")
    assert page.locator("#dab-owner").inner_text() == f"of {VIRTUAL}"
    assert page.locator("#tissue-owner").inner_text() == f"of {HE}"
    page.locator("#beside").select_option(server.id_of(IHC))
    page.wait_for_selector("path.ood", state="detached")
    assert page.locator("#dab").is_disabled()
    assert page.locator("#ood").is_disabled()
    assert page.locator("#tissue").is_checked()


def saved(page) -> None:
    page.wait_for_function("() => document.getElementById('saved').textContent === 'Saved'")


def test_annotations_are_drawn_by_mouse_and_keys_kept_and_exported(open_page, start, tmp_path: Path):
    running = start(tmp_path)
    try:
        page = viewer(open_page, running, query="?mode=single&x=375&y=275&mpp=1")
        page.keyboard.press("p")
        page.keyboard.press("Space")
        saved(page)
        page.get_by_role("button", name="Rectangle").click()
        box = page.locator("#first").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for by in (20, 120):
            page.mouse.click(middle[0] + by, middle[1] + by, delay=20)
            page.wait_for_timeout(350)
        page.wait_for_function("() => window.restainView.annotations.features.length === 2")
        page.get_by_label("Name").fill("<b>invasive</b>")
        page.keyboard.press("Tab")
        page.wait_for_function("() => window.restainView.annotations.features[1].properties.name")
        page.evaluate("window.restainView.annotations.queue")
        page.reload()
        page.wait_for_selector("text=<b>invasive</b>")
        with page.expect_download() as download:
            page.locator("#export").click()
        point, rectangle = json.loads(Path(download.value.path()).read_text())["features"]
        # The pane's middle is (375, 275) µm, which is px (750, 550) of level 0.
        assert point["geometry"]["coordinates"] == pytest.approx([750, 550], abs=1)
        corners = rectangle["geometry"]["coordinates"][0]
        assert (corners[0], corners[2]) == (pytest.approx([790, 590], abs=3), pytest.approx([990, 790], abs=3))
        settle(page)
        page.mouse.click(middle[0] + 60, middle[1] + 60)
        page.wait_for_selector("#selected:visible")
        page.locator("#panes").focus()
        page.keyboard.press("Delete")
        saved(page)
        assert len(running.image(HE, "annotations").json()["features"]) == 1
    finally:
        running.stop()


def test_annotations_load_from_a_file_and_outlive_the_server(open_page, start, tmp_path: Path):
    feature = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [10, 20]},
        "properties": {"name": "mine"},
    }
    file = tmp_path / "qupath.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    running = start(tmp_path / "state")
    try:
        page = viewer(open_page, running, query="?mode=single")
        page.locator("#file").set_input_files(file)
        page.wait_for_selector("text=mine")
    finally:
        running.stop()
    again = start(tmp_path / "state")
    try:
        (kept,) = again.image(HE, "annotations").json()["features"]
        assert kept["geometry"]["coordinates"] == [10, 20]
    finally:
        again.stop()


@pytest.mark.slow
def test_two_windows_do_not_overwrite_each_other(open_page, start, tmp_path: Path):
    running = start(tmp_path)
    try:
        one, other = (viewer(open_page, running, query="?mode=single") for _ in range(2))
        one.keyboard.press("p")
        one.keyboard.press("Space")
        saved(one)
        other.keyboard.press("p")
        other.keyboard.press("Space")
        other.get_by_role("button", name="Load the saved annotations").click()
        other.wait_for_function("() => window.restainView.annotations.version === 1")
        assert len(running.image(HE, "annotations").json()["features"]) == 1
    finally:
        running.stop()
    # The browser logs the refusal by itself.
    assert [fault for fault in open_page.faults if "409" not in fault] == []
    open_page.faults.clear()


@pytest.mark.parametrize("size", [DESK, TABLET], ids=["desktop", "tablet"])
def test_nothing_runs_over_the_edge(open_page, server, size: dict):
    for path in (
        "/",
        f"/view/{server.id_of(HE)}?mode=side",
        f"/view/{server.id_of('odd/' + 'a_very_long_name_' * 11 + '.png')}",
    ):
        page = open_page(server.url + path, size=size)
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    # A file of the fixture is damaged, and the browser logs that its thumbnail is refused.
    open_page.faults[:] = [fault for fault in open_page.faults if "422" not in fault]


def test_a_chinese_browser_reads_chinese_and_can_switch(open_page, server):
    page = viewer(open_page, server, language="zh-CN", query="?mode=side")
    assert page.locator(".strip.virtual").inner_text().startswith("虚拟染色，仅供科研使用")
    page.get_by_role("link", name="English").click()
    settle(page)
    assert page.locator(".strip.virtual").inner_text().startswith("Virtual stain")


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest("script, :disabled, .skip, noscript") || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(`${element.tagName}.${element.className}: ${element.textContent.slice(0, 40)}`);
  }
  return weak;
}"""


def test_text_stands_out_from_its_ground(open_page, server):
    # WCAG 2.2, 1.4.3: a ratio of 4.5 for text.
    for path in ("/?q=block", f"/view/{server.id_of(HE)}?mode=side&dab=0.7"):
        page = open_page(server.url + path)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(CONTRAST) == []
