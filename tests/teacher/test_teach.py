from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from socratic.prompts import TeacherPrompt, load_prompt
from socratic.teacher import pace
from socratic.teacher.annotate import AskSettings, _affordable
from socratic.teacher.client import Received
from socratic.teacher.ledger import Ledger, request_key
from socratic.teacher.pace import Pace
from socratic.teacher.replies import BadReplyError
from socratic.teacher.teach import Asking, Form, Job, Lesson, Tally, TeachSettings, standing
from socratic.types import Chain, Problem, Step, UserError

PENS = Problem("pens", "gsm8k", "train", "Ann has 3 boxes of 12 pens. How many pens has she?", "36")
STEPS = (Step("How many pens are in 3 boxes?", "In 3 boxes are 3*12=<<3*12=36>>36 pens."),)
RIGHT = "Q: How many pens are in 3 boxes?\nA: In 3 boxes are 3*12=<<3*12=36>>36 pens.\n#### 36"
WRONG = RIGHT.replace("#### 36", "#### 35")
PROMPT = load_prompt("socratic", "gsm8k")


def raw(text: str | None, **more: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}


def reply(text: str | None = RIGHT, **more: Any) -> Received:
    return Received("reply", raw=json.dumps(raw(text, **more)), tokens=(100, 20))


RETRY = Received("retry", reason="status_500", detail="500: oh")
OVERLOADED = Received("overloaded", reason="status_429", detail="429: slow")
REFUSED = Received("refused", reason="status_400", detail="400: no")
DENIED = Received("denied", reason="status_404", detail="404: no model m")
STOP = Received("stop", reason="refuses the key", detail="401: no")
UNREACHED = Received("retry", reason="connection", detail="ConnectError()")


def lesson(prompt: TeacherPrompt | None = PROMPT, form: Form = "text", **settings: Any) -> Lesson:
    style = prompt.style if prompt else "zero-shot-cot"
    return Lesson(TeachSettings(model="m", style=style, **settings), prompt, form)


def converse(taught: Lesson, job: Job, *texts: str) -> tuple[list[dict[str, Any]], Chain]:
    """The bodies that a job asks for where it gets ``texts`` as replies, and its chain."""
    talk = taught.conversation(job)
    bodies = [next(talk)]
    try:
        for text in texts:
            bodies.append(talk.send(raw(text)))
    except StopIteration as end:
        assert len(bodies) == len(texts)
        return bodies, end.value
    raise AssertionError(f"asks for more: {bodies[-1]}")


@pytest.mark.parametrize("form", ["json_schema", "json_object", "text"])
@pytest.mark.parametrize("style", ["socratic", "cot", "answers", "questions"])
def test_one_turn_makes_a_chain_in_each_style(style: Any, form: Form) -> None:
    prompt = load_prompt(style, "generic")
    given = STEPS if style in ("answers", "questions") else ()
    whole = Chain("pens", "gsm8k", PENS.question, "36", "number", STEPS)
    taught = lesson(prompt, form, seed=5, extra={"top_p": 0.9})
    said = prompt.reply(whole, "text" if form == "text" else "json")
    [body], chain = converse(taught, Job(PENS, 2, given), said)
    assert chain.steps == ((Step("", STEPS[0].answer),) if style == "cot" else STEPS)
    assert (chain.final_answer, chain.answer, chain.source, chain.sample) == ("36", "36", "teacher:m", 2)
    assert chain.metadata == {"split": "train"}
    expected = {"model": "m", "max_completion_tokens": 1024, "temperature": 0.7, "seed": 7, "top_p": 0.9}
    assert {name: body[name] for name in expected} == expected
    messages = prompt.messages(PENS, "text" if form == "text" else "json", given)
    assert body["messages"] == messages
    wanted: Any = body.get("response_format")
    if form == "json_schema":
        assert wanted["type"] == "json_schema"
        assert wanted["json_schema"]["schema"] == prompt.schema
        assert wanted["json_schema"]["strict"] is True
    else:
        assert wanted == ({"type": "json_object"} if form == "json_object" else None)


