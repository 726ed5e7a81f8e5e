from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sample_runs import CHAINS, PROBLEMS, as_gold, chain_of_thought, gold_steps, make_page_of, make_run, said, slips

import socratic.report.html as html
from socratic.evaluate import Run
from socratic.report.compare import compare
from socratic.report.html import page
from socratic.report.report import make_report
from socratic.types import Step, Trace

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\x1b[31m\u202eevil\0\ud800"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "gold", as_gold),
        make_run(folder / "slips", slips),
        make_run(folder / "cot", chain_of_thought, samples=2),
    ]


@pytest.fixture(scope="module")
def text(runs: list[Run]) -> str:
    return page(make_page_of(runs))


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of scripts, styles and table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "td", "th", "figcaption"):
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self.texts.append(("", ""))

    def handle_data(self, data: str) -> None:
        if self.texts:
            tag, text = self.texts[-1]
            self.texts[-1] = (tag, text + data)

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def records(self) -> Any:
        return json.loads(self.of("script")[0])


def test_the_tables_are_those_of_the_terminal(runs: list[Run], text: str) -> None:
    parsed = Parsed(text)
    console = Console(file=io.StringIO(), width=500)
    console.print(compare(runs).table())
    assert isinstance(console.file, io.StringIO)
    printed = [re.split(r" {2,}", line.strip()) for line in console.file.getvalue().splitlines() if line.strip()]
    expected = [cell for line in printed if len(line) > 1 for cell in line]
    cells = "\n".join(text.strip() for _, text in parsed.texts).split("\n")
    assert "50.0 [25.4, 74.6]" in expected
    assert set(expected) <= set(cells)


def test_only_the_pages_own_script_and_style_may_run(text: str) -> None:
    parsed = Parsed(text)
    [policy] = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    for kind, source in (("script", parsed.of("script")[1]), ("style", parsed.of("style")[0])):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert len(parsed.of("script")) == 2
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert not [
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset", "action")
        ]
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")


def test_the_same_runs_give_the_same_page(runs: list[Run], text: str) -> None:
    assert page(make_page_of(runs)) == text


def test_no_two_elements_share_an_id(text: str) -> None:
    ids = [attributes["id"] for _, attributes in Parsed(text).elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_problem_is_there_with_every_transcript(text: str) -> None:
    records = Parsed(text).records
    assert [run["name"] for run in records["runs"]] == ["gold", "slips", "cot"]
    assert [problem["id"] for problem in records["problems"]] == [problem.id for problem in PROBLEMS]
    problem = records["problems"][1]
    assert problem["right"] == [True, False, True]
    assert [len(samples) for samples in problem["runs"]] == [1, 1, 2]
    assert len(problem["gold"]) == 2
    [slip] = problem["runs"][1]
    assert slip["steps"][0] == ["How many after 1?", ["There are 1+1=", ["<<1+1=90>>", "2"], "90."]]
    assert slip["off"] == [0, "2"]
    assert (slip["stop"], slip["right"], slip["read"], slip["reason"]) == ("repeated_step", False, "90", "wrong")
    assert problem["runs"][0][0]["off"] is None
    assert [sample["right"] for sample in problem["runs"][2]] == [True, False]


def hostile(run: Run) -> Run:
    """``run`` with hostile text wherever a model or a file could have put it."""

    def changed(trace: Trace) -> Trace:
        steps = (Step(HOSTILE, f"{HOSTILE} <<1+1=3>>"),)
        return dataclasses.replace(trace, steps=steps, answer=HOSTILE, error=HOSTILE, rejected=Step(HOSTILE, HOSTILE))

    problems = [dataclasses.replace(p, question=HOSTILE, context=HOSTILE, choices=(HOSTILE, "b")) for p in run.problems]
    scores = [dataclasses.replace(score, predicted=HOSTILE) for score in run.scores]
    models = {"lm": {"name": HOSTILE, "sha256": HOSTILE}}
    return dataclasses.replace(
        run,
        path=run.path.parent / HOSTILE.replace("/", "∕").replace("\0", "").encode("utf-8", "replace").decode(),
        config={**run.config, "models": models, "seed": HOSTILE},
        problems=tuple(problems),
        traces=tuple(map(changed, run.traces)),
        scores=tuple(scores),
    )


def test_hostile_text_stays_text(runs: list[Run]) -> None:
    text = page(make_page_of([hostile(run) for run in runs[:1]], {}))
    text.encode("utf-8")
    parsed = Parsed(text)
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    assert len(parsed.of("script")) == 2
    assert not re.search("[<>&]", parsed.of("script")[0])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    decoded = json.dumps(parsed.records, ensure_ascii=False)
    assert not re.search("[\u202e\ud800-\udfff]", decoded)
    assert "\\u001b" not in decoded
    step = parsed.records["problems"][0]["runs"][0][0]["steps"][0]
    assert step[0] == HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e").replace("\0", r"\x00").replace(
        "\ud800", r"\ud800"
    )


