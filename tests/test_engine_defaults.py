"""What a build that stands decides for the next: modes and options, and which engines go."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from command_line import tiedexport
from conftest import resign
from fake_engines import TARGET, FakeBuilder

from tiedexport import engines
from tiedexport.bundle import open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import UsageError
from tiedexport.export import build, plan

OTHER, FOREIGN = "fake:2", "foreign"
PLAIN, FOUR = EngineOptions(), EngineOptions(profiles=((4, 4, 4),))
REFIT = EngineOptions(profiles=((4, 4, 4),), refit=True)

pytestmark = pytest.mark.usefixtures("quick_export")


class ForeignBuilder(FakeBuilder):
    """Another package, with options of its own."""

    name, forms = "foreignrt", FOREIGN

    def accepts(self, target: str) -> bool:
        return target == FOREIGN

    def default_targets(self) -> tuple[str, ...]:
        return ()


@pytest.fixture(autouse=True)
def builder(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    fakes = FakeBuilder(), ForeignBuilder()
    monkeypatch.setattr(engines, "all_builders", lambda: fakes)
    return fakes[0]


def made(path: Path, target: str) -> set[tuple[str, str]]:
    """Weights mode and options of a target's plans."""
    plans = open_bundle(path).manifest.plans
    return {(p.weights, str(p.options)) for p in plans if p.target == target}


# Modes and options.


@pytest.mark.parametrize("target", [TARGET, OTHER])
def test_other_targets_and_precisions_are_built_as_those_that_stand(target: str, plain: Path):
    build(plain, target=[TARGET], precision="fp16", weights="baked", engine_options=FOUR)
    build(plain, target=[target], precision="bf16")
    assert made(plain, target) == {("baked", str(FOUR))}


def test_a_checkpoint_s_new_target_is_built_as_the_one_that_goes(checkpoints, tmp_path: Path):
    path = tmp_path / "b.tied"
    build(checkpoints["dense"], path, target=[TARGET], weights="baked", engine_options=FOUR)
    build(checkpoints["dense"], path, target=[OTHER])
    assert made(path, OTHER) == {("baked", str(FOUR))}


def test_where_those_that_stand_differ_a_new_target_has_the_defaults(plain: Path):
    build(plain, target=[TARGET], precision="fp16", weights="baked", engine_options=FOUR)
    build(plain, target=[OTHER], precision="fp16", weights="shared", engine_options=FOUR)
    build(plain, target=["fake:3"], precision="fp16")
    assert made(plain, "fake:3") == {("shared", str(FOUR))}  # as the shared ones that stand
    build(plain, target=[TARGET], precision="bf16")
    assert made(plain, TARGET) == {("baked", str(FOUR))}  # as this target has it
    build(plain, target=[OTHER], precision="fp16", engine_options=PLAIN)
    build(plain, target=[TARGET], precision="fp16", weights="shared", engine_options=FOUR)
    build(plain, target=["fake:4"], precision="fp16", weights="shared")
    assert made(plain, "fake:4") == {("shared", str(PLAIN))}  # they no longer agree


def test_another_package_is_told_the_batches_and_nothing_that_it_may_not_know(plain: Path):
    build(plain, target=[TARGET], precision="fp16", weights="baked", engine_options=REFIT)
    build(plain, target=[FOREIGN, OTHER], precision="fp16")
    assert made(plain, OTHER) == {("baked", str(REFIT))}
    assert made(plain, FOREIGN) == {("baked", str(FOUR))}


def test_what_is_said_goes_before_what_stands(plain: Path):
    build(plain, target=[TARGET], precision="fp16", weights="baked", engine_options=FOUR)
    build(plain, target=[OTHER], precision="fp16", weights="shared", engine_options=PLAIN)
    assert made(plain, OTHER) == {("shared", str(PLAIN))}


def test_plans_of_a_mode_that_is_not_known_decide_nothing(plain: Path):
    build(plain, target=[TARGET], precision="fp16", weights="baked")
    plans = open_bundle(plain).manifest.plans
    resign(plain, plans=tuple(msgspec.structs.replace(p, weights="elsewhere") for p in plans))
    build(plain, precision="fp16")
    assert {mode for mode, _ in made(plain, TARGET)} == {"shared"}


