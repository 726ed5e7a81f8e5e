from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_trainer import CHAINS, chain, rows_for, same, save_tiny, summed_loss, tiny_tokenizer
from tiny import ROLES

from socratic import fit as fit_by_name
from socratic import load_lm, score, solve, store
from socratic.examples import causal_example
from socratic.lm.checkpoint import is_checkpoint, read_card
from socratic.lm.load import load_pretrained, load_student, merge
from socratic.prepare import TrainingRun, TrainSettings, default_learning_rate
from socratic.prompts import FORMATS
from socratic.tasks.base import in_fold
from socratic.tokens import Codec
from socratic.train import PLAN, starting_point, train
from socratic.trainer import Guard, StudentTrainer
from socratic.types import ANSWER_ONLY, Chain, Role, UserError

PLAIN: dict[str, Any] = {"precision": "fp32", "learning_rate": 0.01, "batch_size": 4, "schedule": "constant"}
SELDOM = {"save_steps": 10_000, "logging_steps": 10}
DEV = [chain("cups", "Cy has 9 cups and breaks 4. How many now?", "5", ("How many now?", "9-4 = <<9-4=5>>5 cups."))]


def fit(
    student: str,
    out: Path,
    role: Role = "unified",
    chains: list[Chain] = CHAINS,
    dev: list[Chain] | None = None,
    notes: list[str] | None = None,
    **settings: Any,
) -> Any:
    run = TrainingRun(role, student, chains, dev or [], "tiny")
    return train(run, TrainSettings.parse({**PLAIN, **settings}), out, (notes if notes is not None else []).append)


