"""The report's page in a real browser: what its script does, and that nothing in the data runs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sample_runs import CHAINS, PROBLEMS, as_gold, chain_of_thought, make_page_of, make_run, slips
from test_html import HOSTILE, hostile

from socratic.evaluate import Run
from socratic.report.html import write_page
from socratic.types import Step

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FIRST, SECOND = PROBLEMS[0].id, PROBLEMS[1].id


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    say = {"gold": as_gold, "slips": slips, "cot": chain_of_thought}
    return [make_run(folder / name, how, samples=2 if name == "cot" else 1) for name, how in say.items()]


@pytest.fixture(scope="module")
def file(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, make_page_of(runs))
    return path


class Watched:
    """A page, and all that it complained about or asked for."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.address = page, file.as_uri()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def go(self, fragment: str = "") -> Page:
        self.page.goto("about:blank")
        self.page.goto(self.address + fragment)
        return self.page

    def found(self) -> list[str]:
        """The ids in the list, as far as they are shown."""
        return self.page.locator("#list a:not([hidden]) .id > span:first-child").all_text_contents()

    def opened(self, id: str) -> None:
        """Wait until this problem is open; fails where it is not."""
        self.page.locator("#detail h3").filter(has_text=id).wait_for()

    def fragment(self) -> str:
        return str(self.page.evaluate("location.hash"))


@pytest.fixture
def watched(browser: Browser, file: Path) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    seen = Watched(page, file)
    yield seen
    page.close()
    assert seen.complaints == []
    assert {url.partition("#")[0] for url in seen.requests} <= {seen.address, "about:blank"}


def column(page: Page, name: str) -> str:
    return page.locator(f'section[aria-label="{name}"]').inner_text()


def test_an_address_opens_its_problem_with_all_transcripts(watched: Watched) -> None:
    page = watched.go(f"#{SECOND}")
    watched.opened(SECOND)
    assert PROBLEMS[1].question in page.locator(".statement").inner_text()
    assert "Gold: 3" in page.locator(".gold").inner_text()
    assert "✓ right" in column(page, "gold")
    slip = column(page, "slips")
    for part in ("✗ wrong", "<<1+1=90>>", "✗ 2", "read 90: wrong", "stopped: repeated_step", "not gold's: 2"):
        assert part in slip
    assert page.locator("section[aria-label=slips] mark").count() == 1
    assert page.title() == "d test: 3 runs"


def test_where_transcripts_part_is_marked(watched: Watched) -> None:
    page = watched.go(f"#{SECOND}")
    fork = page.locator("section[aria-label=slips] .fork")
    assert fork.get_attribute("title") == "differs from gold from here"
    assert "There are ≠" in " ".join(column(page, "slips").split())
    assert page.locator("section[aria-label=gold] .fork, section[aria-label=cot] .fork").count() == 0
    watched.go(f"#{FIRST}")
    assert page.locator(".fork").count() == 0


def test_filters_find_what_one_run_solves_and_another_does_not(watched: Watched) -> None:
    page = watched.go()
    assert watched.found() == [problem.id for problem in PROBLEMS]
    page.locator("select[name=r0]").select_option("right")
    page.locator("select[name=r1]").select_option("wrong")
    odd = [problem.id for problem in PROBLEMS[1::2]]
    page.get_by_text("6 of 12 problems", exact=True).wait_for()
    assert watched.found() == odd
    assert watched.fragment() == "#?r0=right&r1=wrong"
    page.locator("select[name=steps]").select_option("2")
    page.get_by_text("2 of 12 problems", exact=True).wait_for()
    assert watched.found() == [PROBLEMS[1].id, PROBLEMS[7].id]
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("12 of 12 problems", exact=True).wait_for()


def test_a_deep_link_restores_problem_and_filters(watched: Watched) -> None:
    page = watched.go(f"#{SECOND}?stop=repeated_step&q=HOW+MANY")
    assert page.get_by_label("A run stopped by").input_value() == "repeated_step"
    assert watched.found() == [problem.id for problem in PROBLEMS[1::2]]
    watched.opened(SECOND)
    assert watched.fragment() == f"#{SECOND}?q=HOW+MANY&stop=repeated_step"


def test_other_addresses_do_no_harm(watched: Watched) -> None:
    for fragment in ("#nothing", "#%E0%A4%A", "#?length=1&r0=bogus", "#?__proto__=x", "#tables"):
        watched.go(fragment)
        assert len(watched.found()) == len(PROBLEMS)
    assert watched.go("#d/test/99999").get_by_text("There is no problem d/test/99999 on this page.").is_visible()