def test_what_is_null_is_left_to_the_endpoint_and_extra_comes_last() -> None:
    taught = lesson(temperature=None, seed=None, extra={"max_completion_tokens": 5, "model": "other"})
    [body], _ = converse(taught, Job(PENS, 1), RIGHT)
    assert body.keys() == {"model", "messages", "max_completion_tokens"}
    assert (body["model"], body["max_completion_tokens"]) == ("other", 5)


def test_context_and_choices_go_with_the_chain() -> None:
    problem = Problem("q", "own", "train", "Which glows?", "B", "choice", ("stone", "bulb"), "It is dark.")
    _, chain = converse(lesson(), Job(problem, 0), "Q: Which is a lamp?\nA: The bulb.\n#### B")
    assert chain.metadata == {"split": "train", "context": "It is dark.", "choices": ["stone", "bulb"]}
    assert chain.problem("train") == problem


def test_zero_shot_asks_for_the_rationale_and_then_for_the_answer() -> None:
    first, second = converse(lesson(None, seed=None), Job(PENS, 0), " 3*12 is 36. ", " 36 pens.")[0]
    assert first["messages"] == [{"role": "user", "content": f"Q: {PENS.question}\nA: Let's think step by step."}]
    assert second["messages"] == [
        *first["messages"],
        {"role": "assistant", "content": "3*12 is 36."},
        {"role": "user", "content": "Therefore, the answer is"},
    ]
    assert {**first, "messages": None} == {**second, "messages": None}
    glows = Problem("g", "own", "train", "What glows?", "B", "choice", ("a stone", "a bulb"), "It is dark.")
    [first, _], chain = converse(lesson(None), Job(glows, 0), "A bulb does.", "(B).")
    assert first["messages"][0]["content"].startswith("Q: It is dark.\nWhat glows?\n(A) a stone\n(B) a bulb\nA: Let's")
    assert chain.final_answer == "B"


def test_zero_shot_chains_are_thoughts_with_an_answer_read_by_its_type() -> None:
    _, chain = converse(lesson(None), Job(PENS, 0), "3*12 is 36.", "36 pens.")
    assert (chain.steps, chain.final_answer) == ((Step("", "3*12 is 36."),), "36")
    yes = Problem("q", "strategyqa", "train", "Can a cat swim?", "yes", "yesno")
    assert converse(lesson(None), Job(yes, 0), "Cats can.", "Yes, it can.")[1].final_answer == "yes"
    with pytest.raises(BadReplyError) as raised:
        converse(lesson(None), Job(PENS, 0), "Who knows.", "unclear")
    assert raised.value.fault == "no_answer"


def test_a_zero_shot_rationale_that_was_cut_off_stands_and_a_cut_answer_does_not() -> None:
    talk = lesson(None).conversation(Job(PENS, 0))
    next(talk)
    talk.send(raw("3*12 is 36, and", finish_reason="length"))
    with pytest.raises(StopIteration) as end:
        talk.send(raw("36 pens."))
    assert end.value.value.steps == (Step("", "3*12 is 36, and"),)
    talk = lesson(None).conversation(Job(PENS, 0))
    next(talk)
    talk.send(raw("3*12 is 36."))
    with pytest.raises(BadReplyError) as raised:
        talk.send(raw("36 pens", finish_reason="length"))
    assert raised.value.fault == "truncated"


@pytest.mark.parametrize("hint", ["hint_answer", "hint_failed"])
def test_zero_shot_takes_no_hint(hint: str) -> None:
    with pytest.raises(UserError, match=f"{hint}=True is not usable: style zero-shot-cot has no place for a hint"):
        TeachSettings.parse({"model": "m", "style": "zero-shot-cot", hint: True})