def saved(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    [file] = folder.glob("*.safetensors")
    return {name: value.clone() for name, value in load_file(file).items()}  # not a view of a file that changes


def log(folder: Path, key: str) -> dict[int, float]:
    """Step -> value of ``key`` in the log of a trained student."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry[key] for entry in entries if key in entry}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A MODEL folder: GPT-2 with dropout and fresh weights."""
    return save_tiny(tmp_path_factory.mktemp("student"), dropout=0.1)


@pytest.fixture(scope="module")
def trained(student: str, tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Path]:
    """One student of each role, overfitted to three chains."""
    folder = tmp_path_factory.mktemp("trained")
    calm = save_tiny(folder / "student")
    for role in ROLES:
        fit(calm, folder / role, role, max_steps=110, trainer=SELDOM)
    return {role: folder / role for role in ROLES}


def test_the_loss_of_every_role_falls(trained: dict[Role, Path]) -> None:
    for folder in trained.values():
        losses = log(folder, "loss")
        assert losses[110] < 0.1 < 1 < losses[10]


def test_overfitted_students_repeat_their_chains(trained: dict[Role, Path]) -> None:
    lms = {role: load_lm(str(folder), dtype="fp32") for role, folder in trained.items()}
    problems = {c.problem_id: c for c in CHAINS}
    arms: list[dict[str, Any]] = [{"qg": lms["qg"], "qa": lms["qa"]}, {"solver": "unified", "lm": lms["unified"]}]
    for models in arms:
        traces = list(solve([c.problem() for c in CHAINS], **models))
        assert len(traces) == 3
        for trace in traces:
            gold = problems[trace.problem_id]
            assert trace.stop_reason == "finished"
            assert trace.steps == gold.steps
            assert trace.answer == gold.answer
            assert score(trace.raw, gold.answer, "number").strict
    singles: list[dict[str, Any]] = [{"solver": "cot", "lm": lms["cot"]}, {"solver": "answer", "lm": lms["answer"]}]
    for models in singles:
        for trace in solve([c.problem() for c in CHAINS], **models):
            assert trace.stop_reason == "finished"
            assert score(trace.raw, problems[trace.problem_id].answer, "number").strict


def test_a_trained_folder_says_what_it_is(trained: dict[Role, Path]) -> None:
    for role, folder in trained.items():
        card = read_card(folder)
        assert store.check_manifest(folder) is None
        assert not (folder / "checkpoints").exists()
        assert (card.role, card.adapter, card.calculator) == (role, False, True)
        assert (card.end_id, card.end_text) == (tiny_tokenizer().eos_token_id, tiny_tokenizer().eos_token)
        assert (card.data["chains"], card.data["source"]) == (3, "tiny")
        assert card.base.location == str(folder.parent / "student")
        rows = rows_for("gpt2", role=role)
        assert card.metrics["learned_tokens"] == sum(label != -100 for row in rows for label in row["labels"])
        assert card.metrics["input_tokens"] == sum(len(row["input_ids"]) for row in rows)
        assert (card.metrics["updates"], card.metrics["left_out"], card.metrics["skipped_updates"]) == (110, 0, 0)
        assert card.metrics["kept_update"] == 110
        assert card.metrics["learning_rate"] == card.settings["learning_rate"] == 0.01
        assert f"role **{role}**" in (folder / "README.md").read_text()


def test_every_second_chain_can_be_learned_in_another_form(student: str, tmp_path: Path) -> None:
    card = fit(student, tmp_path / "both", chains=EIGHT, also="cot", max_steps=1)
    halves = [(EIGHT[::2], "unified"), (EIGHT[1::2], "cot")]
    codec = Codec(load_student(tmp_path / "both", torch.float32)[0].tokenizer)
    examples = [causal_example(c, role, codec) for half, role in halves for c in half]  # type: ignore[arg-type]
    assert card.metrics["learned_tokens"] == sum(sum(example.learned) for example in examples)
    assert card.metrics["input_tokens"] == sum(len(example.ids) for example in examples)


def test_the_recipe_is_the_same_for_every_seed_and_nothing_else(student: str, tmp_path: Path) -> None:
    def recipe(out: str, start: str = student, **settings: Any) -> str:
        return str(fit(start, tmp_path / out, max_steps=1, **settings).recipe)

    first = recipe("a")
    assert recipe("b", seed=7) == first
    assert recipe("moved", start=str(shutil.copytree(student, tmp_path / "elsewhere"))) == first
    assert recipe("c", weight_decay=0.5) != first
    assert recipe("d", chains=CHAINS[:2]) != first
    assert recipe("e", start=str(tmp_path / "a")) == recipe("f", start=str(tmp_path / "b")) != first
    made = [
        train(
            TrainingRun("unified", student, CHAINS[:count], [], "tiny", chains_recipe="harvest"),
            TrainSettings.parse({**PLAIN, "max_steps": 1}),
            tmp_path / f"made-{count}",
            lambda note: None,
        )
        for count in (1, 2)
    ]
    assert made[0].recipe == made[1].recipe != first, "chains that another seed makes otherwise"
    read = read_card(tmp_path / "a").metrics["trained_tokens"]
    (origin,) = read_card(tmp_path / "a").lineage
    assert load_lm(str(tmp_path / "a")).training == {"recipe": first, "seed": 0, "tokens": {origin: read}}
    assert read_card(tmp_path / "b").lineage.keys() != {origin}
    assert sorted(read_card(tmp_path / "e").lineage.values()) == [read, read]
    assert origin in read_card(tmp_path / "e").lineage


def test_one_call_trains_and_loads(student: str, tmp_path: Path) -> None:
    notes: list[str] = []
    made = fit_by_name("qg", CHAINS, student, tmp_path / "qg", qg_sees="questions", on_note=notes.append, max_steps=1)
    assert (made.role, made.qg_sees) == ("qg", "questions")
    assert any("update 1 of 1" in note for note in notes)
    assert any("there is no dev chain to choose by" in note for note in notes)
    with pytest.raises(UserError, match="unknown setting 'max_step'; did you mean 'max_steps'"):
        fit_by_name("qg", CHAINS, student, tmp_path / "other", max_step=1)


def test_a_finished_run_is_left_alone(trained: dict[Role, Path]) -> None:
    folder, notes = trained["qg"], list[str]()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir() if path.name != ".lock"}
    student = str(folder.parent / "student")
    card = fit(student, folder, "qg", max_steps=110, trainer=SELDOM, notes=notes)
    assert card == read_card(folder)
    assert "already trained" in notes[0]
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir() if p.name != ".lock"} == before


