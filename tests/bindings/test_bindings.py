"""Everything that our source uses of TensorRT exists in the real bindings, and takes what we give.

The bindings of `tensorrt` are imported over stub libraries, so this needs neither its libraries nor
a GPU. When a new version lacks something, the first thing that it lacks is named.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import stub_libraries
from interface import Interface
from uses import Uses

from tiedexport import trt

PACKAGE = Path(trt.__file__).parent.parent
NAMED = {"module": "module"}
"""What a name stands for where neither its origin nor its annotation tells."""

LACKING = {
    "ComputeCapability": "tensorrt ",
    "IStreamWriter": "tensorrt 10.12",
    "CUDA": "",
    "CUDA_VISIBLE_DEVICES": "",
}
"""Who lacks what and is not asked for it: as our source knows, by what it asks first. And what is
no member at all.
"""

BY_NAME = ("tiedexport/network/", "tiedexport/trt/", "tiedexport/engines/")
"""Where strings in capitals are members of TensorRT's enumerations."""

BUILT_AND_RUN = (*BY_NAME, "tiedexport/device/", "tiedexport/engine_options.py")

OLDEST = "10.12"
OLDEST_BINDINGS = Path(sys.prefix) / f"tensorrt-{OLDEST}"
"""Where `make test` puts the bindings of the oldest TensorRT that is supported."""

_HOLDS_TENSORRT = re.compile(
    r"trt\.load\(|\bHandle\b|^ *from tiedexport\.?.* import .*\b(network|device)\b"
    r"|^ *from tiedexport\.(network|device)\b",
    re.MULTILINE,
)


@cache
def our_uses(interface: Interface) -> Uses:
    return uses_of(interface, sources())


@cache
def sources() -> dict[str, str]:
    """Every file of ours that can hold an object of TensorRT's."""
    texts = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        str(path.relative_to(PACKAGE.parent)): text
        for path, text in texts.items()
        if path == PACKAGE / "engine_options.py"
        or path.relative_to(PACKAGE).parts[0] in ("trt", "network", "device")
        or _HOLDS_TENSORRT.search(text)
    }


@cache
def interface_of(package: str, stubs: Path) -> Interface:
    """The interface of a package that is installed here, or a skip that says why not."""
    if package == "tensorrt_rtx":
        if not trt.availability(package).available:
            pytest.skip(f"{package}: {trt.availability(package).reason}")
        return Interface.of(package)
    if missing := stub_libraries.missing_tools():
        pytest.skip(f"the C compiler's package lacks {', '.join(missing)}")
    folder = None if package == "tensorrt" else OLDEST_BINDINGS
    if folder is None and (spec := find_spec("tensorrt_bindings")) is not None:
        found = Path(str(spec.origin)).parent
    elif folder is not None and folder.is_dir():
        found = folder / "tensorrt_bindings"
    else:
        pytest.skip(f"no bindings of {package}; make test installs them")
    stubs.mkdir(exist_ok=True)
    stub_libraries.make(found / "tensorrt.so", stubs)
    return Interface.of("tensorrt_bindings", folder, stubs)


