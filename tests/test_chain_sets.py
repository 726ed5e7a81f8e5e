"""Sets of chains that a teacher writes, that are curated, and of which as many are drawn."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from campaign import KEY, Server, ended, problems, serving, start
from rich.console import Console
from test_curate import GOOD, with_step
from test_local import TEMPLATE
from tiny import byte_tokenizer

from socratic import chain_sets, prompts
from socratic.lm.scripted import ScriptedLM
from socratic.planner import make_plan
from socratic.recipe_file import read_recipe
from socratic.stages import SetStage
from socratic.store import read_records, write_jsonl
from socratic.tasks.base import in_dev
from socratic.tasks.sets import CHAINS, load_set
from socratic.teacher import crash, teach
from socratic.teacher.client import Endpoint, Received
from socratic.tokens import Codec
from socratic.types import Chain, UserError

TEACHER: dict[str, Any] = {"make": "teach", "student": "openai:m"}
Sets = dict[str, dict[str, Any]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(tmp_path) as made:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        yield made


def planned(folder: Path, sets: Sets, rows: list[dict[str, Any]] | None = None, count: int = 30) -> list[SetStage]:
    """The stages of ``sets``, of which a student learns; the data are sums without steps."""
    plain = [{"id": p.id, "question": p.question, "answer": p.answer} for p in problems(count)]
    write_jsonl(folder / "sums.jsonl", rows or plain)
    recipe = {
        "data": str(folder / "sums.jsonl"),
        "students": {"cot": {"role": "cot", "student": "scratch:llama-mini", "chains": [*sets]}},
        "arms": {"cot": {"solver": "cot", "lm": "cot"}},
        "sets": sets,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    plan = make_plan(read_recipe(folder / "recipe.yaml", {}), folder / "out")
    if any(made["make"] == "teach" for made in sets.values()):
        assert plan.overlaps["test"].found, "what a teacher is asked about is learned"
    return [stage for stage in plan.stages if isinstance(stage, SetStage)]


def made(stages: list[SetStage]) -> dict[str, list[Chain]]:
    """Make what is not made yet; the chains of each set."""
    for stage in stages:
        if not stage.done:
            stage.run("1/1", Console(file=io.StringIO()), 16)
    return {stage.link.name: list(read_records(stage.folder / CHAINS, Chain)) for stage in stages}


def make_and_die(folder: Path, where: str, url: str) -> None:
    """In a process of its own."""
    os.environ.update(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url)
    crash.arm(where)
    made(planned(folder, {"written": TEACHER}))


def billed(server: Server) -> Counter[str]:
    return Counter(bill["key"] for bill in server.bills("m"))


def test_a_teacher_writes_of_train_and_dev(tmp_path: Path, server: Server) -> None:
    [stage] = planned(tmp_path, {"written": {**TEACHER, "samples": 2}})
    [chains] = made([stage]).values()
    train, dev = (load_set(str(stage.folder / CHAINS), split, stage.reading) for split in ("train", "dev"))
    assert Counter(chain.problem_id for chain in train).most_common()[-1][1] == 2
    assert len(dev) == len({chain.problem_id for chain in dev}) > 0
    assert {chain.problem_id for chain in chains} == {problem.id for problem in problems(30)}
    assert {chain.source for chain in chains} == {"teacher:m"}


def test_what_was_bought_is_not_bought_again_after_a_kill(tmp_path: Path, server: Server) -> None:
    assert ended(start(make_and_die, tmp_path, "request-ended:28", server.url)) == -signal.SIGKILL
    [stage] = planned(tmp_path, {"written": TEACHER})
    assert not stage.done
    [ledger] = tmp_path.glob("out/sets/replies.*/ledger.sqlite")
    with closing(sqlite3.connect(ledger)) as base:
        kept = {key for (key,) in base.execute("SELECT key FROM replies")}
    assert len(kept) > 2
    made([stage])
    assert stage.done
    assert {count for key, count in billed(server).items() if key in kept} == {1}
    before = billed(server)
    made(planned(tmp_path, {"written": TEACHER}))
    assert billed(server) == before


def test_a_teacher_that_stops_half_way_leaves_the_set_to_do(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, replies = Endpoint.send, Counter[str]()

    async def interrupted(self: Endpoint, body: Any, sample: int) -> Received:
        replies["so far"] += 1
        if replies["so far"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return await send(self, body, sample)

    async def refused(self: Endpoint, body: Any, sample: int) -> Received:
        return Received("stop", reason="has no credit left", detail="402")

    [stage] = planned(tmp_path, {"written": TEACHER}, count=60)
    with monkeypatch.context() as patched:
        patched.setattr(Endpoint, "send", interrupted)
        with pytest.raises(SystemExit) as left:
            made([stage])
        assert left.value.code == 130
    assert not stage.done
    with monkeypatch.context() as patched:
        patched.setattr(Endpoint, "send", refused)
        with pytest.raises(UserError, match="has no credit left"):
            made([stage])
    assert not stage.done
    assert len(made([stage])["written"]) == 60
    assert set(billed(server).values()) == {1}


def test_what_failed_for_now_leaves_the_set_to_do_and_is_asked_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, [first, *_] = Endpoint.send, problems(30)

    async def failing(self: Endpoint, body: Any, sample: int) -> Received:
        if first.question in str(body["messages"][-1]):
            return Received("retry", reason="server_error", detail="500")
        return await send(self, body, sample)

    [stage] = planned(tmp_path, {"written": TEACHER})
    with monkeypatch.context() as patched:
        patched.setattr(Endpoint, "send", failing)
        patched.setattr(teach, "_MOST_ATTEMPTS", 1)
        with pytest.raises(UserError, match=r"m failed for now on 1 of 30 \(1 server error\); run this again"):
            made([stage])
    assert not stage.done
    assert len(made([stage])["written"]) == 30
    assert set(billed(server).values()) == {1}


def test_a_teacher_that_writes_nothing_leaves_the_set_to_do(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(self: Endpoint, body: Any, sample: int) -> Received:
        return Received("reply", raw='{"choices": [{"message": {"content": "No."}, "finish_reason": "stop"}]}')

    monkeypatch.setattr(Endpoint, "send", silent)
    [stage] = planned(tmp_path, {"written": TEACHER})
    with pytest.raises(UserError, match=r"m wrote none of 30 chains \(30 no answer\)"):
        made([stage])
    assert not stage.done


def test_sets_of_one_teacher_share_its_replies(tmp_path: Path, server: Server) -> None:
    made(planned(tmp_path, {"written": TEACHER}))
    before = billed(server)
    hinted = {**TEACHER, "hint_failed": True}
    assert len(made(planned(tmp_path, {"hinted": hinted}))["hinted"]) == 30
    assert billed(server) == before, "no first try would be rejected"
    [chains] = made(planned(tmp_path, {"twice": {**TEACHER, "samples": 2}})).values()
    assert set(billed(server).values()) == {1}
    assert billed(server).total() - before.total() == len(chains) - 30, "the first samples are there"


def test_whatever_decides_the_chains_makes_a_new_stage(tmp_path: Path) -> None:
    own = tmp_path / "prompt"
    own.mkdir()
    (own / "cot.txt").write_text("Think. {format}")
    changes: list[dict[str, Any]] = [
        {},
        {"style": "cot"},
        {"hint_answer": True},
        {"samples": 2},
        {"student": "openai:n"},
        {"limit": 3},
        {"style": "cot", "prompt": str(own)},
    ]
    keys = [planned(tmp_path, {"written": {**TEACHER, **change}})[0].key for change in changes]
    (own / "cot.txt").write_text("Think twice. {format}")
    keys.append(planned(tmp_path, {"written": {**TEACHER, "style": "cot", "prompt": str(own)}})[0].key)
    other = own.rename(tmp_path / "moved")
    moved = planned(tmp_path, {"written": {**TEACHER, "style": "cot", "prompt": str(other)}})[0].key
    assert moved == keys[-1], "where a prompt lies changes nothing"
    keys.append(planned(tmp_path, {"written": TEACHER}, count=31)[0].key)
    assert len(set(keys)) == len(keys)
    assert planned(tmp_path, {"written": TEACHER})[0].key == keys[0]


def test_the_prompts_of_soften_make_a_new_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": p.question, "answer": p.answer, "steps": STEPS} for p in problems(30)]
    sets = {"soft": {"make": "soften", "student": "owner/name"}}
    before = planned(tmp_path, sets, rows)[0].key
    assert planned(tmp_path, sets, rows)[0].key == before
    own = tmp_path / "prompts"
    shutil.copytree(prompts.PROMPTS_DIR, own)
    monkeypatch.setattr(prompts, "PROMPTS_DIR", own)
    assert planned(tmp_path, sets, rows)[0].key == before
    (own / "generic" / "examples.jsonl").write_text("")
    assert planned(tmp_path, sets, rows)[0].key != before


STEPS = [{"question": "How many?", "answer": "So many."}]


def test_questions_are_asked_of_given_steps(tmp_path: Path, server: Server) -> None:
    with_steps = [
        {"id": p.id, "question": p.question, "answer": p.answer, "steps": STEPS if i % 2 else None}
        for i, p in enumerate(problems(30))
    ]
    [stage] = planned(tmp_path, {"written": {**TEACHER, "style": "questions"}}, with_steps)
    with pytest.raises(UserError, match=r"wrote none of 15 chains .*other steps"):
        made([stage])
    with pytest.raises(UserError, match="has no gold chains in 'train'"):
        planned(tmp_path, {"written": {**TEACHER, "style": "answers"}})
    last = [{**row, "steps": None} for row in with_steps[:-1]] + with_steps[-1:]
    with pytest.raises(UserError, match=r"no problem of .* has what style=questions starts from"):
        planned(tmp_path, {"written": {**TEACHER, "style": "questions", "limit": 1}}, last)


def test_a_teacher_may_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer("qwen2")
    tokenizer.chat_template = TEMPLATE

    def add(transcript: str, kind: str) -> str:
        if not (sums := re.findall(r"What is (\d+)\+(\d+)\?", transcript)):
            return "I was only shown examples."
        a, b = sums[-1]
        return f"Q: What is it?\nA: {a}+{b}=<<{a}+{b}={int(a) + int(b)}>>{int(a) + int(b)}\n#### {int(a) + int(b)}"

    model = tmp_path / "model"

    def load(name: str) -> ScriptedLM:
        lm = ScriptedLM(Codec(tokenizer), add)
        lm.fingerprint = (model / "weights").read_text()
        return lm

    monkeypatch.setattr(chain_sets, "load_lm", load)
    write_jsonl(model / "weights", [{"version": 1}])
    teacher = {"make": "teach", "student": str(model)}
    sets: Sets = {"written": teacher, "kept": {"make": "curate", "of": ["written"]}}
    chains = made(planned(tmp_path, sets))
    assert len(chains["written"]) == len(chains["kept"]) == 30
    assert {chain.source for chain in chains["kept"]} == {f"teacher:{model}"}
    write_jsonl(model / "weights", [{"version": 2}])
    made(planned(tmp_path, sets))
    assert len([*tmp_path.glob("out/sets/replies.*")]) == 2, "other weights, other replies"
    [stage, *_] = planned(tmp_path, {"written": {**teacher, "extra": {"top_p": 0.5}}})
    with pytest.raises(UserError, match=r"is for an endpoint, and .*model runs here"):
        made([stage])


def chain_file(folder: Path, *chains: Chain) -> str:
    write_jsonl(folder / "given.jsonl", (chain.to_json() for chain in chains))
    return str(folder / "given.jsonl")


def test_by_answer_a_chain_with_a_wrong_mark_is_kept(tmp_path: Path) -> None:
    wrong = with_step(0, answer="Ann has 3*12=<<3*12=35>>35 pens.")
    given = [chain_file(tmp_path, GOOD, wrong)]
    stages = planned(tmp_path, {by: {"make": "curate", "of": given, "by": by} for by in ("all", "answer")})
    assert {name: len(chains) for name, chains in made(stages).items()} == {"all": 1, "answer": 2}
    assert '"wrong_mark": 1' in (stages[0].folder / "curate.json").read_text()


def test_as_many_chains_are_drawn_as_the_smallest_set_has(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": p.id, "question": p.question, "answer": p.answer, "steps": STEPS} for p in problems(30)
    ]
    few = chain_file(tmp_path, GOOD, with_step(0, question="How many has Ann?"))
    sets: Sets = {
        "many": {"make": "draw", "of": ["gold", few]},
        "again": {"make": "draw", "of": ["gold", few], "seed": 1},
        "few": {"make": "draw", "of": [few, "gold"]},
        "limited": {"make": "draw", "of": ["gold", few], "limit": 1},
    }
    stages = planned(tmp_path, sets, rows)
    made(stages)
    drawn = {stage.link.name: load_set(str(stage.folder / CHAINS), "train", stage.reading) for stage in stages}
    assert [len(chains) for chains in drawn.values()] == [2, 2, 2, 1]
    assert {chain.problem_id for chain in drawn["many"]} != {chain.problem_id for chain in drawn["again"]}
    assert {chain.problem_id for chain in drawn["few"]} == {"p"}
    dev = [len(load_set(str(stage.folder / CHAINS), "dev", stage.reading)) for stage in (stages[0], stages[-1])]
    assert dev == [sum(in_dev(row["question"]) for row in rows), 1], "dev is as it was, but for a limit"