def test_an_old_checkpoint_is_followed_by_another(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    on_save = Guard.on_save

    def noting(guard: Guard, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        saved.append(state.global_step)
        on_save(guard, args, state, control, **kwargs)

    monkeypatch.setattr(Guard, "on_save", noting)
    fit(student, tmp_path / "plain", max_steps=3, batch_size=1, evaluations=1)
    seldom = len(saved)
    monkeypatch.setattr("socratic.trainer._SAVE_SECONDS", 0)
    fit(student, tmp_path / "often", max_steps=3, batch_size=1, evaluations=1)
    assert sorted(set(saved[seldom:])) == [1, 2, 3]
    assert seldom < len(saved) - seldom
    assert store.hash_file(tmp_path / "plain" / "model.safetensors") == store.hash_file(
        tmp_path / "often" / "model.safetensors"
    )


def test_every_changed_setting_is_named_and_refused(trained: dict[Role, Path]) -> None:
    student = str(trained["qg"].parent / "student")
    with pytest.raises(UserError) as caught:
        fit(student, trained["qg"], "qa", CHAINS[:2], max_steps=9, seed=3, trainer=SELDOM)
    for part in ("role: 'qg', now 'qa'", "max_steps: 110, now 9", "seed: 0, now 3", "chains: 3, now 2", "sha256: "):
        assert part in str(caught.value)
    for key in ("student", "batch_size", "learning_rate", "source"):
        assert f"{key}: " not in str(caught.value)
    changed = [chain("clips", "Else?", "1", ("Why?", "1")), *CHAINS[1:]]
    with pytest.raises(UserError, match=r"other settings \((data\.)?sha256: "):
        fit(student, trained["qg"], "qg", changed, max_steps=110, trainer=SELDOM)


def test_the_same_chains_from_another_place_are_the_same_training(trained: dict[Role, Path]) -> None:
    run = TrainingRun("qg", str(trained["qg"].parent / "student"), CHAINS, [], "elsewhere/chains.jsonl")
    notes: list[str] = []
    train(run, TrainSettings.parse({**PLAIN, "max_steps": 110, "trainer": SELDOM}), trained["qg"], notes.append)
    assert notes == [f"{trained['qg']} is already trained; give another --out to train again"]


# Killed and damaged runs. Eight examples in batches of two make four updates an epoch, with a checkpoint after each
# second one; without dev chains the last weights are the result, with dropout they depend on every random number.
EIGHT = [
    chain(str(i), f"Bo has {i} hats and buys {i}. How many?", str(2 * i), ("Sum?", f"{i}+{i} = <<{i}+{i}={2 * i}>>"))
    for i in range(1, 9)
]
LONG: dict[str, Any] = {"batch_size": 2, "evaluations": 2, "epochs": 2.5, "schedule": "cosine"}
UPDATES = 10


@pytest.fixture(scope="module")
def whole(student: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    fit(student, out, chains=EIGHT, **LONG)
    return out


class Stop(BaseException):
    """What interrupts a run within this process."""


def stop_at(update: int, monkeypatch: pytest.MonkeyPatch, student: str, out: Path, **settings: Any) -> None:
    """Leave the run ``out`` as it stands when ``update`` has begun."""
    original = StudentTrainer.compute_loss

    def stopping(self: StudentTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == update - 1:
            raise Stop
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(StudentTrainer, "compute_loss", stopping)
        with pytest.raises(Stop):
            fit(student, out, **{"chains": EIGHT, **LONG, **settings})


def assert_same_run(out: Path, whole: Path) -> None:
    assert same(saved(out), saved(whole))
    assert log(out, "learning_rate") == log(whole, "learning_rate")
    assert log(out, "loss") == log(whole, "loss")
    assert store.check_manifest(out) is None


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import time
from test_train import EIGHT, LONG, fit
from socratic.trainer import StudentTrainer

original = StudentTrainer.compute_loss
def stalling(self, *args, **kwargs):
    if self.state.global_step == 7:
        print("ready", flush=True)
        time.sleep(600)
    return original(self, *args, **kwargs)
StudentTrainer.compute_loss = stalling
fit(sys.argv[2], Path(sys.argv[3]), chains=EIGHT, **LONG)
"""


def test_a_killed_run_ends_in_the_weights_of_one_that_was_not(student: str, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), student, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            fit(student, tmp_path, chains=EIGHT, **LONG)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    notes: list[str] = []
    fit(student, tmp_path, chains=EIGHT, notes=notes, **LONG)
    assert any(note.startswith("continuing from") and note.endswith("checkpoint-6") for note in notes)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {"batch_size": 1, "accumulation": 2, "seed": 5}),
        ("llama", {"lora_rank": 2}),
        ("t5", {"role": "answer"}),
        ("llama", {"optimizer": "muon"}),
        # The first dev loss is made the best, so that four worse ones end the run after ten updates.
        ("gpt2", {"dev": EIGHT, "patience": 4, "epochs": 5.0, "trainer": {"greater_is_better": True}}),
    ],
    ids=["accumulation", "adapter", "encoder-decoder", "muon", "patience"],
)
def test_a_run_stopped_twice_ends_in_the_same_weights(
    kind: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop: dict[str, Any] = {} if kind == "llama" else {"dropout": 0.1}
    student = save_tiny(tmp_path / "student", kind, **drop)
    fit(student, tmp_path / "whole", **{"chains": EIGHT, **LONG, **settings})
    for update in (4, 8):
        stop_at(update, monkeypatch, student, tmp_path / "run", **settings)
    notes: list[str] = []
    fit(student, tmp_path / "run", notes=notes, **{"chains": EIGHT, **LONG, **settings})
    assert any(note.endswith("checkpoint-6") for note in notes)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert read_card(tmp_path / "run").metrics["updates"] == read_card(tmp_path / "whole").metrics["updates"] == 10


def test_where_most_updates_were_skipped_nothing_is_saved(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StudentTrainer.compute_loss

    def poisoned(self: StudentTrainer, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs) * (float("nan") if self.state.global_step < 6 else 1)

    monkeypatch.setattr(StudentTrainer, "compute_loss", poisoned)
    with pytest.raises(UserError, match="not finite in 6 of 10 updates, so little was learned; lower learning_rate="):
        fit(student, tmp_path / "run", chains=EIGHT, **LONG)
    assert not is_checkpoint(tmp_path / "run")


def test_skipped_updates_are_counted_over_the_whole_run(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StudentTrainer.compute_loss

    def poisoned(self: StudentTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step in (1, 6) else loss

    monkeypatch.setattr(StudentTrainer, "compute_loss", poisoned)
    stop_at(6, monkeypatch, student, tmp_path / "run")
    card = fit(student, tmp_path / "run", chains=EIGHT, **LONG)
    assert card.metrics["skipped_updates"] == 2
    with pytest.raises(UserError, match="not finite in 2 updates, the last at update 6"):
        fit(student, tmp_path / "other", chains=EIGHT, **LONG, max_bad_steps=1)
    with pytest.raises(UserError, match="not a whole checkpoint"):
        load_student(tmp_path / "other", torch.float32)


def test_seconds_are_of_all_calls(student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Guard, "seconds", property(lambda self: 1000.0))
        stop_at(6, monkeypatch, student, tmp_path / "run")
    card = fit(student, tmp_path / "run", chains=EIGHT, **LONG)
    assert 1000 < card.metrics["seconds"] < 2000


def tear(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def flip(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def cut(checkpoint: Path) -> None:
    path = checkpoint / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [tear, flip, cut])
def test_a_damaged_checkpoint_is_passed_over_with_a_note(
    student: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    stop_at(8, monkeypatch, student, tmp_path)
    damage(tmp_path / "checkpoints" / "checkpoint-6")
    notes: list[str] = []
    there = []
    train = transformers.Trainer.train

    def begin(trainer: Any, **how: Any) -> Any:
        there.append((tmp_path / "checkpoints" / "checkpoint-6").exists())
        return train(trainer, **how)

    monkeypatch.setattr(transformers.Trainer, "train", begin)
    fit(student, tmp_path, chains=EIGHT, notes=notes, **LONG)
    assert there == [False], "it would be taken for the newest one when old ones are removed"
    assert any("checkpoint-6 is not whole" in note for note in notes)
    assert any(note.startswith("continuing from") and note.endswith("checkpoint-4") for note in notes)
    assert_same_run(tmp_path, whole)


def test_a_run_without_a_whole_checkpoint_begins_again(
    student: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(4, monkeypatch, student, tmp_path)
    tear(tmp_path / "checkpoints" / "checkpoint-2")
    fit(student, tmp_path, chains=EIGHT, **LONG)
    assert_same_run(tmp_path, whole)


def test_a_best_checkpoint_that_was_damaged_is_not_taken(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worst: dict[str, Any] = {
        **LONG,
        "dev": EIGHT,
        "trainer": {"greater_is_better": True},
    }  # the best is the first, and stays so
    fit(student, tmp_path / "whole", chains=EIGHT, **worst)
    losses = log(tmp_path / "whole", "eval_loss")
    assert max(losses, key=losses.__getitem__) == 2
    stop_at(8, monkeypatch, student, tmp_path / "run", **worst)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-6"]
    flip(tmp_path / "run" / "checkpoints" / "checkpoint-2")
    notes: list[str] = []
    fit(student, tmp_path / "run", chains=EIGHT, notes=notes, **worst)
    assert any("checkpoint-2" in note and "not whole" in note for note in notes)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_finished_folder_that_was_damaged_is_trained_again(student: str, tmp_path: Path) -> None:
    short: dict[str, Any] = {"max_steps": 2, "trainer": SELDOM}
    fit(student, tmp_path, **short)
    before = saved(tmp_path)
    flip(tmp_path)
    with pytest.raises(UserError, match=r"not a whole checkpoint \(.*model\.safetensors does not have the recorded"):
        load_lm(str(tmp_path))
    fit(student, tmp_path, **short)
    assert same(saved(tmp_path), before)


def test_the_seed_decides_the_weights(student: str, whole: Path, tmp_path: Path) -> None:
    fit(student, tmp_path / "again", chains=EIGHT, **LONG)
    assert_same_run(tmp_path / "again", whole)
    fit(student, tmp_path / "other", chains=EIGHT, **{**LONG, "seed": 1})
    assert not same(saved(tmp_path / "other"), saved(whole))


def test_the_result_is_the_checkpoint_of_the_lowest_dev_loss(student: str, tmp_path: Path) -> None:
    card = fit(student, tmp_path, dev=DEV, max_steps=60, evaluations=1, trainer={"eval_steps": 10, "save_steps": 10})
    losses = log(tmp_path, "eval_loss")
    best = min(losses, key=losses.__getitem__)
    assert set(losses) == {10, 20, 30, 40, 50, 60}
    assert best < 60
    assert losses[60] > losses[best] + 0.01
    assert (card.metrics["dev_loss"], card.metrics["kept_update"]) == (losses[best], best)
    model = load_student(tmp_path, torch.float32)[0].model.eval()
    with torch.no_grad():
        summed, count = summed_loss(model, rows_for("gpt2", DEV))
    assert summed.item() / count == pytest.approx(losses[best], abs=2e-5)


def test_compiled_layers_learn_the_same(student: str, tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "max_steps": 4,
        "dev": DEV,
        "trainer": {"logging_steps": 1, "eval_steps": 2, "save_steps": 2},
    }
    plain = save_tiny(tmp_path / "student", "llama")
    for compiled in (True, False):
        fit(plain, tmp_path / str(compiled), "unified", compile=compiled, **steps)
    for key in ("loss", "eval_loss", "grad_norm"):
        curves = [log(tmp_path / str(compiled), key) for compiled in (True, False)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    with pytest.raises(UserError, match="compile=true is for decoders"):
        fit(save_tiny(tmp_path / "t5", "t5"), tmp_path / "out", "answer", compile=True)


def test_patience_ends_a_run_whose_dev_loss_rises(student: str, tmp_path: Path) -> None:
    evaluating: dict[str, Any] = {"eval_steps": 5, "save_steps": 5}
    card = fit(student, tmp_path, dev=DEV, max_steps=200, learning_rate=0.03, patience=1, trainer=evaluating)
    losses = list(log(tmp_path, "eval_loss").values())
    assert card.metrics["updates"] == 5 * len(losses) < 200
    assert losses[-1] >= losses[-2] > 0
    with pytest.raises(UserError, match="patience=1"):
        fit(student, tmp_path / "other", max_steps=2, patience=1)


def test_a_run_killed_when_it_had_ended_is_not_trained_further(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady: dict[str, Any] = {**LONG, "schedule": "constant"}
    card = fit(student, tmp_path / "whole", chains=EIGHT, **steady)

    def stop(*_: Any, **__: Any) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr("socratic.train.save_student", stop)
        with pytest.raises(Stop):
            fit(student, tmp_path / "run", chains=EIGHT, **steady)
    again = fit(student, tmp_path / "run", chains=EIGHT, **steady)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert (again.metrics["updates"], again.lineage) == (UPDATES, card.lineage)
    (tmp_path / "run" / "checkpoints").mkdir()
    fit(student, tmp_path / "run", chains=EIGHT, **steady)
    assert not (tmp_path / "run" / "checkpoints").exists(), "nor are its checkpoints kept"


def test_measuring_dev_accuracy_does_not_disturb_training(student: str, tmp_path: Path) -> None:
    short: dict[str, Any] = {
        "max_steps": 6,
        "dev": CHAINS,
        "trainer": {"logging_steps": 1, "eval_steps": 2, "save_steps": 2},
    }
    fit(student, tmp_path / "loss", "answer", **short)
    card = fit(student, tmp_path / "accuracy", "answer", best_by="accuracy", **short)
    assert log(tmp_path / "accuracy", "loss") == log(tmp_path / "loss", "loss")
    assert log(tmp_path / "accuracy", "eval_loss") == log(tmp_path / "loss", "eval_loss")
    assert list(log(tmp_path / "accuracy", "eval_accuracy")) == [2, 4, 6]
    accuracies = log(tmp_path / "accuracy", "eval_accuracy")
    assert card.metrics["dev_accuracy"] == max(accuracies.values())
    kept = max(accuracies, key=accuracies.__getitem__)  # the first of several
    assert card.metrics["dev_loss"] == log(tmp_path / "accuracy", "eval_loss")[kept]


def test_dev_accuracy_of_a_pair_needs_the_partner(trained: dict[Role, Path], tmp_path: Path) -> None:
    student = str(trained["qa"])
    settings: dict[str, Any] = {"max_steps": 1, "dev": CHAINS, "best_by": "accuracy", "learning_rate": 1e-6}
    with pytest.raises(UserError, match=r"role 'qg' needs the other student: set partner=FOLDER"):
        fit(student, tmp_path / "none", "qg", **settings)
    card = fit(str(trained["qg"]), tmp_path / "qg", "qg", partner=str(trained["qa"]), **settings)
    assert card.metrics["dev_accuracy"] == 1.0
    card = fit(str(trained["qa"]), tmp_path / "qa", "qa", partner=str(trained["qg"]), **settings)
    assert card.metrics["dev_accuracy"] == 1.0


def test_dev_accuracy_of_choices(student: str, tmp_path: Path) -> None:
    said = Chain("c/0", "tiny", "Which is red?", "B", "choice", CHAINS[0].steps, metadata={"choices": ["sky", "rose"]})
    once: dict[str, Any] = {"max_steps": 40, "learning_rate": 0.02, "trainer": {"eval_steps": 40, "save_steps": 40}}
    card = fit(student, tmp_path, "answer", [said], dev=[said], best_by="accuracy", **once)
    assert card.metrics["dev_accuracy"] == 1.0


def test_training_continues_from_another_students_weights(trained: dict[Role, Path], tmp_path: Path) -> None:
    first = trained["unified"]
    card = fit(str(first), tmp_path, "unified", max_steps=1, trainer={"logging_steps": 1})
    assert log(tmp_path, "loss")[1] < 0.1
    assert card.base.location == str(first)


def test_a_base_that_was_trained_again_to_the_same_weights_is_the_same(
    trained: dict[Role, Path], tmp_path: Path
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(trained["unified"], base)
    fit(str(base), out, "unified", max_steps=1)
    (out / store.MANIFEST).unlink()  # it was not whole yet
    card = json.loads((base / "socratic.json").read_text())
    card["metrics"]["seconds"] += 1
    (base / "socratic.json").write_text(json.dumps(card))
    store.write_manifest(base)
    assert fit(str(base), out, "unified", max_steps=1).metrics["updates"] == 1
    other = base / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-1] + b"\x01")
    store.write_manifest(base)
    (out / store.MANIFEST).unlink()
    with pytest.raises(UserError, match="holds a run with other settings"):
        fit(str(base), out, "unified", max_steps=1)


def test_a_student_and_one_trained_from_it_are_not_confused(trained: dict[Role, Path], tmp_path: Path) -> None:
    first = trained["unified"]
    base = read_card(first).base.location
    assert starting_point("m", None) == "m"
    assert starting_point(None, first) == starting_point(base, first) == str(first)
    with pytest.raises(UserError, match=rf"--from .* was trained from {base}, not other; leave --student out"):
        starting_point("other", first)
    with pytest.raises(UserError, match="absent is no trained student"):
        starting_point(None, tmp_path / "absent")
    with pytest.raises(UserError, match="give --student MODEL"):
        starting_point(None, None)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_an_adapter_is_loaded_with_its_base_and_merged_into_a_plain_model(kind: str, tmp_path: Path) -> None:
    base, adapter, full = tmp_path / "base", tmp_path / "adapter", tmp_path / "full"
    card = fit(save_tiny(base, kind), adapter, max_steps=3, lora_rank=2, learning_rate=0.1)
    assert card.adapter
    assert card.base.location == str(base)
    assert not (adapter / "model.safetensors").exists()
    assert all("lora" in name for name in saved(adapter))
    merged = merge(adapter, full)
    assert not merged.adapter
    hf: Any = transformers
    auto = hf.AutoModelForSeq2SeqLM if kind == "t5" else hf.AutoModelForCausalLM
    plain, untrained = auto.from_pretrained(full), auto.from_pretrained(base)
    assert type(plain) is type(untrained)
    loaded = load_student(adapter, torch.float32)[0].model.eval()
    rows = rows_for(kind)
    with torch.no_grad():
        expected = summed_loss(loaded, rows)[0]
        torch.testing.assert_close(summed_loss(plain.eval(), rows)[0], expected)
        assert abs(summed_loss(untrained.eval(), rows)[0] - expected) > 1
    [trace] = solve([CHAINS[0].problem()], "unified", lm=load_lm(str(full), dtype="fp32"), max_tokens=8)
    assert trace.stop_reason
    with pytest.raises(UserError, match="full is a full model already"):
        merge(full, tmp_path / "twice")
    weights = (full / "model.safetensors").stat().st_mtime_ns
    assert (merge(adapter, full), (full / "model.safetensors").stat().st_mtime_ns) == (merged, weights)
    (full / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="full is not empty"):
        merge(adapter, full)
    with pytest.raises(UserError, match="base is no trained student"):
        merge(base, tmp_path / "twice")


def test_an_adapter_whose_base_changed_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    fit(save_tiny(base), tmp_path / "adapter", max_steps=1, lora_rank=1)
    save_tiny(base, seed=1)
    with pytest.raises(UserError, match=r"the base of .*adapter, .*base, is not the one it was trained on"):
        load_lm(str(tmp_path / "adapter"))


def test_an_adapter_on_an_adapter_is_loaded_with_both(tmp_path: Path) -> None:
    rank: dict[str, Any] = {"max_steps": 5, "lora_rank": 2, "learning_rate": 0.02}
    base, first, second = tmp_path / "base", tmp_path / "first", tmp_path / "second"
    fit(save_tiny(base), first, **rank)
    fit(str(first), second, **rank)
    models = [load_pretrained(str(base), torch.float32).model]
    models += [load_student(folder, torch.float32)[0].model for folder in (first, second)]
    with torch.no_grad():
        losses = [summed_loss(model.eval(), rows_for("gpt2"))[0].item() for model in models]
    assert losses[0] - 1 > losses[1] > losses[2] + 1


def test_an_adapter_needs_weights_to_stand_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lora_rank=2"):
        fit("scratch:gpt2-tiny", tmp_path / "out", max_steps=1, lora_rank=2)


def test_examples_over_the_context_limit_are_left_out_and_counted(tmp_path: Path) -> None:
    sizes = sorted(len(row["input_ids"]) for row in rows_for("gpt2"))
    student = save_tiny(tmp_path / "student", positions=sizes[1])
    notes: list[str] = []
    card = fit(student, tmp_path / "out", max_steps=1, notes=notes)
    assert card.metrics["left_out"] == 1
    assert card.metrics["input_tokens"] == sum(sizes[:2])
    assert any(note.startswith(f"1 examples exceed the student's {sizes[1]} positions") for note in notes)
    small = save_tiny(tmp_path / "small", positions=sizes[0] - 1)
    with pytest.raises(UserError, match=f"no training example is left of 3 chains; all exceed {sizes[0] - 1} tokens"):
        fit(small, tmp_path / "none", max_steps=1)


def test_an_encoder_decoder_is_trained_on_slots(tmp_path: Path) -> None:
    student, out = save_tiny(tmp_path / "student", "t5"), tmp_path / "out"
    card = fit(student, out, "answer", max_steps=120, trainer=SELDOM)
    assert log(out, "loss")[120] < 0.3 < log(out, "loss")[10]
    assert card.metrics["input_tokens"] > card.metrics["learned_tokens"] > 0
    golds = {c.problem_id: c.answer for c in CHAINS}
    traces = list(solve([c.problem() for c in CHAINS], "answer", lm=load_lm(str(out), dtype="fp32")))
    assert {t.problem_id: t.answer for t in traces} == golds


@pytest.mark.parametrize("name", ["gpt2-tiny", "llama-tiny", "t5-tiny"])
def test_a_student_from_nothing_brings_its_own_tokenizer(name: str, tmp_path: Path) -> None:
    card = fit(f"scratch:{name}", tmp_path, "answer", max_steps=1)
    assert card.base.location == f"scratch:{name}"
    assert 1_000_000 < card.parameters < 3_000_000
    [trace] = solve([CHAINS[0].problem()], "answer", lm=load_lm(str(tmp_path), dtype="fp32"), max_tokens=3)
    assert trace.stop_reason in ("finished", "overlong", "empty_output", "invalid_output")


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("scratch:gpt3-tiny", r"unknown student 'scratch:gpt3-tiny'; there are scratch:gpt2-tiny, "),
        ("nobody/nothing", r"'nobody/nothing' cannot be loaded \(.*\); give a folder"),
        ("absent.gguf", r"there is no file absent\.gguf"),
    ],
)
def test_an_unknown_student_is_named(student: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        fit(student, tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trainer": {"fsdq": True}}, "the trainer refuses these settings: .*fsdq"),
        ({"schedule": "cosin"}, "the trainer refuses these settings: .*cosin"),
        ({"report_to": "paper"}, "the trainer refuses these settings: .*paper"),
        ({"schedule": "cosine_with_min_lr"}, "the trainer refuses these settings: .*min_lr"),
        ({"trainer": {"adam_beta1": 5}}, "the trainer refuses these settings: .*beta"),
        ({"trainer": {"optim": "lomo"}}, "the trainer refuses these settings: .*lomo"),
        ({"trainer": {"dataloader_num_workers": -3}}, "the trainer refuses these settings: .*num_workers"),
        ({"trainer": {"push_to_hub": True}}, "trainer={push_to_hub: …} is not free to choose here"),
        ({"best_by": "accuracy"}, "best_by=accuracy goes by the dev chains, of which there are none"),
    ],
)
def test_settings_that_transformers_refuses_are_named(
    student: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        fit(student, tmp_path, **settings)
    fit(student, tmp_path, max_steps=1)  # the mistake left nothing behind


def test_a_folder_that_holds_something_else_is_left_alone(student: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.txt but no training run"):
        fit(student, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"thesis.txt", ".lock"}
    with pytest.raises(UserError, match=r"thesis\.txt cannot be written to"):
        fit(student, tmp_path / "thesis.txt")
    assert not (tmp_path / PLAN).exists()


def test_nothing_is_printed_on_standard_output(
    student: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    fit(student, tmp_path, max_steps=2, notes=notes, trainer={"logging_steps": 1})
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "shards" not in printed.err
    assert any("loss" in note for note in notes)


def test_the_default_rate_falls_with_the_size() -> None:
    rates = [default_learning_rate(n, lora=False) for n in (2_000_000, 135_000_000, 1_000_000_000, 7_000_000_000)]
    assert rates == sorted(rates, reverse=True)
    assert default_learning_rate(135_000_000, lora=True) > rates[1]


def test_a_fold_is_left_out_and_the_card_says_so_of_the_whole_lineage(student: str, tmp_path: Path) -> None:
    fold = next(f"{k}/2" for k in (1, 2) if in_fold(CHAINS[0].question, f"{k}/2"))
    kept = [c for c in CHAINS if not in_fold(c.question, fold)]
    notes: list[str] = []
    first = fit(student, tmp_path / "first", max_steps=1, fold=fold)
    assert (first.fold, first.data["chains"]) == (fold, len(kept))
    assert load_lm(str(tmp_path / "first"), dtype="fp32").record()["training"]["fold"] == fold
    second = fit(str(tmp_path / "first"), tmp_path / "second", max_steps=1, fold=fold, notes=notes)
    assert second.fold == fold
    assert not any("fold" in note for note in notes)
    anyhow = fit(str(tmp_path / "first"), tmp_path / "anyhow", max_steps=1)
    assert anyhow.fold is None
    assert "fold" not in load_lm(str(tmp_path / "anyhow"), dtype="fp32").record()["training"]
    third = fit(str(tmp_path / "anyhow"), tmp_path / "third", max_steps=1, fold=fold, notes=notes)
    assert third.fold is None
    assert any(f"was not trained without fold {fold}" in note for note in notes)


# ---- Fine-tune-CoT


def test_a_student_remembers_the_format_it_was_trained_in(student: str, tmp_path: Path) -> None:
    card = fit(student, tmp_path / "s", "cot", max_steps=1, format="fine-tune-cot")
    assert card.format == "fine-tune-cot"
    assert load_lm(str(tmp_path / "s"), dtype="fp32").format is FORMATS["fine-tune-cot"]
    assert "are left? ### It bakes" in (tmp_path / "s" / "README.md").read_text("utf-8")
    assert "--> 26" in (tmp_path / "s" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("role", "also"), [("qg", None), ("unified", None), ("verifier", None), ("cot", "qa")])
def test_that_format_has_no_sub_questions(role: Role, also: Role | None, student: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="format=fine-tune-cot is for the roles cot and answer"):
        fit(student, tmp_path / "s", role, also=also, format="fine-tune-cot")


def test_that_format_has_no_slots_to_learn_one_by_one(student: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="loss=kl learns a teacher's steps slot by slot, which format=fine-tune-cot"):
        fit(student, tmp_path / "s", "cot", loss="kl", format="fine-tune-cot")
    alone = [replace(CHAINS[0], metadata={ANSWER_ONLY: True})]
    with pytest.raises(
        UserError, match=r"has its answer alone .* format fine-tune-cot could not tell from a rationale"
    ):
        fit(student, tmp_path / "s", "cot", alone, alone, format="fine-tune-cot")


def test_an_annotation_of_many_samples_serves_fewer(student: str, tmp_path: Path) -> None:
    drawn = [replace(made, sample=sample) for made in CHAINS for sample in (0, 2, 5)]
    card = fit(student, tmp_path / "s", "cot", drawn, drawn[:3], max_steps=1, samples=3)
    assert (card.data["chains"], card.data["dev_chains"]) == (6, 2)


@pytest.mark.parametrize(("role", "sees"), [("asker", "answers"), ("qg", "both")])
def test_an_unknown_role_is_refused_before_anything_is_made(tmp_path: Path, role: Any, sees: Any) -> None:
    with pytest.raises(UserError, match=r"unknown (role 'asker'|qg_sees 'both'); did you mean"):
        fit_by_name(role, CHAINS, save_tiny(tmp_path / "tiny"), tmp_path / "out", qg_sees=sees)
    assert not (tmp_path / "out").exists()