def test_without_gold_chains_the_page_says_so(runs: list[Run]) -> None:
    report = make_page_of(runs, {})
    assert any("No gold chains" in note for note in report.notes)
    assert "gold-steps" not in [plot.name for plot in report.plots]
    assert {problem["gold"] for problem in Parsed(page(report)).records["problems"]} == {None}


def test_only_problems_that_all_runs_share_are_shown(runs: list[Run], tmp_path: Path) -> None:
    short = dataclasses.replace(runs[1], problems=runs[1].problems[:5])
    both = [runs[0], short]
    report = make_report(both, compare(both, common=True), CHAINS)
    assert len(Parsed(page(report)).records["problems"]) == 5


def test_runs_with_gold_words_are_set_against_the_run_as_it_is(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"models": {"lm": {"name": "m", "sha256": "x"}}, "solver": "socratic"}
    as_is = make_run(tmp_path / "as-is", slips, **settings)
    swapped = make_run(tmp_path / "swapped", as_gold, **settings, intervention={"kind": "questions", "sha256": "y"})
    other = make_run(tmp_path / "other", as_gold, solver="cot", models={"lm": {"name": "n", "sha256": "z"}})
    report = make_page_of([other, as_is, swapped])
    [plot] = [plot for plot in report.plots if plot.name == "effects"]
    assert plot.rows == (("as-is", "50.0", "69.4"), ("questions", "100.0", "100.0"))
    shuffled = make_run(tmp_path / "shuffled", slips, **settings, intervention={"kind": "shuffle", "sha256": "z"})
    for without in ([other, as_is], [as_is, shuffled]):  # shuffled questions are set against gold ones
        assert "effects" not in [plot.name for plot in make_page_of(without).plots]


def test_a_mark_that_cannot_be_computed_is_not_called_wrong() -> None:
    assert html._step(Step("q", "<<2$*3=6>> <<1/0=0>> <<2+2=4>>"))[1] == "<<2$*3=6>> <<1/0=0>> <<2+2=4>>"


def test_what_is_called_wrong_ends_at_the_wrong_number() -> None:
    assert html._step(Step("q", "<<6*11=66>>77."))[1] == ["", ["<<6*11=66>>77", "66"], "."]
    assert html._step(Step("q", "<<6*11=66>>77+3=81."))[1] == ["", ["<<6*11=66>>77", "66"], "", ["+3=81", "80"], "."]


def test_the_step_that_leaves_gold_is_found() -> None:
    trace = said(2, 0, (gold_steps(2)[0], Step("q", "It is 50.")), "50")
    assert html._off_gold(trace, CHAINS[PROBLEMS[2].id]) == [1, "4"]
    wordy = [Step(step.question, f"{step.answer} That is after 1 day.") for step in gold_steps(2)]
    assert html._off_gold(said(2, 0, wordy, "5"), CHAINS[PROBLEMS[2].id]) is None
    assert html._off_gold(chain_of_thought(2, 0), CHAINS[PROBLEMS[2].id]) is None


def test_colours_can_be_read_in_light_and_dark() -> None:
    style = (Path(html.__file__).parent / "templates" / "report.css").read_text()
    pairs = {name: two for name, *two in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    grounds = {"ink": ("ground", "raised", "wrong-ground", "fork-ground"), "soft": ("ground", "raised")}
    for theme in (0, 1):
        for name in ("ink", "soft", "link", "right", "wrong"):
            for ground in grounds.get(name, ("ground",)):
                assert contrast(pairs[name][theme], pairs[ground][theme]) >= 4.5, (name, ground, theme)
        for place in range(8):
            assert contrast(pairs[f"arm-{place}"][theme], pairs["ground"][theme]) >= 3, place
