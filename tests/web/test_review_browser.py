"""The reading pages in a real browser against a real server: two readers, a killed server, no network, another machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from restain.cli import app as command_line
from restain.review import Study

from .conftest import in_browser, watch
from .review_study import ReviewProcess, ReviewServer, make_study, sign_in
from .test_viewer import CONTRAST, DESK, TABLET

pytestmark = [pytest.mark.browser, in_browser]
# What a browser, or OpenSeadragon, logs by itself when the server is away.
AWAY = (
    "failed to load: %s",
    "ERR_INTERNET_DISCONNECTED",
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_EMPTY_RESPONSE",
)


@pytest.fixture
def machine(browser) -> Iterator[Callable[..., Any]]:
    """A machine with a reader's browser; at the end nothing may have been logged but that the server was away."""
    contexts, faults = [], []

    def make(served: Any, name: str, size: dict[str, int] = DESK, language: str = "en-GB") -> Any:
        context = browser.new_context(viewport=size, locale=language, timezone_id="UTC")
        contexts.append(context)
        context.set_default_timeout(15_000)
        sign_in(context, served.url, name)
        context.on("page", lambda page: watch(page, faults))
        return context

    make.faults = faults
    yield make
    for context in contexts:
        context.close()
    assert [fault for fault in faults if not any(word in fault for word in AWAY)] == []


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    return make_study(tmp_path, cases=2)


@pytest.fixture
def served(trial: Path, tmp_path: Path) -> Iterator[ReviewServer]:
    running = ReviewServer(tmp_path, [trial])
    yield running
    running.stop()


def begin(context: Any, served: Any) -> Any:
    """From the list of studies to the first image."""
    page = context.new_page()
    page.goto(f"{served.url}/review")
    page.locator("a.main").click()
    page.locator("#begin").click()
    drawn(page)
    return page


def token_of(page: Any) -> str:
    return page.evaluate("window.restainReview.state.token")


def drawn(page: Any) -> None:
    """Until the image stands there in full."""
    page.wait_for_function(
        """() => {
            const { state, reviewImage } = window.restainReview ?? {};
            if (!state?.token || state.moving) return false;
            const item = reviewImage().viewer.world.getItemAt(0);
            return item && item.source.getTileUrl(0, 0, 0).includes(state.token) && item.getFullyLoaded();
        }"""
    )


def saved(page: Any) -> None:
    page.wait_for_function("() => window.restainReview.queue.empty && !window.restainReview.queue.busy")


def onward(page: Any) -> None:
    """To the next image, or to the end."""
    before = token_of(page)
    page.get_by_role("button", name="Submit").click()
    page.wait_for_function("(before) => window.restainReview.state.token !== before", arg=before)
    if page.locator("#desk").is_visible():
        drawn(page)


def answers_of(trial: Path, reader: str) -> list[tuple[str, str]]:
    with Study.open(trial) as study:
        return [(one.question, one.value) for one in study.answers() if one.reader == reader]


@pytest.mark.slow
def test_two_readers_complete_a_review_and_its_results_are_theirs(machine, served, trial, tmp_path):
    pages = {name: begin(machine(served, name), served) for name in ("anna", "bo")}
    given: dict[str, list[tuple[str, str]]] = {"anna": [], "bo": []}
    for turn in range(4):
        for name, page in pages.items():
            level, modality = str((turn + len(name)) % 4), str(turn % 2 + 1)
            if name == "anna":
                # By keys alone.
                for key in (level, modality, "4"):
                    page.keyboard.press(key)
                page.keyboard.press("a")
                page.keyboard.type("pale, n = 3")
                page.keyboard.press("Escape")
            else:
                page.locator("[data-question=her2]").get_by_text(
                    ["0", "1+", "2+", "3+"][int(level)], exact=True
                ).click()
                page.locator("[data-question=modality]").get_by_text(
                    ["Chemical", "Virtual"][int(modality) - 1], exact=True
                ).click()
                page.locator("[data-question=quality]").get_by_text("4", exact=True).click()
            given[name] += [("her2", ["0", "1+", "2+", "3+"][int(level)])]
            given[name] += [("modality", ["chemical", "virtual"][int(modality) - 1]), ("quality", "4")]
            given[name] += [("remarks", "pale, n = 3")] if name == "anna" else []
            onward(page)
    for name, page in pages.items():
        assert page.get_by_role("heading", name="Finished").is_visible()
        assert answers_of(trial, name) == given[name]
    with Study.open(trial) as study:
        assert all(one.complete for one in study.readings())
        assert all(one.seconds is not None and 0 < one.seconds < 300 for one in study.answers())
    done = CliRunner().invoke(command_line, ["review", "results", str(trial), "-o", str(tmp_path / "results")])
    assert done.exit_code == 0
    assert (tmp_path / "results" / "answers.csv").read_text(encoding="utf-8").count("\n") > 16
    assert json.loads((tmp_path / "results" / "results.json").read_bytes())


