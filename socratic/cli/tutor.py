"""The command `tutor`: a problem solved step by step, by students and whoever sits before them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from socratic.cli.paint import Slot, paint
from socratic.cli.shared import (
    QA,
    QG,
    AsJson,
    Calculator,
    DataDir,
    Device,
    Dtype,
    Seed,
    Settings,
    err,
    load_models,
    make_solving,
    out,
    print_json,
)
from socratic.report import visible
from socratic.types import Chain, Problem, UserError

if TYPE_CHECKING:
    from socratic.learner import Learner
    from socratic.lm.base import LM
    from socratic.loops import Event, Solving
    from socratic.tutor import Node, Tutor

_SIDE_BY_SIDE = 60
"""Columns of a terminal from which on two texts stand side by side."""

HELP = """\
Enter           take the question; QA answers it
TEXT            ask a question of your own instead
/edit TEXT      the same, when the text begins with a slash
/again          another question, sampled
/alt            what else QG might ask, with probabilities; /alt N takes the N-th
/answer TEXT    answer the question yourself
/reanswer       have the last answer written again, sampled
/undo           take the last step back
/go N           continue behind step N of the tree; /go 0 starts over
/tree           all steps tried so far
/auto           let the students finish
/final          QA's final answer now
/gold           the data set's own steps and answer
/cot            the chain-of-thought student's way beside yours
/learn          you answer, and are told whether you are right; /hint helps; /learn again ends it
/save FILE      keep the session; /load FILE goes on with one
/new            a problem of your own; end it with an empty line
/draw [NAME]    a problem of a data set
/help  /quit"""


def tutor(
    text: Annotated[str | None, typer.Argument(help="The problem; asked for if left out.")] = None,
    data: Annotated[str | None, typer.Option(help="Draw a problem of this data set.")] = None,
    qg: QG = None,
    qa: QA = None,
    cot: Annotated[str | None, typer.Option(help="The chain-of-thought student for /cot: MODEL.")] = None,
    calculator: Calculator = None,
    learn: Annotated[bool, typer.Option("--learn", help="You answer QG's questions.")] = False,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Solve a problem step by step together with the students; /help lists what can be typed."""
    if (qg is None) != (qa is None):
        raise UserError("give both --qg and --qa, or neither for the newest ones below runs/")
    if qg is None or qa is None:
        found = newest_students(Path("runs"))
        if "qg" not in found or "qa" not in found:
            raise UserError("there are no students below runs/; train some (socratic demo does), or give --qg and --qa")
        qg, qa, cot = found["qg"], found["qa"], cot or found.get("cot")
        err.print(f"students: {visible(f'{qg}, {qa}' + (f', {cot}' if cot else ''))}", soft_wrap=True)
    solving = make_solving("socratic", qg, qa, None, calculator, 0.0, seed, device, dtype, setting, "local")
    desk = Desk(solving, lambda: load_models([cot], device, dtype)[cot] if cot else None, data_dir, as_json)
    desk.learning = learn
    if text is not None:
        desk.begin(_own(text))
    elif data is not None:
        desk.draw(data)
    desk.run()


def newest_students(runs: Path) -> dict[str, str]:
    """The newest trained student of each role below ``runs``, by role."""
    from socratic.lm.checkpoint import CARD
    from socratic.store import read_json

    found: dict[str, tuple[float, str]] = {}
    for card in runs.rglob(CARD):
        role, when = str(read_json(card).get("role")), card.stat().st_mtime
        if role not in found or when > found[role][0]:
            found[role] = when, str(card.parent)
    return {role: folder for role, (_, folder) in found.items()}


