from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from socratic.answers import score
from socratic.augment.vary import Impossible, vary
from socratic.calculator import disagreements
from socratic.numerals import values
from socratic.types import Chain, Step

COATS = Chain(
    problem_id="d/train/1",
    dataset="d",
    question="A shop sells seventeen coats at $1,500.50 each. On Monday it gives 20% off, and 4 coats are sold. "
    "How much comes in?",
    answer="4,801.60",
    answer_type="number",
    steps=(
        Step("What do 4 coats cost?", "They cost 4*$1,500.50=$<<4*1500.50=6002>>6,002."),
        Step("How much is taken off?", "6002*.2=$<<6002*.2=1200.4>>1200.40 is taken off."),
        Step("How much comes in?", "It is 6002-1200.40=$<<6002-1200.40=4801.60>>4,801.60."),
    ),
    final_answer="4,801.60",
)


def pens(question: str, *answers: str, gold: str) -> Chain:
    steps = tuple(Step(f"What is number {n}?".replace(str(n), "abc"[n]), answer) for n, answer in enumerate(answers))
    return Chain("d/train/2", "d", question, gold, "number", steps, final_answer=gold)


def made_of(chain: Chain, count: int = 20) -> list[Chain]:
    return list(vary(chain, map(random.Random, range(count))))


def test_all_that_follows_is_calculated_anew() -> None:
    for made in made_of(COATS):
        assert not [wrong for step in made.steps for wrong in disagreements(step.answer)]
        price = Fraction(made.question.split("$")[1].split()[0].replace(",", ""))
        sold = Fraction(made.steps[0].question.split()[2])
        off = Fraction(made.question.split("gives ")[1].split("%")[0])
        assert score(f"#### {made.answer}", str(float(price * sold * (100 - off) / 100)), "number").correct
        assert made.final_answer == made.answer
        assert made.question != COATS.question


def test_numbers_are_written_as_they_were() -> None:
    written = [made.question for made in made_of(COATS)]
    assert all("seventeen coats" in question for question in written)  # it leads to nothing
    prices = [question.split("$")[1].split()[0] for question in written]
    assert all(("," in price) == (float(price.replace(",", "")) >= 1000) for price in prices)
    assert all(price[-3] == "." for price in prices)
    assert all(
        float(off) % 5 == 0 and 0 < float(off) < 100 for off in (q.split("gives ")[1].split("%")[0] for q in written)
    )


def test_words_stay_words() -> None:
    chain = pens("Ann has three bags of 8 pens. How many?", "She has 3*8=<<3*8=24>>24 pens.", gold="24")
    written = {made.question.split()[2] for made in made_of(chain)}
    assert len(written) > 1
    assert all(values(word) and word.isalpha() for word in written)


def test_whole_numbers_stay_whole_and_positive_ones_positive() -> None:
    chain = pens(
        "Ann has 30 pens, gives 10 away and puts the rest into 4 bags. How many are in each?",
        "She has 30-10=<<30-10=20>>20 left.",
        "That is 20/4=<<20/4=5>>5 in each.",
        gold="5",
    )
    for made in made_of(chain):
        assert made.answer.isdigit()
        assert int(made.answer) > 1