def test_search_reads_transcripts_of_all_samples(watched: Watched) -> None:
    page = watched.go("#?q=77")
    assert watched.found() == [problem.id for problem in PROBLEMS]  # the second sample of cot says so everywhere
    page.get_by_label("Search").fill('"10 and 2 more"')
    page.get_by_text("1 of 12 problems", exact=True).wait_for()
    assert watched.found() == [PROBLEMS[10].id]
    page.get_by_label("Search").fill("MORE 10 and nowhere")
    page.get_by_text("0 of 12 problems", exact=True).wait_for()


def test_the_keyboard_is_enough(watched: Watched) -> None:
    page = watched.go()
    page.keyboard.press("j")
    watched.opened(FIRST)
    page.keyboard.press("j")
    watched.opened(SECOND)
    page.keyboard.press("j")
    watched.opened(PROBLEMS[2].id)
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("k")
    watched.opened(FIRST)
    assert watched.fragment() == f"#{FIRST}"
    page.go_back()
    watched.opened(SECOND)
    page.get_by_role("button", name="List").click()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    watched.opened(PROBLEMS[2].id)
    page.keyboard.press("/")
    page.keyboard.type("j?")
    assert page.get_by_label("Search").input_value() == "j?"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_several_samples_can_be_chosen(watched: Watched) -> None:
    page = watched.go(f"#{SECOND}")
    assert "✓ right" in column(page, "cot")
    assert "majority right" in column(page, "cot")
    page.get_by_label("sample of cot").select_option("1")
    assert "✗ wrong" in column(page, "cot")
    assert "#### 77" in column(page, "cot")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Next").click()
    assert page.get_by_label("sample of cot").input_value() == "0"


def test_the_theme_can_be_chosen(watched: Watched) -> None:
    page = watched.go()
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Theme: light").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == dark
    page.emulate_media(media="print")
    assert page.evaluate(ground) == light


def test_nothing_is_wider_than_the_window(watched: Watched) -> None:
    page = watched.go(f"#{SECOND}")
    right = "Math.max(...[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().right))"
    for width in (400, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(right) <= width


def test_tables_and_plots_need_no_script(browser: Browser, file: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    assert page.get_by_role("cell", name="100.0 [75.8, 100.0]").is_visible()
    assert page.locator("svg").count() >= 4
    assert page.locator("noscript .note").is_visible()
    assert not page.locator("#filters").is_visible()
    page.close()


def test_every_control_and_plot_has_a_name(watched: Watched) -> None:
    page = watched.go(f"#{SECOND}")
    unnamed = """[...document.querySelectorAll('button, select, input, svg')].filter(
        e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).length"""
    assert page.evaluate(unnamed) == 0


def hostile_page(folder: Path, runs: Sequence[Run]) -> Path:
    run = hostile(runs[0])
    first, *others = run.traces
    long = dataclasses.replace(first, steps=(Step("q", "<b>" + "9" * 1_000_000),))
    write_page(folder / "hostile.html", make_page_of([dataclasses.replace(run, traces=(long, *others))], CHAINS))
    return folder / "hostile.html"


def test_nothing_in_the_data_runs(browser: Browser, runs: list[Run], tmp_path: Path) -> None:
    page = browser.new_page()
    seen = Watched(page, hostile_page(tmp_path, runs))
    seen.go(f"#{SECOND}")
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e").replace("\0", r"\x00")
    shown = shown.replace("\ud800", r"\ud800")
    assert shown in page.locator(".columns").inner_text()
    assert shown in page.locator(".statement").inner_text()
    page.get_by_label("Search").fill("onerror=window")
    page.get_by_text("12 of 12 problems", exact=True).wait_for()
    seen.go(f"#{FIRST}")
    length = "document.querySelector('.columns').textContent.length"
    assert page.evaluate(length) < 25_000
    page.locator(".slot button").click()
    assert page.evaluate(length) > 1_000_000
    assert page.evaluate("[window.pwned, document.images.length, document.scripts.length]") == [None, 0, 2]
    assert page.locator("b").count() == 0
    assert seen.complaints == []
    assert all(url.partition("#")[0] in (seen.address, "about:blank") for url in seen.requests)
    page.close()


def test_the_policy_refuses_other_scripts_and_styles(browser: Browser, file: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.html"
    added = '<script>window.pwned = 1</script><p id="styled" style="color: red" onclick="window.pwned = 2">x</p>'
    spoiled.write_text(file.read_text(encoding="utf-8").replace("<main>", f"<main>{added}"), encoding="utf-8")
    page = browser.new_page()
    page.goto(spoiled.as_uri())
    page.locator("#styled").click()
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
    page.close()