class Desk:
    """What the person at the terminal sees and types; a `Tutor` holds the problem."""

    def __init__(
        self, solving: Solving, load_cot: Callable[[], LM | None], data_dir: str | None, as_json: bool
    ) -> None:
        self.solving, self.load_cot, self.data_dir, self.as_json = solving, load_cot, data_dir, as_json
        self.tutor: Tutor | None = None
        self.learner: Learner | None = None
        self.learning = False
        self.alternatives: list[str] = []
        self.cot: LM | None = None

    def run(self) -> None:
        """Take lines until they end or ``/quit`` is typed."""
        with suppress(ImportError):
            import readline  # noqa: F401 - gives `input` history and editing
        while True:
            try:
                if self.tutor is None:
                    self.new()
                elif self.tutor.question is None and self.tutor.final_answer is None:
                    self.ask()
                line = self.read("answer> " if self.learning and self._asked() else "> ")
                if line.strip() == "/quit":
                    return
                self.obey(line)
            except EOFError:
                return
            except KeyboardInterrupt:
                self.say("note", "(/quit leaves)")
            except UserError as error:
                self.say("error", str(error))

    def obey(self, line: str) -> None:
        """Do what a line says."""
        word, _, rest = line.strip().partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/edit": self.put,
            "/again": lambda _: self.ask(1.0),
            "/alt": self.alt,
            "/answer": self.put_answer,
            "/reanswer": self.reanswer,
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
            "/help": lambda _: self.say("help", HELP),
        }
        if word in commands:
            commands[word](rest.strip())
        elif word.startswith("/"):
            raise UserError(f"{word} is unknown; /help lists what can be typed")
        elif self.learning and self._asked():
            self.judge(line.strip())
        elif line.strip():
            self.put(line.strip())
        else:
            self.answer()

    # What the students do

    def ask(self, temperature: float = 0.0) -> None:
        """Have QG ask; where it stops, the final answer follows."""
        tutor = self._tutor()
        tutor.final_answer = None
        text, whole = self.stream("question", tutor.ask(temperature))
        if not whole and text.strip():
            tutor.put(text)
        elif tutor.question is None:
            self.say("note", "(what QG wrote is no question; ask one yourself, or /again)")
        elif not tutor.question:
            self.final()

    def answer(self, temperature: float = 0.0) -> None:
        """Have QA answer the question that waits."""
        tutor = self._tutor()
        if not self._asked():
            raise UserError("no question waits; type one, or /undo, /new, /draw, /quit")
        question = tutor.question or ""
        before = tutor.here
        text, whole = self.stream("answer", tutor.answer(temperature))
        if not whole and text.strip():
            tutor.put(question)
            tutor.put_answer(text)
        if tutor.here is before:
            self.say("note", "(what QA wrote is no answer; give one with /answer TEXT)")
            tutor.put(question)
        else:
            self.mark(tutor.here)

    def mark(self, node: Node) -> None:
        """Say what an answer calculates wrongly, unless that was painted when it was written."""
        if node.answered_by == "student" and not self.as_json:
            return
        for wrong in self._tutor().check(node):
            self.say("wrong", f"{wrong.expr} is not {wrong.result}")

    def final(self) -> None:
        """The final answer, and whether it is right."""
        tutor = self._tutor()
        self.stream("final", tutor.conclude())
        score = tutor.score()
        if score is not None:
            self.say("score", "right" if score.correct else f"wrong: it is {tutor.problem.answer}")

    def auto(self) -> None:
        """Let QG and QA go on to the end."""
        tutor = self._tutor()
        while tutor.final_answer is None and len(tutor.steps) < self.solving.settings.max_steps:
            if self._asked():
                self.answer()
            self.ask()

    def put(self, text: str) -> None:
        """Ask what a person typed, and have it answered."""
        if not text:
            raise UserError("the question is empty; type one")
        self._tutor().put(text)
        self.answer()

    def alt(self, number: str) -> None:
        """Show what else QG might ask, or take one of it."""
        tutor = self._tutor()
        if number:
            if not number.isdigit() or not 1 <= int(number) <= len(self.alternatives):
                raise UserError(f"/alt {number} is none of the {len(self.alternatives)} alternatives; /alt lists them")
            self.put(self.alternatives[int(number) - 1])
            return
        found = tutor.alternatives()
        self.alternatives = [text for text, _ in found if text]
        for text, probability in found:
            place = f"{self.alternatives.index(text) + 1}." if text else "  "
            self.say("alternative", f"{place} {probability:5.1%} {text or '(nothing more)'}")

    def put_answer(self, text: str) -> None:
        """Take a person's answer."""
        tutor = self._tutor()
        if not text or not self._asked():
            raise UserError("/answer TEXT answers the question that waits; there must be both")
        tutor.put_answer(text)
        self.mark(tutor.here)

    def reanswer(self, _: str) -> None:
        """Have the last answer written again."""
        tutor = self._tutor()
        question = tutor.here.step.question
        tutor.undo()
        tutor.put(question)
        self.answer(1.0)

    def undo(self) -> None:
        """Take the last step back."""
        tutor = self._tutor()
        tutor.final_answer = None
        tutor.undo()

    # The tree

    def tree(self) -> None:
        """All steps tried, a line each, indented behind a branch; those of the current path marked."""
        current = self._tutor().here.path()
        for number, node in enumerate(self._tutor().root.walk()):
            if node.parent is None:
                continue
            branches = sum(len(step.parent.children) > 1 for step in node.path() if step.parent)
            sign, indent = "*" if node in current else " ", "  " * min(branches, 8)
            line = " ".join(f"{sign}{number:3} {indent}{node.step.question} {node.step.answer}".split("\n"))
            self.say("step", line, one_line=True)

    def go(self, number: str) -> None:
        """Continue behind a step."""
        nodes = list(self._tutor().root.walk())
        if not number.isdigit() or int(number) >= len(nodes):
            raise UserError(f"/go {number} is none of the {len(nodes) - 1} steps; /tree lists them, 0 is the beginning")
        tutor = self._tutor()
        tutor.final_answer = None
        tutor.go(nodes[int(number)])

    # The learner

    def learn(self) -> None:
        """Begin or end answering oneself."""
        self.learning = not self.learning
        self.say("note", "you answer now; /hint helps" if self.learning else "QA answers again")

    def judge(self, said: str) -> None:
        """Keep a learner's answer that is right; an empty one has QA answer."""
        assert self.learner is not None
        if not said:
            self.answer()
            return
        verdict = self.learner.judge(said)
        self.say("judgement", verdict.why if verdict.right else f"{verdict.why}; try again, /hint, or Enter for QA's")
        if verdict.right:
            self.put_answer(said)

    def hint(self) -> None:
        """How the answer is calculated, but not what comes out."""
        if self.learner is None or not self._asked():
            raise UserError("no question waits that a hint could help with")
        self.say("hint", self.learner.hint())

    # Problems and files

    def begin(self, problem: Problem, gold: Chain | None = None) -> None:
        """Start on a problem."""
        from socratic.tutor import Tutor

        self.take(Tutor(problem, self.solving, gold))

    def take(self, tutor: Tutor) -> None:
        """Sit down to a problem, begun or not."""
        from socratic.learner import Learner

        self.tutor, self.learner, self.alternatives = tutor, Learner(tutor), []
        self.show("problem", "problem", tutor.problem.question)

    def new(self) -> None:
        """Read a problem, which ends with an empty line."""
        self.say("note", "the problem, then an empty line:")
        lines: list[str] = []
        while not lines or lines[-1].strip():
            lines.append(self.read(""))
            if lines[0].strip().startswith("/"):
                self.obey_without_problem(lines[0])
                return
        self.begin(_own("\n".join(lines)))

    def obey_without_problem(self, line: str) -> None:
        """What can be typed in a problem's place."""
        word, _, rest = line.strip().partition(" ")
        if word == "/quit":
            raise EOFError
        known: dict[str, Callable[[str], None]] = {"/draw": self.draw, "/load": self.load}
        if word not in known:
            self.say("help", HELP)
            return
        known[word](rest.strip())

    def draw(self, name: str) -> None:
        """A random problem of a data set."""
        from socratic.tasks import load_chains, load_problems

        name = name or "stories"
        problem = random.choice(load_problems(name, "test", self.data_dir))
        chains = {chain.problem_id: chain for chain in load_chains(name, "test", self.data_dir)}
        self.begin(problem, chains.get(problem.id))

    def show_gold(self) -> None:
        """The data set's own solution."""
        tutor = self._tutor()
        if not tutor.problem.answer:
            raise UserError("this problem has no gold answer; /draw takes one that has")
        for number, step in enumerate(tutor.gold.steps if tutor.gold else (), start=1):
            if step.question:
                self.show("gold", "question", step.question, number)
            self.show("gold", "answer", step.answer, number)
        self.show("gold", "final", tutor.problem.answer)

    def solve_by_cot(self) -> None:
        """The same problem solved by the chain-of-thought student, beside what stands so far."""
        from rich.live import Live

        from socratic.loops import Solving

        self.cot = self.cot or self.load_cot()
        if self.cot is None:
            raise UserError("there is no chain-of-thought student; give --cot MODEL")
        settings = self.solving.settings.model_copy(update={"solver": "cot", "qg_sees": None})
        events = Solving(settings, lm=self.cot).stream(self._tutor().problem)
        if self.as_json or out.width < _SIDE_BY_SIDE:
            self.stream("cot", _readable(events))
            return
        written = ""
        with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
            for piece in _readable(events):
                written += piece
                live.update(self.beside(written), refresh=True)

    def beside(self, cot: str) -> Table:
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
        """Keep the session."""
        if not name:
            raise UserError("/save FILE needs a file's name")
        self._tutor().save(Path(name))
        self.say("note", f"saved to {name}")

    def load(self, name: str) -> None:
        """Go on with a session that was kept."""
        from socratic.tutor import Tutor

        self.take(Tutor.load(Path(name), self.solving))
        self.tree()

    # The terminal

    def read(self, prompt: str) -> str:
        """A line typed or piped."""
        return input(prompt) if sys.stdin.isatty() else input()

    def say(self, event: str, text: str, one_line: bool = False) -> None:
        """A line, or with ``--json`` a record; on a terminal, what must be ``one_line`` is cut at its width."""
        if self.as_json:
            print_json({"event": event, "text": text})
        elif one_line and out.is_terminal:
            out.print(Text(visible(text)), no_wrap=True, overflow="ellipsis")
        else:
            out.print(Text(visible(text)), soft_wrap=True)

    def show(self, event: str, kind: str, text: str, number: int = 0) -> None:
        """A whole text as students' are shown, or with ``--json`` a record."""
        if self.as_json:
            print_json({"event": event, "text": text})
        else:
            paint(out, kind, text, number)

    def stream(self, event: str, pieces: Iterator[str]) -> tuple[str, bool]:
        """Show a text as it is written; what was written, and whether it came to its end before Ctrl-C."""
        slot = Slot(out, event, len(self._tutor().steps) + 1 if event in ("question", "answer") else 0)
        text, whole = "", True
        try:
            for piece in pieces:
                text += piece
                if not self.as_json:
                    slot.write(piece)
        except KeyboardInterrupt:
            whole = False
        if self.as_json:
            print_json({"event": event, "text": text.strip(), "whole": whole})
        else:
            slot.end("" if whole else "(stopped)")
        return text.strip(), whole

    def _tutor(self) -> Tutor:
        if self.tutor is None:
            raise UserError("there is no problem yet; /new takes one, /draw draws one")
        return self.tutor

    def _asked(self) -> bool:
        return bool(self.tutor is not None and self.tutor.question and self.tutor.question.strip())


def _readable(events: Iterator[Event]) -> Iterator[str]:
    """What a chain-of-thought student writes, its answer behind the marker."""
    for event in events:
        if event.trace is None:
            yield event.text if not event.done else "\n####" if event.kind == "answer" else ""


def _own(text: str) -> Problem:
    if not text.strip():
        raise UserError("the problem is empty; give its text")
    return Problem("problem", "own", "test", text.strip(), "", "number")
