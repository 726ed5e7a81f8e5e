"""Teach small language models to solve problems by asking and answering sub-questions (Socratic CoT, 2212.00193).

The public names below are imported when first used, so that ``import socratic`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socratic.answers import score
    from socratic.calculator import calculate
    from socratic.examples import encode
    from socratic.lm.load import load_lm
    from socratic.solving import Event, solve, stream
    from socratic.tasks import load_chains, load_problems
    from socratic.train import fit
    from socratic.types import CalculatorError, Chain, Problem, Score, SocraticError, Step, Trace, UserError

_HOME = {
    "socratic.answers": ("score",),
    "socratic.calculator": ("calculate",),
    "socratic.examples": ("encode",),
    "socratic.lm.load": ("load_lm",),
    "socratic.solving": ("Event", "solve", "stream"),
    "socratic.tasks": ("load_chains", "load_problems"),
    "socratic.train": ("fit",),
    "socratic.types": ("CalculatorError", "Chain", "Problem", "Score", "SocraticError", "Step", "Trace", "UserError"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: RUF022  (by module)
    "score",
    "calculate",
    "encode",
    "load_lm",
    "Event",
    "solve",
    "stream",
    "load_chains",
    "load_problems",
    "fit",
    "CalculatorError",
    "Chain",
    "Problem",
    "Score",
    "SocraticError",
    "Step",
    "Trace",
    "UserError",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'socratic' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