@pytest.mark.parametrize("prompt", [PROMPT, None])
def test_logprobs_of_a_reply_go_with_the_chain(prompt: TeacherPrompt | None) -> None:
    talk = lesson(prompt, extra={"logprobs": True, "top_logprobs": 5}).conversation(Job(PENS, 0))
    assert next(talk)["top_logprobs"] == 5
    said = raw("Q: How many?\nA: 3*12 = 36.\n#### 36")
    said["choices"][0]["logprobs"] = {"content": [{"token": "Q", "top_logprobs": [{"token": "Q", "logprob": 0.0}]}]}
    if prompt is None:
        talk.send(said)
        said = raw("36")
    with pytest.raises(StopIteration) as ended:
        talk.send(said)
    assert ended.value.value.metadata["teacher_tokens"] == [["Q", [["Q", 1.0]]]]


def test_half_of_a_character_pair_does_not_reach_the_next_request() -> None:
    bodies, chain = converse(lesson(None), Job(PENS, 0), "3*12 is \ud83d 36.", "36")
    text = json.dumps([bodies, chain.to_json()], ensure_ascii=False)
    assert text.encode("utf-8", "replace").decode() == text


@pytest.mark.parametrize(
    ("texts", "hinted", "final"),
    [
        ((RIGHT,), False, "36"),
        ((WRONG, RIGHT), True, "36"),
        (("I cannot.", RIGHT), True, "36"),
        ((RIGHT.replace("<<3*12=36>>", "<<3*12=35>>"), RIGHT), True, "36"),
        ((WRONG, WRONG), True, "35"),
    ],
)
def test_a_hint_only_where_the_chain_would_be_rejected(texts: Sequence[str], hinted: bool, final: str) -> None:
    bodies, chain = converse(lesson(hint_failed=True), Job(PENS, 0), *texts)
    asked = [body["messages"][-1]["content"] for body in bodies]
    hint = "\n" + PROMPT.hint.format(answer="36").strip()
    assert asked == [asked[0], asked[0] + hint][: len(texts)]
    assert "36" not in asked[0]
    assert chain.metadata.get("hinted", False) is hinted
    assert chain.final_answer == final


def test_a_hint_that_does_not_help_leaves_the_second_fault() -> None:
    with pytest.raises(BadReplyError) as raised:
        converse(lesson(hint_failed=True), Job(PENS, 0), WRONG, "Q: Why?\n#### 36")
    assert raised.value.fault == "malformed"
    with pytest.raises(BadReplyError):
        converse(lesson(), Job(PENS, 0), "I cannot.")
    assert converse(lesson(), Job(PENS, 0), WRONG)[1].final_answer == "35"


def test_a_hint_from_the_start() -> None:
    [body], chain = converse(lesson(hint_answer=True), Job(PENS, 0), RIGHT)
    assert body["messages"][-1]["content"].endswith(PROMPT.hint.format(answer="36").strip())
    assert chain.metadata == {"split": "train", "hinted": True}
    [_, second], _ = converse(lesson(hint_failed=True), Job(PENS, 0), WRONG, RIGHT)
    assert second == body, "what is bought once, whichever asks first"


def test_references_of_strategyqa_become_the_teachers_answers() -> None:
    problem = Problem("q", "strategyqa", "train", "Could a llama birth twice in a war?", "yes", "yesno")
    given = (Step("How long is a llama pregnant?", ""), Step("How long was the war?", ""), Step("Is #2 twice #1?", ""))
    said = "".join(
        f"Q: {step.question}\nA: {a}\n" for step, a in zip(given, ("11 months.", "6 years", "Yes."), strict=True)
    )
    [body], chain = converse(lesson(load_prompt("answers", "strategyqa")), Job(problem, 0, given), said + "#### yes")
    assert body["messages"][-1]["content"].endswith("Q: Is #2 twice #1?")
    assert [step.question for step in chain.steps] == [
        "How long is a llama pregnant?",
        "How long was the war?",
        'Is "6 years" twice "11 months"?',
    ]


