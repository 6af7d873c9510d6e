"""Whatever a file holds, audit and retie answer it: correctly, or with an error that says why."""

from __future__ import annotations

import contextlib
import io
import random
from typing import TYPE_CHECKING, NoReturn

import msgspec
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from retied import digests
from stranger_models import STRANGERS

from tiedexport import fresh
from tiedexport.__main__ import _exit_code
from tiedexport.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_MISSING, RuntimeFailedError
from tiedexport.results.ties import AuditResult, RetieResult, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.message import Message

WHOLE = [name for name, stranger in STRANGERS.items() if not stranger.broken]
BROKEN = [name for name, stranger in STRANGERS.items() if stranger.broken]

TIED = {
    "external_data": "bit for bit",
    "if_that_repeats_an_outer_weight": "bit for bit",
    "int8_weights": "bit for bit",
    "loop": "bit for bit",
    "numbers_one_by_one": "bit for bit",
    "tied_twice_stored": "bit for bit",
    "training_info": "bit for bit",
    "unsorted_nodes": "bit for bit",
    "unused_weight": "bit for bit",
    "unknown_operator": "not proven",
}
"""Files with a weight that is stored twice and mended, and the proof that there is for them."""

LEFT = {
    "function_with_a_weight": "inside a local function",
    "without_opset": "no ONNX opset",
}
"""Files with a weight that is stored twice, and why it stays so."""


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of an audit that need a process of their own, a few seconds each, do without."""

    def switched_off(*_: object, **__: object) -> NoReturn:
        raise RuntimeFailedError("switched off")

    monkeypatch.setattr(fresh, "ask", switched_off)


def command(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and errors of a command in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = _exit_code([*map(str, arguments), "--quiet"])
    for stream in streams:
        stream.seek(0)
    out, errors = (stream.read() for stream in streams)
    assert "Traceback" not in errors, errors
    return code, out, errors


@pytest.fixture
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The stranger that the test is about; not a byte around it may change."""
    folder = tmp_path / request.param
    folder.mkdir()
    path = STRANGERS[request.param].build(folder)
    before = digests(tmp_path)
    yield path
    assert {name: digest for name, digest in digests(tmp_path).items() if name in before} == before


def audited(path: Path) -> AuditResult:
    code, out, errors = command("audit", path, "--json", "-")
    assert code == EXIT_DONE, errors
    return msgspec.json.decode(out, type=AuditResult)


def of_files(result: AuditResult) -> list[Stage]:
    return [stage for stage in result.stages if stage.name == "ONNX files"]


@pytest.mark.usefixtures("no_children")
@pytest.mark.parametrize("built", WHOLE, indirect=True)
def test_a_whole_file_is_audited_and_retied(built: Path, tmp_path: Path):
    name = built.parent.name
    (row,) = of_files(audited(built))
    assert (row.status == "copies") == (name in TIED or name in LEFT)
    assert (row.stored_bytes > row.needed_bytes) == (row.status == "copies")

    code, out, _ = command("retie", built, "-o", tmp_path / "out", "--json", "-")
    result = msgspec.json.decode(out, type=RetieResult)
    assert code == (EXIT_DONE if result.outputs else EXIT_MISSING)
    assert result.proof == TIED.get(name, "bit for bit")
    assert bool(result.mends) == (name in TIED)
    assert [left.reason for left in result.left if LEFT.get(name, "") in left.reason] == [
        left.reason for left in result.left
    ]
    assert bool(result.left) == (name in LEFT)
    assert bool(result.outputs) == (result.proof == "bit for bit") == (tmp_path / "out").exists()
    if result.outputs and name not in LEFT:
        (row,) = of_files(audited(tmp_path / "out" / built.name))
        assert row.status in ("one copy", "no tie")