def test_a_plan_of_work_names_the_mode_that_is_built(plain: Path):
    build(plain, target=[TARGET], precision="fp16", weights="baked")
    assert "fake:2 engines in fp16, weights baked" in plan(plain, target=[OTHER], precision="fp16")
    build(plain, target=[TARGET], precision="bf16", weights="shared")
    both = plan(plain, target=[TARGET])
    assert "fake engines in fp16, bf16, weights baked, shared" in both


# Engines that go.


@pytest.fixture
def standing(checkpoints, tmp_path: Path) -> Path:
    build(checkpoints["dense"], tmp_path / "b.tied", target=[TARGET, OTHER])
    return tmp_path / "b.tied"


@pytest.mark.parametrize(
    ("targets", "gone"),
    [([TARGET, OTHER], ()), ([TARGET], (OTHER,)), (["fake:3"], (TARGET, OTHER)), ([], (TARGET,))],
)
def test_engines_that_are_left_out_are_named_with_how_to_keep_them(
    targets: list[str], gone: tuple[str, ...], standing: Path, checkpoints
):
    dry = [line for line in plan(checkpoints["dense"], standing, target=targets).splitlines()
           if line.startswith("drop ")]  # fmt: skip
    result = build(checkpoints["dense"], standing, target=targets)
    notes = [note for note in result.notes if "drops" in note]
    left = {plan.target for plan in open_bundle(standing).manifest.plans}
    assert left == set(targets)
    assert len(notes) == len(dry) == bool(gone)
    for target in gone:
        assert f"--target {target}" in dry[0]
        assert f"--target {target}" in notes[0]


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_on_the_command_line_it_is_said(quiet: tuple[str, ...], standing: Path, checkpoints):
    arguments = ["build", checkpoints["dense"], "-o", standing.name, "--target", TARGET]
    done = tiedexport(*arguments, "--dry-run", cwd=standing.parent)
    assert "drop    fake:2 engines; --target fake:2 keeps them" in done.stdout
    done = tiedexport(*arguments, *quiet, cwd=standing.parent)
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert said.count("b.tied: drops fake:2 engines; --target fake:2 keeps them") == 1


def test_nothing_goes_from_a_bundle_that_gets_engines_or_is_built_again(
    standing: Path, checkpoints
):
    assert "drop" not in plan(standing, target=["fake:3"])
    assert "drop" not in plan(checkpoints["dense"], standing)
    assert not [note for note in build(checkpoints["dense"], standing).notes if "drop" in note]


# Shapes.


@pytest.mark.parametrize("name", ["code", "code_in"])
def test_the_inputs_of_one_plan_go_by_both_names(name: str, plain: Path):
    shapes = {"input": (20,), name: (7,)}
    build(plain, target=[TARGET], precision="fp16", weights="one-plan", profile_shapes=shapes)
    build(plain, target=[OTHER], precision="fp16", profile_shapes=shapes)  # one plan, as the other
    with pytest.raises(UsageError, match="can vary") as caught:
        build(plain, target=[TARGET], weights="one-plan", profile_shapes={name: (8,)})
    assert (caught.value.got, caught.value.expected) == ("Nx8", "Nx7")


def test_shared_plans_have_no_second_input(plain: Path, checkpoints, tmp_path: Path):
    for model in (plain, checkpoints["dense"]):
        with pytest.raises(UsageError, match="no stage has") as caught:
            build(model, tmp_path / "c.tied", target=[TARGET], profile_shapes={"code_in": (7,)})
        assert caught.value.expected == "input, code"


def test_a_checkpoint_s_one_plan_takes_it(checkpoints, tmp_path: Path):
    ask = ["build", checkpoints["dense"], "-o", "c.tied", "--target", TARGET, "-q"]
    shapes = "input:4x20,code_in:4x7"
    done = tiedexport(*ask, "--weights", "one-plan", f"--optShapes={shapes}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {p.profiles for p in open_bundle(tmp_path / "c.tied").manifest.plans} == {((0, 4, 4),)}
