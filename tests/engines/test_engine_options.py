"""Options that contradict each other, those that a plan is really built with, trtexec's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tiedexport.cli.engine_options import engine_options
from tiedexport.engine_options import (
    DEFAULT_PROFILE,
    LARGEST_BATCH,
    MEMORY_POOLS,
    EngineOptions,
    check_shapes,
    contradiction,
    effective,
)
from tiedexport.engine_words import Weights
from tiedexport.errors import UsageError
from tiedexport.spec import Precision, TensorSpec

WEIGHTS = get_args(Weights)
UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "": 2**20}

batches = st.tuples(*[st.integers(1, LARGEST_BATCH)] * 3).map(lambda three: tuple(sorted(three)))
options = st.builds(
    EngineOptions,
    profiles=st.lists(batches, min_size=1, max_size=3).map(tuple),
    exact_profiles=st.booleans(),
    memory_pools=st.dictionaries(st.sampled_from(sorted(MEMORY_POOLS)), st.integers(1, 2**50)),
    builder_optimization_level=st.none() | st.integers(0, 5),
    version_compatible=st.booleans(),
    hardware_compatibility=st.sampled_from(["none", "ampere+", "sameComputeCapability"]),
    strip_weights=st.booleans(),
    refit=st.booleans(),
    weight_streaming=st.booleans(),
    profiling_verbosity=st.sampled_from(["layer_names_only", "detailed", "none"]),
)


def parsed(*arguments: str) -> tuple[Result, dict[str, Any]]:
    """What a command with these options is called with."""
    seen: dict[str, Any] = {}

    @click.command()
    @engine_options
    def command(**given: Any) -> None:
        seen.update(given)

    return CliRunner().invoke(command, arguments), seen


def words(built: EngineOptions) -> list[str]:
    """The options as trtexec would be told them."""
    names = {
        "--exactProfiles": built.exact_profiles,
        "--versionCompatible": built.version_compatible,
        "--stripWeights": built.strip_weights,
        "--refit": built.refit,
        "--allowWeightStreaming": built.weight_streaming,
    }
    arguments = [flag for flag, given in names.items() if given]
    for profile in built.profiles:
        for which, batch in zip(("min", "opt", "max"), profile, strict=True):
            arguments.append(f"--{which}Shapes=input:{batch}x784,code:{batch}")
    for pool, size in built.memory_pools.items():
        arguments.append(f"--memPoolSize={pool}:{size}B")
    if built.builder_optimization_level is not None:
        arguments.append(f"--builderOptimizationLevel={built.builder_optimization_level}")
    return [
        *arguments,
        f"--hardwareCompatibilityLevel={built.hardware_compatibility}",
        f"--profilingVerbosity={built.profiling_verbosity}",
    ]


@given(options)
@settings(deadline=None, max_examples=100)
def test_what_trtexec_would_be_told_comes_back(built: EngineOptions):
    result, seen = parsed(*words(built))
    assert result.exit_code == 0, result.output
    assert seen["engine_options"] == built
    assert seen["profile_shapes"] == {"input": (784,), "code": ()}


@given(options)
def test_options_survive_the_manifest(built: EngineOptions):
    assert msgspec.json.decode(msgspec.json.encode(built), type=EngineOptions) == built


def test_nothing_said_is_the_default():
    _, seen = parsed()
    assert seen == {
        "engine_options": EngineOptions(),
        "timing_cache": None,
        "profile_shapes": {},
    }
    assert EngineOptions().profiles == (DEFAULT_PROFILE,)


def test_opt_shapes_alone_are_all_three():
    _, seen = parsed("--optShapes", "input:4", "--optShapes=input:9x784")
    assert seen["engine_options"].profiles == ((4, 4, 4), (9, 9, 9))


def test_a_timing_cache_is_no_option_of_the_plan():
    _, seen = parsed("--timingCacheFile", "kernels.cache")
    assert seen["timing_cache"] == Path("kernels.cache")
    assert seen["engine_options"] == EngineOptions()


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)))
@settings(deadline=None, max_examples=50)
def test_a_memory_pool_has_trtexec_s_units(number: int, unit: str):
    _, seen = parsed(f"--memPoolSize=workspace:{number}{unit}")
    assert seen["engine_options"].memory_pools == {"workspace": number * UNITS[unit]}


def test_a_memory_pool_can_have_a_fraction_and_company():
    _, seen = parsed(
        "--memPoolSize=workspace:1.5K,tacticSharedMem:48K", "--memPoolSize=workspace:1"
    )
    assert seen["engine_options"].memory_pools == {
        "workspace": 2**20,
        "tacticSharedMem": 48 * 2**10,
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minShapes=1"], "'1' is no NAME:SHAPE"),
        (["--minShapes=input:"], "no NAME:SHAPE"),
        (["--minShapes=:4"], "no NAME:SHAPE"),
        (["--minShapes=input:-1x784"], "no NAME:SHAPE"),
        (["--minShapes=input:1x"], "no NAME:SHAPE"),
        (["--minShapes=input:1,"], "no NAME:SHAPE"),
        (["--optShapes=input:1,input:1"], "'input' is given twice"),
        (["--optShapes=input:1,code:2"], "one profile has one batch"),
        (["--minShapes=input:1"], "go together"),
        (["--minShapes=input:1", "--maxShapes=input:8"], "given 1, 0 and 1 times"),
        (["--optShapes=input:1x784", "--optShapes=input:1x785"], "only the batch axis"),
        (["--optShapes=input:0"], "min 0, opt 0, max 0 is impossible"),
        (["--minShapes=x:8", "--optShapes=x:1", "--maxShapes=x:9"], "min 8, opt 1, max 9 is"),
        (["--optShapes=input:2147483648x784"], "max ≤ 2147483647"),
        (["--memPoolSize=workspace:0"], "1 byte or more"),
        (["--memPoolSize=workspace"], "'workspace' is no POOL:SIZE"),
        (["--memPoolSize=workspace:1T"], "no POOL:SIZE"),
        (["--memPoolSize=workspace:-1"], "no POOL:SIZE"),
        (["--memPoolSize=dlaSRAM:1"], "no memory pool 'dlaSRAM'; known are workspace, tacticSha"),
        (["--builderOptimizationLevel=6"], "0<=x<=5"),
        (["--hardwareCompatibilityLevel=turing"], "ampere+"),
        (["--profilingVerbosity=loud"], "layer_names_only"),
        (["--timingCacheFile="], "an empty name"),
    ],
)
def test_words_that_mean_nothing_are_named(arguments: list[str], says: str):
    result, seen = parsed(*arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert not seen


@given(options)
def test_whatever_trtexec_would_take_is_no_contradiction_where_a_plan_holds_weights(built):
    assert contradiction(built, "baked") is None
    assert contradiction(built, "one-plan") is None
    about_weights = built.strip_weights or built.refit or built.weight_streaming
    assert (contradiction(built, "shared") is not None) == about_weights


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"profiles": ()}, "no profile"),
        ({"profiles": ((8, 1, 256),)}, "min 8, opt 1, max 256 is impossible"),
        ({"profiles": ((1, 9, 8),)}, "impossible"),
        ({"profiles": ((-1, 1, 8),)}, "impossible"),
        ({"profiles": ((0, 0, 0),)}, "impossible"),
        ({"profiles": ((1, 1, 8), (1, 1, LARGEST_BATCH + 1))}, f"≤ max ≤ {LARGEST_BATCH}"),
        ({"profiles": ((1, 8),)}, "wrong type"),
        ({"profiles": ((1, 8, "256"),)}, "wrong type"),
        ({"builder_optimization_level": 6}, "0 to 5"),
        ({"builder_optimization_level": -1}, "0 to 5"),
        ({"memory_pools": {"dlaSRAM": 1}}, "known are workspace"),
        ({"memory_pools": {"workspace": 0}}, "1 byte or more"),
        ({"hardware_compatibility": "turing"}, "wrong type"),
        ({"profiling_verbosity": "loud"}, "wrong type"),
    ],
)
def test_what_no_target_can_have_is_named(changes: dict[str, Any], says: str, weights: str):
    assert says in (contradiction(EngineOptions(**changes), weights) or "")


@pytest.mark.parametrize("flag", ["strip_weights", "refit", "weight_streaming"])
def test_what_is_about_weights_in_a_plan_needs_some(flag: str):
    assert "--weights baked" in (contradiction(EngineOptions(**{flag: True}), "shared") or "")


@given(options)
def test_shared_weights_are_built_as_asked_for(built: EngineOptions):
    assert effective(built, "shared") == (built, ())


@given(options)
def test_halves_get_an_empty_batch_and_keep_all_else(built: EngineOptions):
    options_, notes = effective(built, "one-plan")
    assert [profile[0] for profile in options_.profiles] == [0] * len(built.profiles)
    assert [profile[1:] for profile in options_.profiles] == [p[1:] for p in built.profiles]
    assert msgspec.structs.replace(options_, profiles=built.profiles) == built
    assert notes == ()
    assert effective(options_, "one-plan") == (options_, ())


def test_a_baked_profile_of_batch_one_alone_is_widened_and_said():
    built, notes = effective(EngineOptions(profiles=((1, 1, 1), (1, 8, 9))), "baked")
    assert built.profiles == ((1, 1, 2), (1, 8, 9))
    assert "--exactProfiles" in " ".join(notes)


def test_whoever_insists_on_batch_one_gets_it_and_is_told():
    asked = EngineOptions(profiles=((1, 1, 1),), exact_profiles=True)
    built, notes = effective(asked, "baked")
    assert built == asked
    assert "transpose" in " ".join(notes)


@pytest.mark.parametrize("shapes", [{}, {"input": ()}, {"input": (1, 28, 28), "code": (7,)}])
def test_shapes_that_the_stages_have_pass(shapes: dict[str, tuple[int, ...]]):
    check_shapes(shapes, INPUTS)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [({"x": ()}, "no stage has"), ({"input": (784,)}, "Nx1x28x28"), ({"code": (8,)}, "Nx8")],
)
def test_shapes_that_no_stage_has_are_named(shapes: dict[str, tuple[int, ...]], says: str):
    with pytest.raises(UsageError, match=says):
        check_shapes(shapes, INPUTS)


INPUTS = (
    TensorSpec("input", Precision.FP32, ("batch", 1, 28, 28)),
    TensorSpec("code", Precision.FP32, ("batch", 7)),
)
