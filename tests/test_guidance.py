from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import Cli, cli
from test_trainer import CHAINS as PRICES
from test_trainer import save_tiny
from tiny import CHAINS, Planted, Replay, chain, said, solved

from socratic.examples import causal_example, slot_examples
from socratic.guidance import plan_text, with_plans
from socratic.interventions import intervene
from socratic.lm.load import load_lm
from socratic.prompts import learned_text
from socratic.solving import SolveSettings, Solving
from socratic.store import as_record
from socratic.tokens import Codec
from socratic.train import fit
from socratic.tutor import Tutor
from socratic.types import Chain, Guidance, QGSees, Trace, UserError

__all__ = ["cli"]

GUIDED: tuple[Guidance, ...] = ("count", "operators", "equations")
PLANS = [
    ("<<48/2=24>>24", "and <<48+24=72>>72", "2", "/ +", "48 / 2 ; 48 + 24"),
    ("<<2*(3+4)=14>>14 so <<14-1=13>>13", "none", "2", "* + -", "2 * ( 3 + 4 ) ; 14 - 1"),
    ("3 x 4 = 12 then", "<<-5+.5*-2=-6>>", "2", "* + *", "3 * 4 ; -5 + .5 * -2"),
    ("<<1,200*20%=240>>240", "5 + 6 = 11 and <<2-(-3)=5>>5", "2", "* -", "1200 * 20% ; 2 - ( -3 )"),
    ("Yes.", "No.", "2", "", ""),
]


@pytest.mark.parametrize(("first", "second", "count", "operators", "equations"), PLANS)
def test_what_a_plan_says(first: str, second: str, count: str, operators: str, equations: str) -> None:
    made = chain("c", "P", [("q1", first), ("q2", second)], "1")
    assert [plan_text(made, guidance) for guidance in GUIDED] == [count, operators, equations]


@given(answer=st.text("0123456789.,%+-*/()x $<>=ab\n½", max_size=40))
def test_a_plan_is_one_line_without_results_whatever_the_answer_holds(answer: str) -> None:
    for guidance in GUIDED:
        plan = plan_text(chain("c", "P", [("q", answer)], "1"), guidance)
        assert plan == " ".join(plan.split())
        assert "=" not in plan


def guided(chains: list[Chain], guidance: Guidance) -> list[Any]:
    return with_plans([c.problem() for c in chains], chains, guidance)


@pytest.mark.parametrize("calculator", [True, False], ids=["calculator", "plain"])
@pytest.mark.parametrize("sees", get_args(QGSees))
@pytest.mark.parametrize("guidance", GUIDED)
def test_a_gold_chain_replayed_gives_the_training_examples_ids(
    guidance: Guidance, sees: QGSees, calculator: bool, exact: Codec
) -> None:
    chains = list(CHAINS)
    for plan_by in ("planner", "gold"):
        qg = Replay(exact, [said(c, "qg", qg_sees=sees, guidance=guidance) for c in chains], sees)
        qa = Replay(exact, [said(c, "qa") for c in chains])
        planner = Replay(exact, [said(c, "planner", guidance=guidance) for c in chains])
        qg.guidance = planner.guidance = guidance
        how: dict[str, Any] = {"planner": planner} if plan_by == "planner" else {"plan_by": "gold"}
        traces = solved(guided(chains, guidance), qg=qg, qa=qa, calculator=calculator, **how)
        assert [(t.stop_reason, t.answer, t.plan) for t in traces] == [
            ("finished", c.answer.strip(), plan_text(c, guidance)) for c in chains
        ]
        sessions = {"qg": qg.kept, "qa": qa.kept, **({"planner": planner.kept} if plan_by == "planner" else {})}
        for role, kept in sessions.items():
            examples = [causal_example(c, role, exact, sees, guidance) for c in chains]  # type: ignore[arg-type]
            assert [tuple(session.ids) for session in kept] == [example.ids for example in examples], role


def test_without_guidance_nothing_is_added(exact: Codec) -> None:
    for c in CHAINS:
        plain, with_plan = causal_example(c, "qg", exact), causal_example(c, "qg", exact, guidance="count")
        problem = len(exact.problem("x")) - len(exact.text("x"))
        plan = [*exact.marker("plan"), *exact.slot(learned_text(str(len(c.steps))))]
        start = next(i for i, (a, b) in enumerate(zip(plain.ids, with_plan.ids, strict=False)) if a != b)
        assert start > problem
        assert len(with_plan.ids) == len(plain.ids) + len(plan)
        assert sum(with_plan.learned) == sum(plain.learned), "the plan is ingested, not learned"
        assert causal_example(c, "qa", exact, guidance="count") == causal_example(c, "qa", exact)
        [slot] = slot_examples(c, "planner", exact, guidance="count")
        assert list(slot.ids) == exact.slot(learned_text(str(len(c.steps))))


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize(
    ("plan", "reason", "kept"),
    [
        ("x" * 40, "overlong", None),
        ("<special>", "invalid_output", None),
        ("<error>", "model_error", None),
        ("", "finished", ""),
        (" \n", "finished", ""),
        ("anything", "finished", "anything"),
    ],
)
def test_whatever_a_planner_writes_ends_in_a_trace(
    plan: str, reason: str, kept: str | None, history: bool, exact: Codec
) -> None:
    planner = Planted(exact, lambda transcript, kind: plan)
    planner.special = min(exact.special_ids, default=0)
    if plan == "<special>" and not exact.special_ids:
        pytest.skip("this tokenizer's only special token is its end")
    texts = {"question": iter(["q1", ""]), "answer": iter(["s1"]), "final": iter(["7"])}
    qg, qa = (Planted(exact, lambda transcript, kind: next(texts[kind])) for _ in range(2))
    qg.guidance = planner.guidance = "count"
    solving = Solving(SolveSettings.parse({"max_tokens": 30}), qg, qa, planner=planner)
    made = chain("p", "P", [("q1", "s1")], "7")
    if history:
        solving = solving.with_intervention(intervene("history", [made]))
    [trace] = solving.run([(made.problem(), 0)])
    assert (trace.stop_reason, trace.plan, trace.answer) == (reason, kept, "7")
    assert len(trace.steps) == (reason == "finished")
    assert as_record("trace", trace.to_json(), Trace) == trace
    assert ("plan" in trace.to_json()) == (kept is not None)