@pytest.mark.usefixtures("no_children")
@pytest.mark.parametrize("built", BROKEN, indirect=True)
def test_a_broken_file_is_an_error_that_names_it(built: Path, tmp_path: Path):
    for arguments in (["audit", built], ["retie", built, "-o", tmp_path / "out"]):
        code, out, errors = command(*arguments)
        assert (code, out) == (EXIT_BAD_INPUT, "")
        assert str(built) in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "built", ["unknown_operator", "if_that_repeats_an_outer_weight"], indirect=True
)
def test_every_stage_of_an_audit_is_measured_or_says_why_not(built: Path):
    stages = audited(built).stages
    assert all(stage.reason for stage in stages if stage.status == "not run")
    runs = {stage.name: stage.status != "not run" for stage in stages if stage.counts}
    assert runs["ONNX Runtime's optimised graph"] == (built.parent.name != "unknown_operator")


# Damage that nobody thought of.


ALONE = [name for name in WHOLE if name != "external_data"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every whole file that stands alone."""
    folder = tmp_path_factory.mktemp("sound")
    for name in ALONE:
        STRANGERS[name].build(folder).rename(folder / name)
    return folder


@pytest.mark.usefixtures("no_children")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(ALONE), dice=st.integers(0, 2**32), structure=st.booleans())
@example(name="unknown_operator", dice=1007, structure=True)
def test_a_damaged_file_is_answered_like_any_other(name, dice, structure, sound, tmp_path_factory):
    damage = damaged_structure if structure else damaged_bytes
    data = damage(random.Random(dice), (sound / name).read_bytes())
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "model.onnx"
    path.write_bytes(data)
    code, out, errors = command("audit", path)
    assert code in (EXIT_DONE, EXIT_BAD_INPUT)
    assert (code == EXIT_DONE) == bool(out)
    assert (code == EXIT_BAD_INPUT) == (str(path) in errors)
    code, _, errors = command("retie", path, "-o", folder / "out")
    assert code in (EXIT_DONE, EXIT_MISSING, EXIT_BAD_INPUT), errors
    assert (code == EXIT_DONE) == (folder / "out").exists()
    assert path.read_bytes() == data


def damaged_bytes(dice: random.Random, data: bytes) -> bytes:
    """Bytes overwritten, taken out or put in, mostly at the ends: between them are weights."""
    damaged = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        edge = dice.randrange(min(len(damaged), 400))
        at = dice.choice([edge, len(damaged) - 1 - edge, dice.randrange(len(damaged))])
        length = dice.randint(1, 20)
        match dice.choice(["flip", "cut", "add", "stop"]):
            case "flip":
                damaged[at] = dice.randrange(256)
            case "cut":
                del damaged[at : at + length]
            case "add":
                damaged[at:at] = damaged[at : at + length]
            case "stop":
                del damaged[at + 1 :]
        if not damaged:
            break
    return bytes(damaged)


def damaged_structure(dice: random.Random, data: bytes) -> bytes:
    """Sound protobuf of no sound model: fields gone, doubled or of other values."""
    model = onnx.load_model_from_string(data)
    for _ in range(dice.randint(1, 3)):
        message = dice.choice(list(_messages(model)))
        field = dice.choice(message.DESCRIPTOR.fields)
        if dice.random() < 0.3:
            message.ClearField(field.name)
        elif field.is_repeated:
            _damage_list(dice, getattr(message, field.name), field)
        elif field.type == field.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, _other(dice, field))
    return bytes(model.SerializeToString())


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if field.is_repeated else [value]:
                yield from _messages(child)


def _damage_list(dice: random.Random, items, field) -> None:
    if items and dice.random() < 0.5:
        del items[dice.randrange(len(items))]
    elif field.type != field.TYPE_MESSAGE:
        items.append(_other(dice, field))
    elif items:
        items.add().CopyFrom(dice.choice(list(items)))
    else:
        items.add()


def _other(dice: random.Random, field) -> object:
    """Another value: a name or a number that means something elsewhere."""
    if field.type == field.TYPE_STRING:
        return dice.choice(["", "w", "x", "y", "wt", "z", "MatMul", "Transpose", "Identity"])
    if field.type == field.TYPE_BYTES:
        return dice.choice([b"", b"abc", b"\xf6"])
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return dice.choice([0.0, -1.5, float("nan")])
    if field.type == field.TYPE_ENUM:
        return dice.choice([value.number for value in field.enum_type.values])
    return dice.choice([0, 1, 2, 3, 5, 7, 9, 10, 11, 16, 24, 40])
