"""The tutor's desk: what a person may type, and what a `Tutor` then does and shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from socratic.calculator import disagreements
from socratic.cli.screen import Screen
from socratic.cli.shared import out, typed_problem
from socratic.evaluate import score_trace
from socratic.learner import Learner
from socratic.report import visible
from socratic.report.paint import complaint
from socratic.report.problem import STOPPED
from socratic.session_file import load_session, save_session
from socratic.solving import Solving
from socratic.store import expanded
from socratic.tasks import draw_problem
from socratic.tutor import Tutor
from socratic.types import Chain, Problem, StopReason, Trace, UserError

if TYPE_CHECKING:
    from socratic.lm.base import LM
    from socratic.solving import Event
    from socratic.tutor import Node

_SIDE_BY_SIDE = 60
"""Columns of a terminal from which on two texts stand side by side."""

HELP = """\
Enter          take the question; QA answers it
TEXT           ask a question of your own; as the learner: your answer
/ask TEXT      a question of your own, whatever it begins with
/edit          change the question that waits; /edit N that of step N
/again         another question, sampled
/alt           what else QG might ask, and how likely; /alt N takes the N-th
/answer TEXT   answer the question yourself
/reanswer      have the last answer written again, sampled
/undo          take the last step back
/tree          all steps tried; /go N continues behind N, /go 0 starts over
/auto          let the students finish
/final         QA's final answer now
/gold          the data set's own steps and answer
/cot           the chain-of-thought student's way beside this one
/learn         you answer QG's questions and are told whether you are right;
               /hint helps, Enter has QA answer, /learn again ends it