def test_a_qg_gets_the_plan_that_it_was_trained_to_read(exact: Codec) -> None:
    qg, qa, planner, plain = (Planted(exact, lambda transcript, kind: "", name=n) for n in ("qg", "qa", "pl", "plain"))
    qg.guidance, planner.guidance, planner.role = "equations", "count", "planner"
    gold = {"plan_by": "gold"}

    def refused(why: str, settings: dict[str, Any], **models: Any) -> None:
        with pytest.raises(UserError, match=why):
            Solving(SolveSettings.parse(settings), **models)

    refused("qg reads a plan .equations.; give --planner, or plan_by=gold", {}, qg=qg, qa=qa)
    refused("pl writes count, but qg reads equations", {}, qg=qg, qa=qa, planner=planner)
    refused("plain reads no plan", {}, qg=plain, qa=qa, planner=planner)
    refused("plain reads no plan", gold, qg=plain, qa=qa)
    refused("cot reads no plan", {"solver": "cot", **gold}, lm=plain)
    refused("plan_by='gold' takes no planner", gold, qg=qg, qa=qa, planner=planner)
    refused("solver 'cot' takes no planner", {"solver": "cot"}, lm=plain, planner=planner)
    refused("pl was trained as 'planner' and cannot be the qa", {}, qg=plain, qa=planner)
    with pytest.raises(UserError, match="problem clips carries no gold plan"):
        solved([CHAINS[0].problem()], qg=qg, qa=qa, plan_by="gold")
    with pytest.raises(UserError, match="tax has no gold chain"):
        with_plans([CHAINS[1].problem()], CHAINS[:1], "count")
    with pytest.raises(UserError, match="qg reads a plan, which the tutor does not make"):
        Tutor(CHAINS[0].problem(), Solving(SolveSettings.parse(gold), qg, qa))


def test_what_decided_a_trace_names_the_plan(exact: Codec) -> None:
    qg, qa, planner = (Planted(exact, lambda transcript, kind: "", name=n) for n in ("qg", "qa", "planner"))
    assert Solving(SolveSettings.parse({}), qg, qa).record()["guidance"] == "none"
    qg.guidance = planner.guidance = "count"
    record = Solving(SolveSettings.parse({}), qg, qa, planner=planner).record()
    assert (record["guidance"], record["plan_by"], record["models"]["planner"]["name"]) == (
        "count",
        "planner",
        "planner",
    )
    assert Solving(SolveSettings.parse({"plan_by": "gold"}), qg, qa).record()["plan_by"] == "gold"


def test_students_trained_with_guidance_solve_with_it(cli: Cli, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    how: dict[str, Any] = {"max_steps": 1, "on_note": str}
    qa = fit("qa", PRICES, model, tmp_path / "qa", **how)
    qg = fit(
        "qg",
        PRICES,
        model,
        tmp_path / "qg",
        guidance="count",
        dev_chains=PRICES,
        **how,
        best_by="accuracy",
        partner=str(tmp_path / "qa"),
    )
    planner = fit("planner", PRICES, model, tmp_path / "planner", guidance="count", **how)
    assert [(lm.role, lm.guidance) for lm in (qg, planner, qa)] == [
        ("qg", "count"),
        ("planner", "count"),
        ("qa", "none"),
    ]
    assert load_lm(str(tmp_path / "qg")).guidance == "count"
    assert "--planner PLANNER" in (tmp_path / "qg" / "README.md").read_text()
    assert "Plan: 2" in (tmp_path / "planner" / "README.md").read_text()
    for student, settings, why in (
        ("planner", {}, "a planner needs to know what to write"),
        ("qa", {"guidance": "count"}, "guidance=count is for the roles qg and planner, not qa"),
        ("planner", {"guidance": "count", "best_by": "accuracy"}, "which a planner cannot"),
    ):
        with pytest.raises(UserError, match=why):
            fit(student, PRICES, model, tmp_path / "no", dev_chains=PRICES, **how, **settings)  # type: ignore[arg-type]

    data = tmp_path / "prices.jsonl"
    data.write_text("".join(json.dumps(replace(c, source="gold").to_json()) + "\n" for c in PRICES))
    pair = ("--qg", str(tmp_path / "qg"), "--qa", str(tmp_path / "qa"), "--set", "max_tokens=5")
    by_gold = cli("evaluate", str(data), *pair, "--set", "plan_by=gold", "--out", str(tmp_path / "gold"))
    assert by_gold.code == 0, by_gold.err
    plans = [json.loads(line)["plan"] for line in (tmp_path / "gold" / "traces.jsonl").read_text().splitlines()]
    assert sorted(plans) == ["1", "2", "2"]
    assert "plan_by: gold" in (tmp_path / "gold" / "config.yaml").read_text()
    assert "Plan: 1" in cli("show", str(tmp_path / "gold"), "tiny/books").out
    planned = cli("solve", "How many?", *pair, "--planner", str(tmp_path / "planner"))
    assert planned.code == 0, planned.err
    alone = cli("solve", "How many?", *pair)
    assert alone.code == 2
    assert "reads a plan (count); give --planner" in alone.err