@pytest.mark.parametrize(
    ("question", "answer", "gold", "reason"),
    [
        ("Ann has 3 bags of 8 pens. How many?", "3*8=<<3*8=24>>24 and 5 more, so 29", "29", "untraced_number"),
        ("Ann has 3 bags of 8 pens. How many?", "She has 11*8=<<11*8=88>>88.", "88", "untraced_number"),
        ("Ann has 3 bags of 8 pens. How many?", "She has <<3*8=25>>25.", "25", "wrong_mark"),
        ("Ann has 3 bags of 8 pens. How many?", "She has 3*8=<<3*8=24>>24.", "25", "answer_not_traced"),
        (
            "Ann saves $5 for 4 weeks, then $6 for 4 weeks. How much in 8?",
            "5*4+6*4=<<5*4+6*4=44>>44",
            "44",
            "implausible",
        ),
        ("Ann eats 10 pens of 40. How many?", "Half of 20 x 2 =<<10=10>>10.", "10", "untraced_number"),
        ("Ann eats 5 of 27 pens. How many?", "She has 5+27=<<5+27=32>>32. 27/5=5", "32", "untraced_number"),
        ("Of 6 desks 5 are full. How many?", "2/3 of them = 5. 6+5=<<6+5=11>>11", "11", "untraced_number"),
        ("Ann came 2nd at 8:00. How many?", "2*8=<<2*8=16>>16", "16", "nothing_to_vary"),
        ("Ann was born in 1999. When is she 1?", "1999+1=<<1999+1=2000>>2000", "2000", "nothing_to_vary"),
        ("Ann runs 7 miles a week. How many a day?", "7/7=<<7/7=1>>1", "1", "nothing_to_vary"),
        ("Ann earns $40 and pays 10%. How much?", "40/10=<<40/10=4>>4", "4", "untraced_number"),
    ],
)
def test_what_cannot_be_traced_is_left_alone(question: str, answer: str, gold: str, reason: str) -> None:
    with pytest.raises(Impossible, match=reason):
        made_of(pens(question, answer, gold=gold))


@pytest.mark.parametrize(
    ("answer", "gold", "formula"),
    [
        ("It is 40*.8=<<40*.8=32>>32.", "32", lambda price, off: price * (100 - off) / 100),
        ("It is 40*1.2=<<40*1.2=48>>48.", "48", lambda price, off: price * (100 + off) / 100),
        ("It is 40*20/100=<<40*20/100=8>>8.", "8", lambda price, off: price * off / 100),
    ],
)
def test_a_per_cent_is_followed_into_its_shares(
    answer: str, gold: str, formula: Callable[[Fraction, Fraction], Fraction]
) -> None:
    for made in made_of(pens("A hat costs $40, and the price changes by 20%. What is it?", answer, gold=gold)):
        price, off = (Fraction(made.question.split(mark)[1].split(end)[0]) for mark, end in (("$", ","), ("by ", "%")))
        assert Fraction(made.answer) == formula(price, off)


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert made_of(COATS) == made_of(COATS)


def test_a_told_number_that_is_read_as_a_constant_too_stays() -> None:
    chain = pens("A bed is 2 m by 10 m. How long is its edge?", "It is 2*(2+10)=<<2*(2+10)=24>>24 m.", gold="24")
    for made in made_of(chain):
        assert made.question.startswith("A bed is 2 m by ")
        assert made.steps[0].answer.startswith("It is 2*(2+")


def test_what_is_told_twice_agrees_with_itself() -> None:
    chain = pens("Of 20 pens 8 are red and 12 blue. A red one is $3. How much?", "8*3=<<8*3=24>>24", gold="24")
    for made in made_of(chain):
        assert made.question.startswith("Of 20 pens 8 are red and 12 blue.")
    chain = pens("Now 20% run and 80% of 300 walk. How many?", "300*.2=<<300*.2=60>>60", gold="60")
    for made in made_of(chain):
        assert sum(Fraction(part.split()[-1]) for part in made.question.split("%")[:2]) == 100


def test_what_the_context_tells_stays_and_choices_are_not_varied() -> None:
    chain = pens("Ann buys 12 boxes of 15 pens. How many pens are these?", "<<12*15=180>>180", gold="180")
    told = replace(chain, metadata={"context": "A box costs 12 dollars."})
    assert {made.question.split()[2] for made in made_of(told)} == {"12"}
    assert {made.question.split()[2] for made in made_of(chain)} != {"12"}
    with pytest.raises(Impossible, match="answer_not_traced"):
        made_of(replace(chain, metadata={"choices": ["150", "180"]}))


def test_numbers_of_thousands_of_digits_are_no_mistake_of_the_users() -> None:
    many = "1" * 5000
    for made in made_of(pens(f"Ann has 3 pens and {many} cups. How many pens are left?", "<<3-1=2>>2", gold="2"), 3):
        assert many in made.question
