"""What a guided QG reads behind the problem: how many questions to ask, or which operators or equations they lead to.

Guided question generation (Shridhar et al. 2211.12835) puts such a plan behind QG's input; it is
taken from the gold chain, or written by a planner student.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from socratic.calculator import marks, prose
from socratic.types import Chain, Guidance, Problem, UserError

PLAN = "plan"
"""Where a problem's metadata hold its gold plan, for solving with ``plan_by=gold``."""

_PART = re.compile(r"\.?\d[\d.]*%?|\S")
_OPERATORS = "+-*/"


def plan_text(chain: Chain, guidance: Guidance) -> str:
    """The plan of ``chain``: ``3``, ``- *`` or ``12 - 5 ; 7 * 2``; ``""`` for a chain that calculates nothing.

    Operators and equations are those of the calculator's marks, of a step without marks those in its prose, in the
    order of the text and without their results.
    """
    if guidance == "count":
        return str(len(chain.steps))
    found = [calculation for step in chain.steps for calculation in (*marks(step.answer),) or (*prose(step.answer),)]
    equations = [_spaced(calculation.expr) for calculation in found]
    if guidance == "equations":
        return " ; ".join(" ".join(parts) for parts in equations)
    return " ".join(part for parts in equations for part in parts if part in _OPERATORS)


def with_plans(problems: Iterable[Problem], chains: Iterable[Chain], guidance: Guidance) -> list[Problem]:
    """``problems`` that carry the plan of their gold chain, for ``plan_by=gold``; `UserError` for one without chain."""
    plans = {chain.problem_id: plan_text(chain, guidance) for chain in chains}
    made = []
    for problem in problems:
        if problem.id not in plans:
            raise UserError(f"{problem.id} has no gold chain to take a plan from; choose problems that have")
        made.append(replace(problem, metadata={**problem.metadata, PLAN: plans[problem.id]}))
    return made


def _spaced(expression: str) -> list[str]:
    """Numbers, operators and brackets apart; a sign stays with its number, and commas go."""
    parts: list[str] = []
    for part in _PART.findall(expression.replace(",", "")):
        signed = parts and parts[-1] in ("+", "-") and (len(parts) == 1 or parts[-2] in (*_OPERATORS, "("))
        if signed:
            parts[-1] += part
        else:
            parts.append(part)
    return parts
