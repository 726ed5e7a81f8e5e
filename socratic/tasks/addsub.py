"""AddSub: word problems of addition and subtraction. Hosseini et al. 2014.

A record of ``AddSub.json`` (shortened)::

    {"iIndex": 1, "lEquations": ["X = 70 - 27"], "lSolutions": ["43"],
     "sQuestion": "Joan found 70 seashells on the beach . she gave Sam some of her seashells . She has 27 seashell . …"}

Ids name the row of the file, ``addsub/all/00017``; the split is Fine-tune-CoT's (276 / 119), under either scheme.
Golds such as ``0.6666666666666666`` are written as the fraction they stand for, ``2/3``.
"""

from __future__ import annotations

from functools import partial

from socratic.tasks.base import Task
from socratic.tasks.equations import load_word_problems

TASK = Task(
    "addsub",
    "addition and subtraction word problems, gold equation",
    "number",
    True,
    "kojima-takeshi188/zero_shot_cot",
    "unstated",
    partial(load_word_problems, name="addsub", file="AddSub.json", split_name="addsub"),
)