class Fake:
    """A teacher in memory: ``answer`` makes what it says to a body and sample, ``asked`` keeps these."""

    url = "http://fake/v1/"

    def __init__(self, answer: Callable[[Mapping[str, Any], int], Received]) -> None:
        self.answer = answer
        self.asked: list[tuple[Mapping[str, Any], int]] = []

    async def send(self, body: Mapping[str, Any], sample: int) -> Received:
        self.asked.append((body, sample))
        await asyncio.sleep(0)
        return self.answer(body, sample)

    async def close(self) -> None:
        pass


def in_turn(*received: Received) -> Fake:
    """Says one after the other, and the last ever after."""
    left = list(received)
    return Fake(lambda body, sample: left.pop(0) if len(left) > 1 else left[0])


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(Pace, "back_off", lambda self, attempt: 0.0)
    monkeypatch.setattr("socratic.teacher.ledger._GROUP_SECONDS", 0.0005)
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def jobs(count: int = 1) -> list[Job]:
    return [Job(PENS, sample) for sample in range(count)]


def asked_of(teacher: Fake, ledger: Ledger, count: int = 1, most: int = 4, **how: Any) -> Asking:
    """What an asking for so many jobs came to."""

    async def run() -> Asking:
        asking = Asking(teacher, ledger, Pace(most), **how)
        await asyncio.wait_for(asking.run(jobs(count), lesson()), 60)
        return asking

    return asyncio.run(run())


def test_all_are_asked_once_and_what_is_stored_never_again(ledger: Ledger) -> None:
    teacher = in_turn(reply())
    shown: list[int] = []
    first = asked_of(teacher, ledger, 10, on_change=lambda tally: shown.append(tally.done))
    assert first.tally == Tally(10, 10, Counter(), 10)
    assert sorted(sample for _, sample in teacher.asked) == list(range(10))
    assert shown == list(range(1, 11))
    again = asked_of(teacher, ledger, 12)
    assert again.tally == Tally(12, 12, Counter(), 2)
    assert len(teacher.asked) == 12
    assert (ledger.tokens, ledger.unknown(), first.why_stopped) == ((1200, 240), 0, None)


def test_what_the_ledger_says_of_a_job_is_what_came_of_it(ledger: Ledger) -> None:
    talk = lesson().conversation(Job(PENS, 0))
    request, found = standing(Job(PENS, 0), lesson(), ledger)
    assert request is not None
    assert (request[1], found) == (next(talk), None)
    assert request[0] == request_key(request[1], 0)
    said = [reply(), reply("I cannot."), REFUSED]
    asked_of(Fake(lambda body, sample: said[sample]), ledger, 3)
    [first, second, third] = [standing(job, lesson(), ledger) for job in jobs(3)]
    assert first[0] is None
    assert isinstance(first[1], Chain)
    assert first[1].steps == STEPS
    assert isinstance(second[1], BadReplyError)
    assert third[0] is not None
    assert ledger.failures[third[0][0]].reason == "status_400"


def test_transient_failures_are_tried_again(ledger: Ledger) -> None:
    teacher = in_turn(RETRY, UNREACHED, RETRY, reply())
    asking = asked_of(teacher, ledger)
    assert (len(teacher.asked), asking.tally.kept, ledger.failures) == (4, 1, {})


def test_a_transient_failure_is_never_final(ledger: Ledger) -> None:
    teacher = in_turn(RETRY)
    asking = asked_of(teacher, ledger)
    assert asking.tally.failed == {"status_500": 1}
    assert asking.why_stopped is None
    [failure] = ledger.failures.values()
    assert (failure.reason, failure.detail, failure.final) == ("status_500", "500: oh", False)
    assert failure.number == len(teacher.asked) == 12
    assert asked_of(in_turn(reply()), ledger).tally.kept == 1
    assert ledger.failures == {}


