"""SingleEq: word problems solved by one equation of any of the four operations. Koncel-Kedziorski et al. 2015.

A record of ``questions.json`` (shortened)::

    {"lEquations": ["70-x=27"], "lSolutions": [43.0], "grammarCheck": 0, "templateNumber": 0, "iIndex": 0,
     "sQuestion": "Joan found 70 seashells on the beach. she gave Sam some of her seashells. She has …"}

Ids name the row of the file, ``singleeq/all/00017``; the split is Fine-tune-CoT's (356 / 152), under either scheme.
Golds such as ``0.6666666666666666`` are written as the fraction they stand for, ``2/3``.
Many questions stand in AddSub too.
"""

from __future__ import annotations

from functools import partial

from socratic.tasks.base import Task
from socratic.tasks.equations import load_word_problems

TASK = Task(
    "singleeq",
    "word problems of one equation, gold equation",
    "number",
    True,
    "kojima-takeshi188/zero_shot_cot",
    "unstated",
    partial(load_word_problems, name="singleeq", file="questions.json", split_name="single_eq"),
)
