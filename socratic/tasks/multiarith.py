"""MultiArith: word problems of two operations. Roy and Roth 2015.

A record of ``MultiArith.json`` (shortened)::

    {"iIndex": 0, "lAlignments": [80, 120, 136], "lEquations": ["X=((32.0+42.0)-35.0)"], "lSolutions": [39.0],
     "sQuestion": " For Halloween Debby and her sister combined the candy they received. Debby had 32 pieces …"}

Ids name the row of the file, ``multiarith/all/00017``; the split is Fine-tune-CoT's (420 / 180), under either scheme.
Twenty questions stand in the file twice; the 5 train rows whose question stands in test as well are left out of train.
"""

from __future__ import annotations

from functools import partial

from socratic.tasks.base import Task
from socratic.tasks.equations import load_word_problems
from socratic.tasks.files import Hub

HUB = Hub("ChilleD/MultiArith", columns={"sQuestion": "question", "lSolutions": "final_ans"})

TASK = Task(
    "multiarith",
    "two-step word problems, gold equation",
    "number",
    True,
    "kojima-takeshi188/zero_shot_cot",
    "unstated",
    partial(load_word_problems, name="multiarith", file="MultiArith.json", split_name="multiarith", hub=HUB),
)