def test_what_was_refused_is_asked_again_only_when_wanted(ledger: Ledger) -> None:
    teacher = in_turn(REFUSED)
    for _ in range(2):
        assert asked_of(teacher, ledger).tally.failed == {"status_400": 1}
        assert len(teacher.asked) == 1
    [failure] = ledger.failures.values()
    assert failure.final
    assert asked_of(in_turn(reply()), ledger, retry_failed=True).tally.kept == 1


@pytest.mark.parametrize("received", [REFUSED, DENIED])
def test_refusals_in_a_row_stop_the_run(ledger: Ledger, received: Received) -> None:
    teacher = in_turn(received)
    asking = asked_of(teacher, ledger, 100)
    assert asking.why_stopped == f"{teacher.url} refused 20 requests in a row ({received.detail}); mend that first"
    assert 20 <= len(teacher.asked) < 24
    assert asking.tally.failed == {received.reason: len(teacher.asked)}
    again = asked_of(in_turn(reply()), ledger, 100)
    assert again.tally.kept == (100 if received is DENIED else 100 - len(teacher.asked))


def test_refusals_with_replies_in_between_stop_nothing(ledger: Ledger) -> None:
    teacher = in_turn(*[DENIED] * 19, reply(), *[REFUSED] * 19, reply())
    assert asked_of(teacher, ledger, 40, most=1).why_stopped is None
    assert len(teacher.asked) == 40


def test_being_overloaded_uses_up_no_attempt(ledger: Ledger) -> None:
    teacher = in_turn(*[OVERLOADED] * 12, *[RETRY] * 7, reply())
    asking = asked_of(teacher, ledger)
    assert (len(teacher.asked), asking.tally.kept) == (20, 1)


def test_a_key_that_is_refused_stops_at_once(ledger: Ledger) -> None:
    teacher = in_turn(reply(), reply(), STOP)
    asking = asked_of(teacher, ledger, 100)
    assert asking.why_stopped == f"{teacher.url} refuses the key (401: no)"
    assert len(teacher.asked) <= 2 + 4
    assert not any(failure.final for failure in ledger.failures.values())
    assert asking.tally.done == asking.tally.kept == 2


def test_an_endpoint_that_cannot_be_reached_stops_early(ledger: Ledger) -> None:
    teacher = in_turn(UNREACHED)
    asking = asked_of(teacher, ledger, 100)
    assert asking.why_stopped == f"{teacher.url} cannot be reached (ConnectError()); start it, or correct --base-url"
    assert 8 <= len(teacher.asked) < 12


def test_one_that_replied_before_is_given_more_time(ledger: Ledger) -> None:
    teacher = in_turn(reply(), *[UNREACHED] * 15, reply())
    assert asked_of(teacher, ledger, 20, most=2).tally.kept == 20


def test_an_endpoint_that_only_fails_is_given_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_MOST_BREAKS", 0)
    asking = asked_of(in_turn(RETRY), ledger, 100)
    assert asking.why_stopped == "http://fake/v1/ has failed for minutes; run the command again when it works"


LATER = Received("overloaded", reason="status_429", headers={"retry-after": "3600"})


@pytest.mark.parametrize("received", [RETRY, OVERLOADED, LATER])
def test_stopping_ends_all_rest(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, received: Received) -> None:
    monkeypatch.setattr(Pace, "back_off", lambda self, attempt: 3600.0)
    teacher = in_turn(received)

    async def run() -> Asking:
        asking = Asking(teacher, ledger, Pace(4))
        running = asyncio.create_task(asking.run(jobs(50), lesson()))
        while len(ledger.failures) < 2:
            await asyncio.sleep(0.001)
        asking.stop("enough")
        asking.stop("more than enough")
        await asyncio.wait_for(running, 30)
        return asking

    asking = asyncio.run(run())
    assert asking.why_stopped == "enough"
    assert len(teacher.asked) < 12