@pytest.mark.slow
def test_a_killed_server_loses_and_doubles_nothing(machine, trial, tmp_path):
    running = ReviewProcess(tmp_path, trial)
    try:
        page = begin(machine(running, "anna"), running)
        page.keyboard.press("2")
        saved(page)
        assert answers_of(trial, "anna") == [("her2", "2+")]
        running.kill()
        # The reader goes on answering.
        page.keyboard.press("1")
        page.keyboard.press("5")
        page.get_by_text("The server does not respond").wait_for()
        page.get_by_role("button", name="Submit").click()
        first = token_of(page)
        running.start()
        page.wait_for_function("(first) => window.restainReview.state.token !== first", arg=first)
        drawn(page)
        expected = [("her2", "2+"), ("modality", "chemical"), ("quality", "5")]
        assert answers_of(trial, "anna") == expected
        # Killed while answers are under way: whatever the page shows as saved is there, and nothing twice.
        for key in ("0", "2", "3"):
            page.keyboard.press(key)
        running.kill()
        running.start()
        saved(page)
        assert answers_of(trial, "anna") == [*expected, ("her2", "0"), ("modality", "virtual"), ("quality", "3")]
        onward(page)
    finally:
        running.stop()


def test_without_network_answers_wait_in_the_browser_even_if_the_page_is_closed(machine, served, trial):
    context = machine(served, "anna")
    page = begin(context, served)
    context.set_offline(True)
    page.keyboard.press("3")
    page.keyboard.press("0")
    page.keyboard.press("1")
    page.get_by_text("The server does not respond").wait_for()
    assert page.locator("[data-question=her2] .saved-state").inner_text() == "Not sent yet"
    assert answers_of(trial, "anna") == []
    token = token_of(page)
    page.close()
    context.set_offline(False)
    page = begin(context, served)
    assert token_of(page) == token
    saved(page)
    assert answers_of(trial, "anna") == [("her2", "3+"), ("modality", "chemical")]
    assert page.locator("input[value='3+']").is_checked()


@pytest.mark.slow
def test_whoever_is_signed_out_loses_nothing(machine, served, trial):
    context = machine(served, "anna")
    page = begin(context, served)
    context.clear_cookies()
    page.keyboard.press("2")
    page.get_by_text("You are signed out").wait_for()
    sign_in(context, served.url, "bo")
    # Another reader at the same browser sends nothing of it.
    other = begin(context, served)
    assert other.evaluate("window.restainReview.queue.empty")
    context.clear_cookies()
    sign_in(context, served.url, "anna")
    page.evaluate("window.restainReview.queue.flush(true)")
    page.wait_for_function("() => window.restainReview.state.counts.her2 === '2+'")
    assert answers_of(trial, "anna") == [("her2", "2+")]
    assert answers_of(trial, "bo") == []
    machine.faults[:] = [fault for fault in machine.faults if "401" not in fault and "404" not in fault]


