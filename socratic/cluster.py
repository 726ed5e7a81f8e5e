"""Solving on a cluster: Ray Data streams blocks of problems through workers that hold the students.

A trace depends on settings, models, problem and sample, not on where it is written. A worker that dies
is started again with the block it had; a block's traces arrive together or not at all, so none is lost or doubled.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from socratic.interventions import Intervention
from socratic.lm.base import LM
from socratic.lm.load import hush_transformers, load_lm
from socratic.solving import SolveSettings, Solving
from socratic.types import Problem, Trace, UserError

_BLOCKS = 2
"""Blocks a worker gets at least, so that the last ones end at about the same time; but none below a batch."""
_MOST_BATCHES = 4
"""Batches of a block at most: what is lost with a worker."""


class RaySolving(Solving):
    """A `Solving` whose jobs run on a Ray cluster: the one that ``RAY_ADDRESS`` names, else this machine.

    ``models`` are the MODEL of each place (``qg``, ``qa``, ``lm``, ``planner``), by names that every machine can load,
    and ``lms`` what they are here. There is a worker on each GPU; where there are none, as many as there are machines,
    each with as many cores as the smallest has.
    """

    def __init__(self, settings: SolveSettings, lms: Mapping[str, LM], models: Mapping[str, str], dtype: str) -> None:
        super().__init__(settings, **lms)
        self.dtype = dtype
        self.names = {place: str(path.resolve()) if (path := Path(m)).exists() else m for place, m in models.items()}

    def run(self, jobs: Iterable[tuple[Problem, int]], batch_size: int = 64) -> Iterator[Trace]:
        """Traces of all jobs, block by block as they are done; of its block a worker has ``batch_size`` under way.

        Raises `UserError` without Ray, for a cluster without cores, and for a student that a worker cannot load.
        """
        try:
            import ray
            import ray.data
        except ImportError:
            raise UserError("--engine ray needs Ray; install it with: pip install '.[ray]' in the clone") from None
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        workers, resources = _workers(ray)
        rows = [{"job": pickle.dumps(job)} for job in jobs]
        share = -(-len(rows) // workers)
        size = max(1, min(_MOST_BATCHES * batch_size, max(batch_size, share // _BLOCKS), share))
        made = (self.settings, self.names, self.dtype, self.intervention, batch_size)
        solved = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
            _Worker,
            fn_constructor_args=made,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=workers),
            **resources,
        )
        for row in solved.iter_rows():
            found = pickle.loads(row["trace"])
            if isinstance(found, UserError):
                raise UserError(f"a worker says: {found}")
            yield found


class _Worker:
    """The students on one GPU or machine, loaded with the first block; solves a block at a time."""

    def __init__(
        self,
        settings: SolveSettings,
        models: Mapping[str, str],
        dtype: str,
        intervention: Intervention | None,
        batch_size: int,
    ) -> None:
        self.settings, self.models, self.dtype = settings, models, dtype
        self.intervention, self.batch_size = intervention, batch_size

    @cached_property
    def solving(self) -> Solving:
        hush_transformers()
        lms = {model: load_lm(model, dtype=self.dtype) for model in set(self.models.values())}
        solving = Solving(self.settings, **{place: lms[model] for place, model in self.models.items()})
        return solving.with_intervention(self.intervention) if self.intervention else solving

    def __call__(self, block: dict[str, Any]) -> dict[str, list[bytes]]:
        jobs = [pickle.loads(job) for job in block["job"]]
        try:
            return {"trace": [pickle.dumps(trace) for trace in self.solving.run(jobs, self.batch_size)]}
        except UserError as error:  # as a value: Ray would wrap it
            return {"trace": [pickle.dumps(error)]}


def _workers(ray: Any) -> tuple[int, dict[str, Any]]:
    """How many workers fit, and what each takes."""
    if gpus := int(ray.cluster_resources().get("GPU", 0)):
        return gpus, {"num_gpus": 1}
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    useful = [count for count in cores if count]
    if not useful:
        raise UserError("the Ray cluster has neither GPUs nor cores to work on; start a node that has")
    return len(useful), {"num_cpus": min(useful)}
