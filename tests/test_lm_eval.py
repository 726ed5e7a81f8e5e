"""The task of `lm-evaluation-harness`: its filter and metric decide as our strict score does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from socratic.answers import score
from socratic.prompts import MARKERS, problem_text

TASKS = Path(__file__).parent.parent / "recipes" / "lm-eval"


def task(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((TASKS / f"{name}.yaml").read_text("utf-8")))


def harness(name: str, reply: str, gold: str) -> bool:
    """The harness's ``regex`` filter and its ``exact_match``, as lm-eval 0.4.13 computes them."""
    regex = task(name)["filter_list"][0]["filter"][0]
    found = re.findall(regex["regex_pattern"], reply)
    texts = [found[regex.get("group_select", 0)].strip() if found else "[invalid]", gold]
    for ignored in task("socratic")["metric_list"][0]["regexes_to_ignore"]:
        texts = [re.sub(ignored, "", text) for text in texts]
    return texts[0].lower() == texts[1].lower()


CASES = [
    ("It bakes 96.\n#### 26", "26"),
    ("It bakes 96.\n#### 27", "26"),
    ("It bakes 96.\n#### 70,000", "70000"),
    ("It bakes 96.\n#### $1,234.50", "1,234.50"),
    ("It bakes 96.\n#### 26.00", "26"),
    ("It bakes 96.\n#### 26.", "26"),
    ("It bakes 96.\n#### -4", "-4"),
    ("It bakes 96.\n#### 26 rolls", "26"),
    ("#### 5 and then\n#### 26", "26"),
    ("\n#### 26", "26"),
    ("It bakes 26.", "26"),
    ("It bakes 26.\n####", "26"),
    ("It bakes 96.\n#### many", "26"),
    ("", "26"),
]


@pytest.mark.parametrize(("reply", "gold"), CASES)
def test_the_harness_decides_as_the_strict_score(reply: str, gold: str) -> None:
    assert harness("socratic", reply, gold) == score(reply, gold, "number").strict


def test_what_the_harness_does_not_know() -> None:
    """Numbers of one value in two forms; docs/ecosystem.md names it."""
    assert score("#### 18.5", "18.50", "number").strict
    assert not harness("socratic", "#### 18.5", "18.50")


def test_the_plain_tasks_ask_with_our_transcript() -> None:
    asked = problem_text("{{question}}") + "<|im_end|>"
    assert task("socratic_cot")["doc_to_text"] == asked + MARKERS["answer"]
    assert task("socratic_answer")["doc_to_text"] == asked + MARKERS["final"]
    assert harness("socratic_answer", " 70,000", "70000")
    assert harness("socratic_cot", " It bakes 12*8=<<12*8=96>>96 rolls.\nThere are <<96-70=26>>26 left.", "26")