@pytest.mark.slow
def test_on_another_machine_the_reader_goes_on_at_the_same_item(machine, served, trial):
    one = begin(machine(served, "anna"), served)
    one.keyboard.press("1")
    one.locator("textarea").fill("membrane faint")
    saved_text = one.locator("[data-question=remarks] .saved-state")
    one.wait_for_function("() => window.restainReview.state.counts.remarks === 'membrane faint'")
    assert saved_text.inner_text() == "Saved"
    other = begin(machine(served, "anna", TABLET), served)
    assert token_of(other) == token_of(one)
    assert other.locator("input[value='1+']").is_checked()
    assert other.locator("textarea").input_value() == "membrane faint"
    assert other.locator("#left").inner_text() == "2 answers missing"


@pytest.mark.slow
def test_of_two_machines_the_one_that_was_away_does_not_win(machine, served, trial):
    away = machine(served, "anna")
    one = begin(away, served)
    away.set_offline(True)
    one.keyboard.press("1")
    one.get_by_text("The server does not respond").wait_for()
    other = begin(machine(served, "anna"), served)
    other.keyboard.press("3")
    saved(other)
    away.set_offline(False)
    one.get_by_text("answered in another window").wait_for()
    assert one.locator("input[value='3+']").is_checked()
    assert answers_of(trial, "anna") == [("her2", "3+")]
    # The browser logs the refusal by itself.
    machine.faults[:] = [fault for fault in machine.faults if "409" not in fault]


def test_earlier_items_can_be_looked_at_and_changed(machine, served, trial):
    page = begin(machine(served, "anna"), served)
    assert page.get_by_role("button", name="Back").is_disabled()
    page.keyboard.press("Enter")
    assert page.locator("#number").inner_text() == "Image 1 of 4"
    for key in ("0", "1", "2"):
        page.keyboard.press(key)
    first = token_of(page)
    onward(page)
    page.keyboard.press("b")
    page.wait_for_function("(first) => window.restainReview.state.token === first", arg=first)
    drawn(page)
    assert page.locator("input[value='0']").is_checked()
    page.locator("input[value='2+']").focus()
    page.keyboard.press("ArrowRight")
    saved(page)
    onward(page)
    assert page.locator("#number").inner_text() == "Image 2 of 4"
    assert answers_of(trial, "anna")[-1] == ("her2", "3+")


def test_an_image_that_cannot_be_shown_is_passed_over(machine, served, trial):
    with Study.open(trial) as study:
        item = study.next_item("anna")
        study.view("anna", item.token)[0].unlink()
    page = machine(served, "anna").new_page()
    page.goto(f"{served.url}/review/{served.study}")
    page.locator("#begin").click()
    page.get_by_role("alert").get_by_text("tell the person who runs the study").wait_for()
    page.get_by_role("button", name="Skip for now").click()
    page.wait_for_function("(token) => window.restainReview.state.token !== token", arg=item.token)
    drawn(page)
    for key in ("0", "1", "2"):
        page.keyboard.press(key)
    onward(page)
    assert page.get_by_role("heading", name="Some images cannot be shown").is_visible()
    machine.faults[:] = [fault for fault in machine.faults if "422" not in fault]