@pytest.mark.parametrize("received", [reply(), RETRY, LATER])
def test_what_is_under_way_when_stopped_comes_to_its_end(ledger: Ledger, received: Received) -> None:
    async def run() -> int:
        release = asyncio.Event()

        class Slow(Fake):
            async def send(self, body: Mapping[str, Any], sample: int) -> Received:
                await super().send(body, sample)
                await release.wait()
                return received

        teacher = Slow(lambda body, sample: received)
        asking = Asking(teacher, ledger, Pace(3))
        running = asyncio.create_task(asking.run(jobs(50), lesson()))
        while len(teacher.asked) < 3:
            await asyncio.sleep(0.001)
        asking.stop("enough")
        await asyncio.sleep(0.01)
        assert not running.done()
        release.set()
        await asyncio.wait_for(running, 30)
        return len(teacher.asked)

    assert asyncio.run(run()) == 3
    assert len(ledger.replied) + len(ledger.failures) == 3
    assert ledger.unknown() == 0


def test_a_full_disk_stops_before_anything_is_sent(ledger: Ledger) -> None:
    ledger.full = True
    teacher = in_turn(reply())
    asking = asked_of(teacher, ledger, 10)
    assert asking.why_stopped is not None
    assert "is full" in asking.why_stopped
    assert teacher.asked == []


def test_no_more_is_spent_than_allowed(ledger: Ledger) -> None:
    how = AskSettings.parse(
        {"prompt_price": 10_000.0, "completion_price": 50_000.0, "max_cost": 9.0}
    )  # 2 dollars a reply
    teacher = in_turn(reply())
    asking = asked_of(teacher, ledger, 50, most=1, may_spend=lambda under_way: _affordable(how, ledger, under_way, 2.0))
    assert asking.why_stopped == "the limit of --max-cost is reached; raise it and run the command again"
    assert (len(teacher.asked), how.cost(ledger.tokens)) == (4, 8)
    more = how.model_copy(update={"max_cost": 21.0})
    asked_of(teacher, ledger, 50, most=4, may_spend=lambda under_way: _affordable(more, ledger, under_way, 2.0))
    assert 18 <= more.cost(ledger.tokens) <= 21


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (reply(WRONG), "wrong_answer"),
        (reply(RIGHT.replace("3*12=<<3*12=36>>36", "99 and 36")), "unfounded_number"),
        (reply(RIGHT.replace("=36>>", "=35>>")), "wrong_mark"),
        (reply("#### 36"), "no_steps"),
        (reply("I cannot do that."), "no_answer"),
        (reply("Q: Why?\n#### 36"), "malformed"),
        (reply('{"steps": 3, "answer": "36"}'), "wrong_types"),
        (reply(RIGHT, finish_reason="length"), "truncated"),
        (reply("No.", finish_reason="content_filter"), "refused"),
        (reply(None), "empty"),
        (reply(RIGHT.replace("pens.\n", f"pens and {'7' * 4400}.\n")), "unfounded_number"),
        (REFUSED, "status_400"),
        (DENIED, "status_404"),
        (RETRY, "status_500"),
    ],
)
def test_what_did_not_work_is_counted_by_reason(ledger: Ledger, received: Received, reason: str) -> None:
    left = [reply(), received]
    asking = asked_of(in_turn(*left), ledger, 2, most=1)
    assert asking.tally.failed == {reason: 1}
    assert (asking.tally.done, asking.tally.kept) == (2, 1)


SUM = '{"sum": "5"}'


def probing(teacher: Fake, ledger: Ledger, **settings: Any) -> Form:
    asking = Asking(teacher, ledger, Pace(1))
    return asyncio.run(asyncio.wait_for(asking.probe(TeachSettings(model="m", **settings)), 30))


