"""Write the bundled problems: ``python data/stories/generate.py`` makes the four ``.jsonl`` files beside this one.

A story is a quantity and what happens to it, two to six steps, each with its gold sub-question and sub-answer. A
*family* supplies nouns and verbs, an *operation* supplies sentences, each put together of a lead, a core and a tail.
Test problems are made of combinations that train does not have: no sentence of a test, numbers, names and nouns masked,
occurs in train, though its parts do. Everything follows from `SEED`.

    train    2-4 steps, families seen            test     the same with other sentences
    longer   5-6 steps, families seen            unseen   2-4 steps, families never trained on

One family of train has new words in every story, so that a student learns to take words from the problem.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SEED = 20261120
SIZES = {"train": 9_600, "test": 300, "longer": 300, "unseen": 300}
MOST = 999
"""No quantity in a story is larger."""

NAMES = "Ada Ben Cora Dan Ella Finn Gina Hugo Iris Jack Kira Leo Mona Nils Olga Paul Rosa Sam Tara Uma Vera Will Zeno"


@dataclass(frozen=True)
class Family:
    """Nouns and verbs of one setting: ``unit`` and ``box`` as (singular, plural), events as participles."""

    name: str
    unit: tuple[str, str]
    box: tuple[str, str]
    starts: str
    kinds: tuple[str, str]
    lose: tuple[str, ...]
    gain: tuple[str, ...]
    cost: str


def _family(name: str, unit: str, box: str, starts: str, kinds: str, lose: str, gain: str, cost: str) -> Family:
    def pair(text: str) -> tuple[str, str]:
        first, second = text.split("/")
        return first, second

    return Family(name, pair(unit), pair(box), starts, pair(kinds), (*lose.split("/"),), (*gain.split("/"),), cost)


SEEN = (
    _family("bakery", "roll/rolls", "tray/trays", "bakes", "plain/seeded",
            "sold/burnt/served/dropped", "made/bought/thawed/warmed up", "flour"),
    _family("farm", "egg/eggs", "basket/baskets", "collects", "white/brown",
            "broken/boiled/sold/painted", "found/gathered/received/bought", "feed"),
    _family("library", "book/books", "shelf/shelves", "stacks", "thick/thin",
            "lent/thrown away/returned/torn", "ordered/accepted/unpacked/donated", "new lamps"),
    _family("workshop", "kite/kites", "crate/crates", "builds", "red/blue",
            "torn/shipped/sold/lost", "finished/repaired/ordered/made", "paper"),
    _family("album", "stamp/stamps", "page/pages", "keeps", "old/new",
            "traded/lost/sold/stolen", "won/bought/inherited/found", "glue"),
    _family("garden", "tulip/tulips", "bed/beds", "plants", "yellow/purple",
            "picked/trampled/given away/eaten", "added/saved/bought/received", "seeds"),
    _family("school", "pencil/pencils", "pack/packs", "orders", "soft/hard",
            "handed out/broken/lent/forgotten", "found/bought/received/collected", "erasers"),
    _family("harbour", "crab/crabs", "bucket/buckets", "catches", "small/large",
            "freed/cooked/sold/served", "trapped/netted/bought/rescued", "bait"),
    _family("savings", "coin/coins", "jar/jars", "saves", "gold/silver",
            "spent/donated/lost/stolen", "earned/found/won/inherited", "a purse"),
    _family("orchard", "apple/apples", "sack/sacks", "harvests", "green/ripe",
            "pressed/eaten/sold/dropped", "shaken down/received/gathered/picked up", "ladders"),
    _family("candles", "candle/candles", "case/cases", "pours", "tall/short",
            "lit/melted/shipped/given away", "moulded/unpacked/made/ordered", "wax"),
    _family("pottery", "cup/cups", "rack/racks", "shapes", "glazed/raw",
            "cracked/sold/given away/broken", "finished/fired/bought/painted", "clay"),
    _family("knitting", "scarf/scarves", "bundle/bundles", "knits", "striped/dotted",
            "donated/unravelled/sold/forgotten", "finished/won/inherited/mended", "wool"),
)  # fmt: skip
UNSEEN = (
    _family("post", "letter/letters", "bag/bags", "sorts", "local/foreign",
            "delivered/mislaid/sent back/opened", "collected/stamped/written/typed", "string"),
    _family("printing", "poster/posters", "stack/stacks", "prints", "matte/glossy",
            "hung up/spoilt/mailed/recycled", "reprinted/borrowed/designed/copied", "ink"),
    _family("beach", "shell/shells", "pail/pails", "gathers", "round/pointed",
            "crushed/swapped/buried/hidden", "dug up/spotted/washed/fetched", "a shovel"),
    _family("quarry", "tile/tiles", "pallet/pallets", "cuts", "grey/dark",
            "chipped/laid/rejected/cemented", "polished/imported/split/stored", "diesel"),
)  # fmt: skip

LEADS = ("", "then ", "later ", "by noon ", "the next day ", "after that ", "soon ", "in the evening ")
FIRST_LEADS = ("", "to begin with, ", "as usual, ", "this time ", "in this story, ", "it is Monday, and ")
TAILS = ("", ", as planned", ", as it turns out", ", by the way", ", if we count right", ", as far as we know")
QUESTION_LEADS = ("", "now ", "in the end, ", "all in all, ", "so ", "after all this, ")
QUESTION_TAILS = ("", " by then", " exactly", " at this point")

SENTENCES = {
    "groups": (
        "{A} {starts} {a} {boxes} of {b} {units} each",
        "{A} {starts} {a} {boxes} with {b} {units} in each",
        "there are {a} {boxes}, and {A} {starts} {b} {units} for each",
        "for each of {a} {boxes} {A} {starts} {b} {units}",
    ),
    "daily": (
        "{A} {starts} {a} {units} a day for {b} days",
        "for {b} days {A} {starts} {a} {units} a day",
        "every day for {b} days {A} {starts} {a} {units}",
    ),
    "kinds": (
        "{A} {starts} {a} {one} {units} and {b} {other} {units}",
        "{A} {starts} {a} {one} and {b} {other} {units}",
        "{A} {starts} {a} {one} {units}, besides {b} {other} ones",
    ),
    "lose": (
        "{n} of them are {done}",
        "{A} has {n} of the {units} {done}",
        "{n} of the {units} are {done}",
        "{A} sees {n} of them {done}",
    ),
    "gain": (
        "{n} more are {done}",
        "{A} has {n} more {units} {done}",
        "{n} more {units} are {done}",
        "another {n} {units} are {done}",
    ),
    "part": (
        "{part} of them are {done}",
        "{A} has {part} of the {units} {done}",
        "{part} of the {units} are {done}",
        "{A} sees {part} of them {done}",
    ),
    "times": (
        "there are {n} times as many {units}",
        "the number of {units} grows to {n} times what it was",
        "{A} has {n} times as many {units}",
    ),
    "share": (
        "{A} puts all the {units} into {n} equal {boxes}",
        "all the {units} are divided equally among {n} {boxes}",
        "{A} fills {n} {boxes} with the same number of {units}",
    ),
    "price": (
        "each {unit} is worth {n} dollars",
        "{A} gets {n} dollars for each {unit}",
        "the price of one {unit} is {n} dollars",
    ),
    "cost": (
        "{A} pays {n} dollars for {cost}",
        "{n} dollars go to {cost}",
        "{A} spends {n} dollars on {cost}",
    ),
    "more": (
        "{B} has {n} more {units} than {A}",
        "{B} owns {n} {units} more than {A}",
        "{A} has {n} {units} less than {B}",
    ),
    "fewer": (
        "{B} has {n} fewer {units} than {A}",
        "{B} owns {n} {units} fewer than {A}",
        "{A} has {n} {units} more than {B}",
    ),
    "filler": (
        "the weather is fine",
        "{A} works with a friend",
        "the neighbours come to look",
        "a radio plays in the background",
        "the door stays open",
        "it rains a little",
        "{A} drinks a cup of tea",
        "everyone is in a good mood",
        "{A} keeps count of the {units}",
        "a dog sleeps in the corner",
    ),
}
QUESTIONS = {
    "units": (
        "how many {units} are there",
        "how many {units} does {A} have",
        "what is the number of {units}",
    ),
    "share": (
        "how many {units} are in each {box}",
        "how many {units} does one {box} hold",
    ),
    "dollars": (
        "how many dollars does {A} have",
        "how much money does {A} have in dollars",
    ),
    "together": (
        "how many {units} do {A} and {B} have together",
        "what is the number of {units} of {A} and {B} together",
    ),
}

PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}


class Misfit(Exception):
    """The numbers drawn do not fit; draw again."""


@dataclass
class Story:
    """A story in the making: its sentences and steps so far, and the quantity ``x`` they have led to."""

    rng: random.Random
    family: Family
    tests: bool
    words: dict[str, str]
    x: int = 0
    sentences: list[str] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)
    asks: str = "units"

    def tell(self, kind: str, **values: object) -> None:
        """Add one sentence of this kind."""
        self.sentences.append(self.sentence(kind, **values))

    def sentence(self, kind: str, **values: object) -> str:
        """A sentence of this kind, put together in one of the ways that this split may use."""
        leads = FIRST_LEADS if kind in ("groups", "daily", "kinds") else LEADS
        return self.fill(self._draw(kind, leads, SENTENCES[kind], TAILS) + ".", **values)

    def question(self) -> str:
        """What the problem asks in the end."""
        return self.fill(self._draw(self.asks, QUESTION_LEADS, QUESTIONS[self.asks], QUESTION_TAILS) + "?")

    def _draw(self, kind: str, leads: tuple[str, ...], cores: tuple[str, ...], tails: tuple[str, ...]) -> str:
        """A lead, a core and a tail; a fourth of all combinations is kept for tests, none of bare cores."""
        while True:
            lead = self.rng.choice((leads[0], self.rng.choice(leads)))
            tail = self.rng.choice((tails[0], tails[0], self.rng.choice(tails)))
            parts = [lead, self.rng.choice(cores), tail]
            kept = (lead or tail) and hashlib.sha256("|".join([kind, *parts]).encode()).digest()[0] < 64
            if bool(kept) == self.tests:
                return "".join(parts)

    def fill(self, text: str, **values: object) -> str:
        """``text`` with its nouns, verbs and numbers put in, its first letter large."""
        filled = text.format(**self.words, **values)
        return filled[0].upper() + filled[1:]

    def step(self, question: str, answer: str, a: int, op: str, b: int, **values: object) -> int:
        """Add a step: ``{v}`` in ``answer`` is the calculation with its mark; returns the result."""
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]
        if (op == "/" and a % b) or not 0 < result <= MOST:
            raise Misfit
        mark = f"<<{a}{op}{b}={result}>>{result}"
        self.steps.append((self.fill(question, **values), self.fill(answer, v=mark, **values)))
        return result


def start(story: Story) -> None:
    """The first step: groups of equal size, a daily rate, or two kinds."""
    kind, rng = story.rng.choice(("groups", "daily", "kinds")), story.rng
    a, b = (rng.randint(5, 60), rng.randint(5, 60)) if kind == "kinds" else (rng.randint(3, 15), rng.randint(2, 12))
    story.tell(kind, a=a, b=b)
    asked, told = "How many {units} does {A} have at first?", "At first, {A} has {v} {units}."
    story.x = story.step(asked, told, a, "+" if kind == "kinds" else "*", b)


def lose(story: Story, done: str) -> None:
    """Some go away."""
    if story.x < 4:
        raise Misfit
    n = story.rng.randint(2, min(60, story.x - 1))
    story.tell("lose", n=n, done=done)
    asked, told = "How many {units} are left after some are {done}?", "Then {v} {units} are left."
    story.x = story.step(asked, told, story.x, "-", n, done=done)


def gain(story: Story, done: str) -> None:
    """Some are added."""
    n = story.rng.randint(2, 60)
    story.tell("gain", n=n, done=done)
    asked, told = "How many {units} are there after more are {done}?", "Then there are {v} {units}."
    story.x = story.step(asked, told, story.x, "+", n, done=done)


def part(story: Story, done: str) -> None:
    """A half, third, quarter or fifth goes away: two steps, the second needs a quantity from before the first."""
    n = story.rng.choice([n for n in PARTS if story.x % n == 0] or [0])
    if not n:
        raise Misfit
    story.tell("part", part=PARTS[n], done=done)
    gone = story.step("How many {units} are {done}?", "{v} {units} are {done}.", story.x, "/", n, done=done)
    asked, told = "How many {units} are left after some are {done}?", "Then {v} {units} are left."
    story.x = story.step(asked, told, story.x, "-", gone, done=done)


def times(story: Story) -> None:
    """The quantity grows to a multiple."""
    n = story.rng.randint(2, 5)
    story.tell("times", n=n)
    asked, told = "How many {units} are there after this growth?", "After this growth, there are {v} {units}."
    story.x = story.step(asked, told, story.x, "*", n)


def share(story: Story) -> None:
    """Equal containers, at the end."""
    fitting = [n for n in range(2, 13) if story.x % n == 0 and story.x > n]
    if not fitting:
        raise Misfit
    n = story.rng.choice(fitting)
    story.tell("share", n=n)
    story.x = story.step("How many {units} are in one {box}?", "In one {box}, there are {v} {units}.", story.x, "/", n)
    story.asks = "share"


def price(story: Story) -> None:
    """Units become dollars, at the end."""
    n = story.rng.randint(2, 9)
    story.tell("price", n=n)
    asked, told = "How many dollars are all the {units} worth?", "All the {units} are worth {v} dollars."
    story.x = story.step(asked, told, story.x, "*", n)
    story.asks = "dollars"


def price_and_cost(story: Story) -> None:
    """Units become dollars, and some of these are spent: two steps, at the end."""
    price(story)
    if story.x < 4:
        raise Misfit
    n = story.rng.randint(2, min(99, story.x - 1))
    story.tell("cost", n=n)
    asked, told = "How many dollars are left after paying for {cost}?", "After paying for {cost}, {v} dollars are left."
    story.x = story.step(asked, told, story.x, "-", n)


def compare(story: Story) -> None:
    """A second person has more or fewer, and the two are added: two steps, at the end."""
    kind = story.rng.choice(("more", "fewer"))
    n = story.rng.randint(2, 40)
    story.tell(kind, n=n)
    asked, told = "How many {units} does {B} have?", "{B} has {v} {units}."
    theirs = story.step(asked, told, story.x, "+" if kind == "more" else "-", n)
    asked, told = "How many {units} do both have together?", "Both have {v} {units} together."
    story.x = story.step(asked, told, story.x, "+", theirs)
    story.asks = "together"


ENDINGS: dict[Callable[[Story], None] | None, int] = {None: 0, share: 1, price: 1, price_and_cost: 2, compare: 2}
"""How a story may end, and the steps that this takes."""


def invented(rng: random.Random) -> Family:
    """A family of words that nobody has heard."""

    def word() -> str:
        return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3))))

    unit, box = word(), word()
    lose, gain = (tuple(word() + "ed" for _ in range(4)) for _ in range(2))
    return Family("invented", (unit, unit + "s"), (box, box + "s"), word() + "s", (word(), word()), lose, gain, word())


def tell_story(rng: random.Random, family: Family, tests: bool, length: int) -> Story:
    """A story of ``length`` steps; raises `Misfit` where the numbers drawn do not allow it."""
    first, second = rng.sample(NAMES.split(), 2)
    words = {
        "A": first,
        "B": second,
        "unit": family.unit[0],
        "units": family.unit[1],
        "box": family.box[0],
        "boxes": family.box[1],
        "starts": family.starts,
        "one": family.kinds[0],
        "other": family.kinds[1],
        "cost": family.cost,
    }
    story = Story(rng, family, tests, words)
    ending = rng.choice([end for end, steps in ENDINGS.items() if steps < length])
    start(story)
    losses, gains = rng.sample(family.lose, len(family.lose)), rng.sample(family.gain, len(family.gain))
    has_grown = False
    while left := length - len(story.steps) - ENDINGS[ending]:
        kind = rng.choice(("lose", "lose", "gain", "gain", "part", "times"))
        if kind == "lose" and losses:
            lose(story, losses.pop())
        elif kind == "gain" and gains:
            gain(story, gains.pop())
        elif kind == "part" and losses and left > 1:
            part(story, losses.pop())
        elif kind == "times" and not has_grown:
            times(story)
            has_grown = True
    if ending:
        ending(story)
    return story


def record(story: Story) -> dict[str, object]:
    """The problem and its gold steps; between the sentences up to six that do not matter."""
    body = list(story.sentences)
    for _ in range(story.rng.choices((0, 1, 2, 4, 6), weights=(12, 5, 2, 1, 0.5))[0]):
        body.insert(story.rng.randint(1, len(body)), story.sentence("filler"))
    steps = [{"question": asked, "answer": told} for asked, told in story.steps]
    return {"question": " ".join([*body, story.question()]), "answer": str(story.x), "steps": steps}


def problems(split: str) -> Iterator[dict[str, object]]:
    """All records of ``split``, none with the text of another, every family as often."""
    rng = random.Random(f"{SEED}|{split}")
    families: tuple[Family | None, ...] = UNSEEN if split == "unseen" else SEEN if split != "train" else (*SEEN, None)
    texts: set[object] = set()
    while len(texts) < SIZES[split]:
        family = families[len(texts) % len(families)] or invented(rng)
        length = rng.choice((5, 6) if split == "longer" else (2, 3, 4))
        try:
            made = record(tell_story(rng, family, split != "train", length))
        except Misfit:
            continue
        if made["question"] not in texts:
            texts.add(made["question"])
            yield {"id": f"stories/{split}/{len(texts) - 1:05d}", "family": family.name, **made}


def main() -> None:
    """Write all splits."""
    for split in SIZES:
        lines = "".join(json.dumps(row) + "\n" for row in problems(split))
        (Path(__file__).parent / f"{split}.jsonl").write_text(lines)


if __name__ == "__main__":
    main()
