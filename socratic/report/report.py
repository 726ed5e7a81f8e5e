"""What a comparison's page and plots are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from socratic import store
from socratic.evaluate import Run
from socratic.interventions import REPLACEMENTS
from socratic.report import plots, visible
from socratic.report.compare import Comparison, restricted, shared_ids
from socratic.report.interventions import AS_IS, Effect, effects, effects_table
from socratic.report.plots import Arm, Plot
from socratic.report.training import curves
from socratic.types import Chain

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Report:
    """What the page and the plots are made of; ``notes`` say what is missing and why."""

    runs: tuple[Run, ...]
    arms: tuple[Arm, ...]
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    chains: Mapping[str, Chain]
    notes: tuple[str, ...]

    def named_runs(self) -> list[tuple[str, Run, Arm]]:
        """The runs in the arms' order, with their names."""
        return [(name, run, arm) for arm in self.arms for name, run in zip(arm.row.runs, arm.runs, strict=True)]


def make_report(
    runs: Sequence[Run], comparison: Comparison, chains: Mapping[str, Chain], steps: Table | None = None
) -> Report:
    """The tables of ``comparison`` (and ``steps``), and the plots, of complete ``runs``; ``chains`` are gold."""
    ids = shared_ids(runs, common=True)
    runs = [restricted(run, ids) for run in runs]
    arms = plots.arms_of(runs, comparison)
    gold = {id: chain for id, chain in chains.items() if id in ids}
    notes = []
    if not gold:
        notes.append("No gold chains were found: nothing is shown by number of gold steps.")
    if all(arm.row.parameters is None for arm in arms):
        notes.append("The runs do not say how many parameters their students have: there is no plot against them.")
    effects_of = _effects(arms, gold)
    found, missing = curves([arm.runs for arm in arms])
    if missing:
        notes.append(f"No training log was found near the runs for: {', '.join(map(visible, missing))}.")
    tables = [*comparison.tables(), *([steps] if steps else [])]
    if effects_of:
        tables.append(effects_table([effect for effect, _ in effects_of]))
    drawn = plots.draw(arms, gold, effects_of, found)
    return Report(tuple(runs), tuple(arms), tuple(tables), tuple(drawn), gold, tuple(notes))


def write_plots(folder: Path, plots: Iterable[Plot]) -> None:
    """Write every plot into ``folder`` as a PNG file."""
    for plot in plots:
        store.atomic_write(folder / f"{plot.name}.png", plot.png())


def _effects(arms: Sequence[Arm], chains: Mapping[str, Chain]) -> list[tuple[Effect, int]]:
    """Of the first run with interventions on the same students among ``arms``, their effects, with the arms' places."""
    single = [(arm.place, arm.runs[0]) for arm in arms if len(arm.runs) == 1]
    for _, base in single:
        if "intervention" in base.config or not all(problem.id in chains for problem in base.problems):
            continue
        family = {AS_IS: base}
        places = {}
        for place, run in single:
            same = all(run.config.get(key) == value for key, value in base.config.items() if key != "arm")
            kind = run.config.get("intervention", {}).get("kind", AS_IS)
            if same and (run is base or kind != AS_IS):
                family[kind] = run
                places[kind] = place
        if "questions" not in family:
            family = {kind: run for kind, run in family.items() if kind not in REPLACEMENTS}
        if len(family) > 1:
            return [(effect, places[effect.name]) for effect in effects(family, chains)]
    return []