@pytest.mark.parametrize(
    ("says", "form", "requests"),
    [
        ({"json_schema": reply(SUM)}, "json_schema", 1),
        ({"json_schema": REFUSED, "json_object": reply(SUM)}, "json_object", 2),
        ({"json_schema": reply("It is 5."), "json_object": reply(f" {SUM} ")}, "json_object", 2),
        ({"json_schema": reply('{"sum": 5}'), "json_object": reply("[5]"), None: reply("It is 5.")}, "text", 3),
        ({"json_schema": REFUSED, "json_object": REFUSED, None: reply(SUM)}, "text", 3),
        ({"json_schema": RETRY, "json_object": reply(SUM)}, "json_object", 4),
        ({"json_schema": reply(SUM, finish_reason="length"), "json_object": reply(SUM)}, "json_object", 2),
        ({"json_schema": reply(None), "json_object": reply("{" * 100_000), None: reply("5")}, "text", 3),
    ],
)
def test_the_strictest_form_that_is_kept_to(ledger: Ledger, says: Any, form: Form, requests: int) -> None:
    teacher = Fake(lambda body, sample: says[body.get("response_format", {}).get("type")])
    assert probing(teacher, ledger, extra={"top_p": 0.5}) == form
    assert len(teacher.asked) == requests
    assert all(body["top_p"] == 0.5 for body, _ in teacher.asked)
    if RETRY not in says.values():
        assert probing(teacher, ledger, extra={"top_p": 0.5}) == form
        assert len(teacher.asked) == requests


@pytest.mark.parametrize(
    ("received", "said"),
    [
        (DENIED, "does not reply to 'm': status_404 (404: no model m)"),
        (REFUSED, "does not reply to 'm': status_400 (400: no)"),
        (RETRY, "does not reply to 'm': status_500 (500: oh)"),
        (STOP, "refuses the key (401: no)"),
        (UNREACHED, "cannot be reached (ConnectError()); start it, or correct --base-url"),
    ],
)
def test_an_endpoint_that_replies_to_nothing_is_the_users_to_mend(
    ledger: Ledger, received: Received, said: str
) -> None:
    asyncio.run(ledger.fail("of another request", 1, "status_402", "402: pay", final=False))
    for _ in range(2):
        with pytest.raises(UserError) as raised:
            probing(in_turn(received), ledger)
        assert str(raised.value) == f"http://fake/v1/ {said}"
        asyncio.run(ledger.fail("of one more", 1, "status_402", "402: pay", final=False))


def test_the_short_reply_that_tries_the_form_out_is_no_measure_of_cost(ledger: Ledger) -> None:
    asyncio.run(ledger.keep("2 + 3", json.dumps(raw(SUM)), (10, 2)))
    how = AskSettings.parse({"prompt_price": 10_000.0, "completion_price": 50_000.0, "max_cost": 9.0})
    assert _affordable(how, ledger, 4, 2.0)
    assert not _affordable(how, ledger, 5, 2.0)


def test_a_server_that_was_mended_is_asked_anew(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="does not reply"):
        probing(in_turn(REFUSED), ledger)
    assert probing(in_turn(reply(SUM)), ledger) == "json_schema"


@pytest.mark.parametrize(
    ("dataset", "question"), [("strategyqa", 'What is twice "3 boxes"?'), ("own", "What is twice #1?")]
)
def test_references_to_answers_are_those_of_strategyqa_alone(dataset: str, question: str) -> None:
    given = (Step("How many boxes?", ""), Step("What is twice #1?", ""))
    said = "Q: How many boxes?\nA: 3 boxes.\nQ: What is twice #1?\nA: 6.\n#### 6"
    problem = Problem("p", dataset, "train", "How many?", "6")
    _, chain = converse(lesson(load_prompt("answers", "generic")), Job(problem, 0, given), said)
    assert chain.steps[1].question == question


@pytest.mark.parametrize("extra", [{"n": 4}, {"stream": True}])
def test_several_choices_and_streams_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="leave stream and n out"):
        TeachSettings.parse({"model": "m", "extra": extra})