/save FILE     keep the session; /load FILE goes on with one
/new           a problem of your own; end it with an empty line
/draw NAME     a problem of a data set, or the one with that id
/help  /quit   Ctrl-C stops what is being written and keeps the part"""


class Desk:
    """A `Tutor` with a person before it."""

    def __init__(
        self, solving: Solving, load_cot: Callable[[], LM | None], data_dir: str | None, as_json: bool
    ) -> None:
        self.solving, self.load_cot, self.data_dir = solving, load_cot, data_dir
        self.screen = Screen(as_json)
        self.tutor: Tutor | None = None
        self.learner: Learner | None = None
        self.learning = False
        self.alternatives: tuple[Node | None, list[str]] = None, []
        self.cot: LM | None = None
        self.silent_at: Node | None = None
        """Where QG is not asked unasked: it had nothing usable there, or something failed or was stopped."""
        self.commands: dict[str, Callable[[str], object]] = {
            "/ask": self.put,
            "/edit": self.edit,
            "/again": lambda _: self.ask(1.0),
            "/alt": self.alt,
            "/answer": self.put_answer,
            "/reanswer": lambda _: self.reanswer(),
            "/undo": lambda _: self.undo(),
            "/go": self.go,
            "/tree": lambda _: self.tree(),
            "/auto": lambda _: self.auto(),
            "/final": lambda _: self.final(),
            "/gold": lambda _: self.show_gold(),
            "/cot": lambda _: self.solve_by_cot(),
            "/learn": lambda _: self.learn(),
            "/hint": lambda _: self.hint(),
            "/save": self.save,
            "/load": self.load,
            "/new": lambda _: self.new(),
            "/draw": self.draw,
            "/help": lambda _: self.screen.say("help", HELP),
        }

    def run(self) -> None:
        """Take lines until they end or ``/quit`` is typed."""
        while True:
            try:
                if self.tutor is None:
                    self.new()
                    continue
                if self.tutor.question is None and not self.tutor.concluded and self.silent_at is not self.tutor.here:
                    self.ask()
                line = self.screen.read("answer> " if self.learning and self._asked() else "> ")
                if line.split()[:1] == ["/quit"]:
                    return
                self.obey(line)
            except EOFError:
                if self.screen.is_typed:
                    out.print()
                return
            except KeyboardInterrupt:
                if not self.screen.is_typed:
                    raise
                self.screen.say("note", "\n(/quit leaves)")
            except UserError as error:
                if self.tutor is not None:
                    self.silent_at = self.tutor.here  # what failed is not tried again unasked
                self.screen.say("error", str(error))

    def obey(self, line: str) -> None:
        """Do what a line says."""
        word, _, rest = line.strip().partition(" ")
        if word in self.commands:
            self.commands[word](rest.strip())
        elif word.startswith("/"):
            raise UserError(f"{word} is unknown; /help lists what can be typed")
        elif self.learning and self._asked():
            self.judge(line.strip())
        elif line.strip():
            self.put(line)
        else:
            self.answer()

    # What the students do

    def ask(self, temperature: float = 0.0) -> bool:
        """Have QG ask; where it stops, the final answer follows. Whether either came whole."""
        tutor = self._tutor()
        text, whole = self.stream("question", tutor.ask(temperature))
        if not whole and text:
            tutor.put(text, "student")
            return False
        if tutor.question == "":
            return self.final()
        if not self._asked():
            self.silent_at = tutor.here
            self.screen.say("note", "no question that can be used; ask one, /again, or take a step back with /undo")
        return whole and self._asked()

    def answer(self, temperature: float = 0.0) -> bool:
        """Have QA answer the question that waits; whether it did, to the end."""
        tutor = self._tutor()
        if not self._asked():
            raise UserError("no question waits; type one, or /undo, /new, /draw, /quit")
        text, whole = self.stream("answer", tutor.answer(temperature))
        if not whole and text:
            tutor.put_answer(text, "student")
        elif tutor.fault:
            self.screen.say("note", "no answer that can be used; give one with /answer TEXT, or go back with /undo")
        return whole and tutor.fault is None

    def final(self, stop_reason: StopReason = "finished") -> bool:
        """The final answer, and whether it is right; whether there is one."""
        tutor = self._tutor()
        _, whole = self.stream("final", tutor.conclude(stop_reason))
        if not whole:
            self.silent_at = tutor.here
        self._tell_stop("", tutor.stop_reason)
        found = tutor.score()
        if found is not None:
            self._tell_score("", found.correct)
        return whole and tutor.final_answer is not None

    def auto(self) -> None:
        """Let QG and QA go on to the end, as `solve` does; Ctrl-C leaves them where they are."""
        tutor = self._tutor()
        while not tutor.concluded:
            if not self._asked():
                if len(tutor.steps) >= self.solving.settings.max_steps:
                    self.final("max_steps")
                    return
                if not self.ask():
                    break
            elif not self.answer():
                break
            elif tutor.repeats():
                tutor.undo()
                self.final("repeated_step")
                return
        if tutor.fault and not tutor.concluded:
            self.final(tutor.fault)

    def put(self, text: str) -> None:
        """Ask what a person typed, and have it answered."""
        if not text.strip():
            raise UserError("the question is empty; type one")
        self._tutor().put(" ".join(text.split()))
        self.answer()

    def edit(self, text: str) -> None:
        """Another question in place of the one that waits, or of an earlier step's, which begins a branch."""
        tutor = self._tutor()
        begin, node = (tutor.question or "").strip(), tutor.here
        if text.isascii() and text.isdecimal():
            path = tutor.here.path()
            if not 1 <= int(text) <= len(path):
                raise UserError(f"/edit {text}: there are {len(path)} steps; give the number of one")
            step = path[int(text) - 1]
            begin, node, text = step.step.question, step.parent or tutor.root, ""
        asked = text or self.screen.read("question> ", begin)
        if asked.strip() and node is not tutor.here:
            self._go(node)
        self.put(asked)

    def alt(self, number: str) -> None:
        """Show what else QG might ask, or take one of it."""
        tutor = self._tutor()
        if number:
            where, texts = self.alternatives
            if where is not tutor.here:
                raise UserError("there is no list of alternatives for this step yet; /alt shows one")
            tutor.put(texts[_number(number, "/alt", 1, len(texts)) - 1], "student")
            self.answer()
            return
        found = tutor.alternatives()
        self.alternatives = tutor.here, [text for text, _ in found if text]
        place = 0
        for text, probability in found:
            place += bool(text)
            shown = "<0.1%" if probability < 0.001 else f"{probability:.1%}"
            line = f"{f'{place}.' if text else '':>3} {shown:>6} {text or '(nothing more)'}"
            self.screen.say("alternative", line, number=place if text else None, question=text, probability=probability)
        rest = 1 - sum(probability for _, probability in found)
        if rest > 0.001:
            self.screen.say("note", f"    {rest:>6.1%} in other words", probability=rest)

    def put_answer(self, text: str) -> None:
        """Take a person's answer."""
        tutor = self._tutor()
        if not text or not self._asked():
            raise UserError("/answer TEXT answers the question that waits; there must be both")
        tutor.put_answer(text)
        for mark in disagreements(text):
            self.screen.say("wrong", complaint(mark))

    def reanswer(self) -> None:
        """Have the last answer written again."""
        tutor = self._tutor()
        last = tutor.here
        tutor.undo()
        tutor.put(last.step.question, last.asked_by)
        self.answer(1.0)

    def undo(self) -> None:
        """Take the last step back."""
        self._tutor().undo()
        self.silent_at = None

    # The tree

    def tree(self) -> None:
        """All steps tried, a line each, indented behind a branch; those of the current path marked."""
        current = self._tutor().here.path()
        for number, node in enumerate(self._tutor().root.walk()):
            if node.parent is None:
                continue
            branches = sum(len(step.parent.children) > 1 for step in node.path() if step.parent)
            sign, indent = "*" if node in current else " ", "  " * min(branches, 8)
            asked, answered = ("(you) " * (by == "person") for by in (node.asked_by, node.answered_by))
            line = f"{sign}{number:3} {indent}Q: {asked}{node.step.question} A: {answered}{node.step.answer}"
            known = {"number": number, "current": node in current, **node.step.to_json()}
            self.screen.say("step", " ".join(line.splitlines()), one_line=True, **known)

    def go(self, number: str) -> None:
        """Continue behind a step of the tree."""
        nodes = list(self._tutor().root.walk())
        self._go(nodes[_number(number, "/go", 0, len(nodes) - 1)])

    def _go(self, node: Node) -> None:
        self._tutor().go(node)
        self.silent_at = None

    # The learner

    def learn(self) -> None:
        """Begin or end answering oneself."""
        self.learning = not self.learning
        self.screen.say("note", "you answer now; /hint helps" if self.learning else "QA answers again")

    def judge(self, said: str) -> None:
        """Keep a learner's answer that is right, in the words of the answer it equals; an empty one has QA answer."""
        assert self.learner is not None
        if not said:
            self.answer()
            return
        verdict = self.learner.judge(said)
        if verdict.answer is None:
            self.screen.say("judgement", f"{verdict.why}; try again, /hint, or Enter for QA's", "wrong", right=False)
        else:
            self.screen.say("judgement", verdict.why, "right", right=True)
            self.screen.show("answer", "answer", verdict.answer, len(self._tutor().steps) + 1)
            self._tutor().put_answer(verdict.answer)

    def hint(self) -> None:
        """How the answer is calculated, but not what comes out."""
        if self.learner is None or not self._asked():
            raise UserError("no question waits that a hint could help with")
        hint = self.learner.hint()
        self.screen.say("hint", hint or "there is no hint for this one")

    # Problems and files

    def begin(self, problem: Problem, gold: Chain | None = None, is_typed: bool = False) -> None:
        """Start on a problem; one that was just typed is not shown again."""
        self._take(Tutor(problem, self.solving, gold))
        if not is_typed or self.screen.as_json:
            self.screen.show_problem(problem)

    def _take(self, tutor: Tutor) -> None:
        self.tutor, self.learner, self.silent_at = tutor, Learner(tutor), None

    def new(self) -> None:
        """Read a problem, which ends with an empty line, or is pasted as a whole."""
        self.screen.say("note", "the problem, then an empty line:")
        lines: list[str] = []
        while True:
            try:
                line = self.screen.read("")
            except EOFError:
                if not lines and self.tutor is None:
                    raise
                break
            if not lines and line.strip().startswith("/"):
                self._obey_without_problem(line)
                return
            if line.strip():
                lines.append(line)
            elif lines and not self.screen.has_more():
                break
            if "\n" in line:
                break
        if lines:
            self.begin(typed_problem("\n".join(lines)), is_typed=self.screen.is_typed)

    def _obey_without_problem(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if word == "/quit":
            raise EOFError
        if word not in ("/draw", "/load", "/help"):
            raise UserError("there is no problem yet; type one, or /draw NAME, /load FILE, /help, /quit")
        self.commands[word](rest.strip())

    def draw(self, name: str) -> None:
        """A problem of a data set; where none is named, one of those that come with the package."""
        problem, gold = draw_problem(name or "stories", self.data_dir)
        self.screen.say("note", problem.id)
        self.begin(problem, gold)

    def show_gold(self) -> None:
        """The data set's own solution."""
        tutor = self._tutor()
        if not tutor.problem.answer:
            raise UserError("this problem has no gold answer; /draw takes one that has")
        for number, step in enumerate(tutor.gold.steps if tutor.gold else (), start=1):
            if step.question:
                self.screen.show("gold", "question", step.question, number)
            self.screen.show("gold", "answer", step.answer, number)
        self.screen.show("gold", "final", tutor.problem.answer)

    def solve_by_cot(self) -> None:
        """The same problem solved by the chain-of-thought student, beside what stands so far."""
        self.cot = self.cot or self.load_cot()
        if self.cot is None:
            raise UserError("there is no chain-of-thought student; give --cot MODEL")
        problem = self._tutor().problem
        settings = self.solving.settings.model_copy(update={"solver": "cot", "qg_sees": None})
        traces: list[Trace] = []
        pieces = _readable(Solving(settings, lm=self.cot).stream(problem), traces)
        if self.screen.as_json or not out.is_terminal or out.width < _SIDE_BY_SIDE:
            self.stream("cot", pieces)
        else:
            written = ""
            with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
                for piece in pieces:
                    written += piece
                    live.update(self._beside(written), refresh=True)
        for trace in traces:
            self._tell_stop("CoT: ", trace.stop_reason)
            if problem.answer:
                self._tell_score("CoT: ", score_trace(problem, trace).correct)

    def _beside(self, cot: str) -> Table:
        """The path so far and a chain of thought in two columns."""
        tutor = self._tutor()
        made = [f"{n}. Q: {s.question}\n   A: {s.answer}" for n, s in enumerate(tutor.steps, start=1)]
        made += [f"#### {tutor.final_answer}"] if tutor.final_answer is not None else []
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
        for heading in ("QG and QA", "CoT"):
            table.add_column(heading, ratio=1, overflow="fold")
        table.add_row(*(Text(visible(text)) for text in ("\n".join(made) or "(no step yet)", cot)))
        return table

    def save(self, name: str) -> None:
        """Keep the session, in a new file or over an older session."""
        path = _path(name, "/save")
        save_session(self._tutor(), path)
        self.screen.say("note", f"saved to {path}")

    def load(self, name: str) -> None:
        """Go on with a session that was kept."""
        self._take(load_session(_path(name, "/load"), self.solving))
        self.screen.show_problem(self._tutor().problem)
        self.tree()
        if self._tutor().final_answer is not None:
            self.screen.show("final", "final", self._tutor().final_answer or "")

    def stream(self, kind: str, pieces: Iterator[str]) -> tuple[str, bool]:
        """`Screen.stream` of what a student writes now."""
        tutor = self._tutor()
        number = len(tutor.steps) + 1 if kind in ("question", "answer") else 0
        return self.screen.stream(kind, pieces, number, lambda: tutor.fault if kind != "cot" else None)

    def _tell_stop(self, whose: str, stop_reason: StopReason) -> None:
        if stop_reason != "finished":
            self.screen.say("note", whose + STOPPED[stop_reason], stop_reason=stop_reason)

    def _tell_score(self, whose: str, correct: bool) -> None:
        said = "right" if correct else f"wrong: it is {self._tutor().problem.answer}"
        self.screen.say("score", whose + said, "right" if correct else "wrong", correct=correct)

    def _tutor(self) -> Tutor:
        assert self.tutor is not None  # lines are obeyed only before a problem
        return self.tutor

    def _asked(self) -> bool:
        return bool(self.tutor is not None and self.tutor.question and self.tutor.question.strip())


def _readable(events: Iterator[Event], traces: list[Trace]) -> Iterator[str]:
    """What a chain-of-thought student writes, its answer behind the marker; the trace goes into ``traces``."""
    begun = False
    for event in events:
        if event.trace is not None:
            traces.append(event.trace)
        elif event.done:
            yield event.text + ("\n#### " if event.kind == "answer" else "")
            begun = False
        else:
            yield event.text if begun else event.text.lstrip()
            begun = begun or bool(event.text.strip())


def _number(text: str, command: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise UserError(
            f"{command} {text} is none of {least} to {most}; {'/tree' if command == '/go' else command} lists"
        )
    return int(text)


def _path(name: str, command: str) -> Path:
    if not name:
        raise UserError(f"{command} FILE needs a file's name")
    return expanded(name)
