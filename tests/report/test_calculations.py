from __future__ import annotations

from fractions import Fraction

import pytest

from socratic.report.calculations import calculations, reachable
from socratic.types import Step


def steps(*answers: str) -> list[Step]:
    return [Step("", answer) for answer in answers]


def test_marks_and_prose_are_read_in_order_with_their_numbers_signs_and_truth() -> None:
    found = [*calculations(steps("2 x 3 = 6, so 6+1=<<6+1=7>>7 and 7/2=<<7/2=3>>3.", "He is 9.", "<<5=5>>5"))]
    assert [(one.expr.replace(" ", ""), one.signs, one.value, one.holds) for one in found] == [
        ("2*3", "*", 6, True),
        ("6+1", "+", 7, True),
        ("7/2", "/", Fraction(7, 2), False),
    ]
    assert found[0].numbers == {Fraction(2): 1, Fraction(3): 1}


@pytest.mark.parametrize(
    ("gold", "reached", "not_reached"),
    [
        (["3*2=<<3*2=6>>6", "60*6=<<60*6=360>>360"], [6, 360, 120, 180], [10]),  # 60*2 and 60*3
        (["<<10+21+23=54>>54"], [31, 44, 33], [63]),
        (["<<20-3-4=13>>13"], [17, 16, 7], [24]),
        (["<<2*(3+4)=14>>14"], [7, 14], [6, 8]),
        (["<<1/0.5=2>>2", "<<0/5=0>>0", "<<4/(3-3)=1>>1"], [2, 0], [1]),
        (["<<007+1=8>>8"], [8], [7]),  # no Python, but arithmetic
    ],
)
def test_parts_of_gold_in_any_order(gold: list[str], reached: list[int], not_reached: list[int]) -> None:
    found = reachable([*calculations(steps(*gold))], set())
    assert found >= set(reached)
    assert not found & set(not_reached)


def test_a_number_of_the_problem_is_no_steps_result() -> None:
    gold = [*calculations(steps("<<3*2=6>>6", "<<6*5=30>>30"))]
    assert 10 in reachable(gold, set())  # 2*5
    assert 10 not in reachable(gold, {Fraction(6)})