@pytest.fixture(params=["tensorrt", f"tensorrt {OLDEST}", "tensorrt_rtx"])
def interface(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Interface:
    package = str(request.param)
    return interface_of(package, tmp_path_factory.getbasetemp() / package.replace(" ", "-"))


def uses_of(interface: Interface, texts: dict[str, str]) -> Uses:
    return Uses(interface, texts, NAMED, LACKING, BY_NAME)


def test_all_that_we_use_exists_and_takes_what_we_give(interface: Interface) -> None:
    assert our_uses(interface).first_fault() is None


def test_nothing_is_used_of_which_the_class_is_unknown(interface: Interface) -> None:
    assert our_uses(interface).first_unclear() is None


def test_builder_parser_runner_and_every_evaluated_layer_are_seen(interface: Interface) -> None:
    assert our_uses(interface).found >= {
        "Builder.build_serialized_network",
        "IBuilderConfig.set_memory_pool_limit",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.execute_async_v3",
        "IMatrixMultiplyLayer.op1",
        "IShuffleLayer.zero_is_placeholder",
        "ITensor.dtype",
        "LayerType.DECONVOLUTION",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse_from_file",
        "ParserError.node_operator",
        "Runtime.deserialize_cuda_engine",
    }


MISTAKES = {
    "a method": ("create_builder_config(", "create_builder_configuration("),
    "a method of an object that another file made": (
        ".execute_async_v3(",
        ".execute_async_v4(",
    ),
    "an enumeration": ("module.NetworkDefinitionCreationFlag", "module.NetworkFlag"),
    "a member": ("BuilderFlag.TF32", "BuilderFlag.TF33"),
    "a member that a string names": ('"REFIT_IDENTICAL"', '"REFIT_THE_SAME"'),
    "a member that a string is compared with": ('!= "EXPLICIT_ROUND_DOWN"', '!= "EXPLICIT"'),
    "an attribute of one kind of layer": (".zero_is_placeholder", ".zero_is_kept"),
    "an attribute of a tensor in a loop": ("tensor.shape)[:-1]", "tensor.shapes)[:-1]"),
    "a parameter": ("ignore_mismatch=", "ignore_mismatches="),
    "too many arguments": ("create_builder_config()", "create_builder_config(0, 1)"),
    "too few arguments": (".build_serialized_network(parsed.network, config)",
                          ".build_serialized_network(parsed.network)"),
    "an argument of another class": (".build_serialized_network(parsed.network, config)",
                                     ".build_serialized_network(config, parsed.network)"),
    "what cannot be set": ("config.progress_monitor =", "config.num_optimization_profiles ="),
    "a callback's name": ("def phase_start(", "def phase_begin("),
    "a callback's parameters": ("def step_complete(self, phase: str, step: int)",
                                "def step_complete(self, phase: str)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_version_and_line(
    mistake: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    interface = interface_of("tensorrt_rtx", tmp_path_factory.getbasetemp())
    right, wrong = MISTAKES[mistake]
    texts = {name: text for name, text in sources().items() if name.startswith(BUILT_AND_RUN)}
    files = [name for name, text in texts.items() if right in text]
    assert files, f"{right} is nowhere: the mistake must be planted elsewhere"
    line = texts[files[0]][: texts[files[0]].index(right)].count("\n") + 1
    texts[files[0]] = texts[files[0]].replace(right, wrong, 1)
    fault = uses_of(interface, texts).first_fault()
    assert fault is not None
    assert fault.startswith(f"tensorrt_rtx {interface.version}: ")
    assert abs(int(re.findall(rf"{files[0]}:(\d+)\)$", fault)[0]) - line) <= 1


def test_the_first_of_two_mistakes_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    interface = interface_of("tensorrt_rtx", tmp_path_factory.getbasetemp())
    source = (
        "def build(module: Any):\n"
        "    builder = module.Builder(None)\n"
        "    builder.make_network()\n"
        "    builder.make_config()\n"
    )
    fault = uses_of(interface, {"one.py": source}).first_fault()
    assert fault == f"tensorrt_rtx {interface.version}: Builder has no make_network (one.py:3)"


def test_an_object_of_unknown_origin_is_not_passed_over(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    interface = interface_of("tensorrt_rtx", tmp_path_factory.getbasetemp())
    source = "def run(thing):\n    thing.execute_async_v3(0)\n"
    assert "of what class" in str(uses_of(interface, {"one.py": source}).first_unclear())


def test_what_only_one_package_has_is_guarded(tmp_path_factory: pytest.TempPathFactory) -> None:
    interface = interface_of("tensorrt", tmp_path_factory.getbasetemp() / "tensorrt")
    guarded = "def f(self, module: Any):\n    if self.package == 'tensorrt_rtx':\n        {}\n"
    asked = "def f(module: Any):\n    if hasattr(module, 'EngineValidity'):\n        {}\n"
    use = "module.EngineValidity"
    for text in (guarded, asked):
        assert uses_of(interface, {"one.py": text.format(use)}).first_fault() is None
    plain = f"def f(module: Any):\n    {use}\n"
    assert "no EngineValidity" in str(uses_of(interface, {"one.py": plain}).first_fault())


def test_bindings_alone_are_not_taken_for_tensorrt() -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("tensorrt itself is installed here")
    assert not trt.availability("tensorrt").available