@pytest.mark.slow
def test_only_time_in_sight_counts(machine, served, trial):
    context = machine(served, "anna")
    page = begin(context, served)
    page.clock.install()
    page.reload()
    page.locator("#begin").click()
    page.wait_for_function("() => window.restainReview.state.token")
    start = page.evaluate("window.restainReview.viewTimer.seconds")
    page.clock.run_for(20_000)
    seen = page.evaluate("window.restainReview.viewTimer.seconds")
    assert 19 < seen - start < 25
    turn = """(state) => {
        Object.defineProperty(document, "visibilityState", { configurable: true, value: state });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(turn, "hidden")
    page.clock.run_for(600_000)
    page.evaluate(turn, "visible")
    assert page.evaluate("window.restainReview.viewTimer.seconds") - seen < 5
    # Under a closed lid nothing ticks, and the page hears nothing of it.
    page.clock.fast_forward(3_600_000)
    assert page.evaluate("window.restainReview.viewTimer.seconds") - seen < 8
    page.keyboard.press("1")
    page.clock.run_for(1000)
    page.wait_for_function("() => window.restainReview.state.counts.her2 === '1+'")
    with Study.open(trial) as study:
        assert 19 < study.answers()[0].seconds < 60


def test_the_scale_bar_and_the_magnification_hold(machine, served):
    page = begin(machine(served, "anna"), served)
    page.get_by_role("button", name="20×").click()
    page.wait_for_function("() => Math.abs(window.restainReview.reviewImage().unitsPerPx - 0.5) < 1e-6")
    length = float(page.locator("#scale b").inner_text().split()[0])
    assert page.locator("#scale i").bounding_box()["width"] * 0.5 == pytest.approx(length, rel=0.02)
    page.keyboard.press("o")
    page.wait_for_function("() => window.restainReview.reviewImage().unitsPerPx > 0.4")


@pytest.mark.slow
def test_the_second_part_is_waited_for_on_the_readers_own_clock(machine, tmp_path):
    trial = make_study(tmp_path, cases=2, washout_days=10, questions=["her2"])
    served = ReviewServer(tmp_path, [trial])
    try:
        page = begin(machine(served, "anna"), served)
        for _ in range(2):
            page.keyboard.press("1")
            onward(page)
        assert page.get_by_role("heading", name="The first part is finished").is_visible()
        with Study.open(trial) as study:
            day = study.progress("anna").next_at
        words = f"{day:%-d %B %Y}"
        assert words in page.locator("#end-text").inner_text()
        page.get_by_role("link", name="All studies").last.click()
        page.get_by_text(words).wait_for()
        assert page.locator("a.main").count() == 0
    finally:
        served.stop()


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("size", [DESK, TABLET], ids=["desktop", "tablet"])
def test_pages_fit_and_their_text_stands_out(machine, served, size, language):
    # WCAG 2.2, 1.4.3: a ratio of 4.5 for text.
    page = begin(machine(served, "anna", size, language), served)

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(CONTRAST) == []

    fits()
    box = page.locator("#next").bounding_box()
    assert box["y"] + box["height"] <= size["height"]
    for choice in page.locator(".choice").all():
        assert min(choice.bounding_box()[side] for side in ("width", "height")) >= 44
    page.context.set_offline(True)
    page.keyboard.press("1")
    page.wait_for_selector(".saving[data-state=away]")
    fits()
    page.context.set_offline(False)
    page.keyboard.press("?")
    fits()
    for address in ("/review", f"/review/{served.study}"):
        page.goto(served.url + address)
        fits()


def test_every_control_has_a_name(machine, served):
    page = begin(machine(served, "anna"), served)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, textarea, [role], [tabindex='0']")]
            .filter((one) => one.checkVisibility() && !one.closest(".image *"))
            .filter((one) => !one.ariaLabel && !one.textContent.trim() && !one.labels?.length && one.id !== "saving")
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert page.get_by_role("group", name="HER2 IHC score?").get_by_role("radio").count() == 4
    assert page.get_by_role("status").count() == 1


def test_a_remark_begun_while_the_next_image_is_on_its_way_stays_with_its_image(machine, served, trial):
    page = begin(machine(served, "anna"), served)
    first = token_of(page)
    for question, value in (("her2", "2+"), ("modality", "virtual"), ("quality", "4")):
        page.locator(f"[data-question={question}] input[value='{value}']").check()
    saved(page)
    held = []
    page.route("**/next", lambda route: held.append(route))
    page.get_by_role("button", name="Submit").click()
    page.locator("textarea").press_sequentially("granular")
    page.wait_for_function("() => window.restainReview.state.moving !== null")
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_function("(before) => window.restainReview.state.token !== before", arg=first)
    drawn(page)
    saved(page)
    with Study.open(trial) as study:
        remarks = [one for one in study.answers() if one.question == "remarks"]
        assert [one.value for one in remarks] == ["granular"]
        assert study.item("anna", first).answers["remarks"] == "granular"
    assert page.locator("textarea").input_value() == ""
