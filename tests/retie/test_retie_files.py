"""Several files, external data, where results go, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from retied import digests, graphs, model, saved, second_copies, weight

from tiedexport.errors import GraphError, UsageError
from tiedexport.retie import retie

if TYPE_CHECKING:
    from collections.abc import Callable

W = weight(48, 80)
BIAS = weight(48, seed=1)


def _encoder() -> onnx.ModelProto:
    text = "e (float[N, 80] x) => (float[N, 48] z)"
    return model(f"{text} {{ z = Gemm <transB = 1> (x, w, b) }}", w=W, b=BIAS)


def _decoder(dtype: str = "float") -> onnx.ModelProto:
    """As an exporter leaves it that saw the decoder alone: its weight is called t."""
    array = np.ascontiguousarray(W.T).astype({"float": np.float32, "float16": np.float16}[dtype])
    text = f"d ({dtype}[N, 48] z) => ({dtype}[N, 80] y)"
    return model(f"{text} {{ y = Gemm <transB = 1> (z, t) }}", t=array)


def _autoencoder() -> onnx.ModelProto:
    text = "a (float[N, 80] x) => (float[N, 80] y)"
    body = "{ z = Gemm <transB = 1> (x, v, c) y = MatMul(z, v) }"
    return model(f"{text} {body}", v=W, c=BIAS)


def _data(path: Path) -> dict[str, dict[str, str]]:
    """Initializer → its external data entries."""
    graph = onnx.load(path, load_external_data=False).graph
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph.initializer
    }


@pytest.mark.parametrize("external", ["", "part.data"])
def test_an_encoder_and_a_decoder_share_one_physical_copy(external: str, tmp_path: Path) -> None:
    """The names differ, one weight is transposed, and one may be inline, the other outside."""
    inputs = [
        saved(_encoder(), tmp_path / "one" / "encoder.onnx"),
        saved(_decoder(), tmp_path / "two" / "decoder.onnx", external=external),
        saved(_autoencoder(), tmp_path / "three" / "autoencoder.onnx"),
    ]
    given = digests(tmp_path)
    result = retie(inputs, tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    encoder, decoder, autoencoder = map(_data, graphs(result))
    assert encoder["w"] == decoder["w"] == autoencoder["v"]
    assert encoder["b"] == autoencoder["c"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["encoder.onnx", "decoder.onnx", "autoencoder.onnx", "weights.data"]
    )
    assert (tmp_path / "out" / "weights.data").stat().st_size < W.nbytes + BIAS.nbytes + 64
    assert second_copies(graphs(result)) == []
    assert result.bytes_after < result.bytes_before / 2.5
    assert {name: digests(tmp_path)[name] for name in given} == given


def test_a_half_precision_decoder_takes_its_weight_from_the_encoder(tmp_path: Path) -> None:
    inputs = [
        saved(_decoder("float16"), tmp_path / "decoder.onnx"),
        saved(_encoder(), tmp_path / "encoder.onnx"),
    ]
    result = retie(inputs, tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    assert [mend.how for mend in result.mends] == ["Cast + Transpose"]
    assert second_copies(graphs(result)) == []


def test_old_files_whose_initializers_are_inputs_share_as_well(tmp_path: Path) -> None:
    """Before ONNX 1.4 every initializer was an input, too."""
    inputs = []
    for number, array in enumerate((W, np.ascontiguousarray(W.T))):
        n, k = array.shape
        text = f"g (float[N, {n}] x, float[{n}, {k}] w{number}) => (float[N, {k}] y)"
        made = model(
            f"{text} {{ y = MatMul(x, w{number}) }}", ir_version=3, opset=8, **{f"w{number}": array}
        )
        inputs.append(saved(made, tmp_path / f"{number}.onnx"))
    result = retie(inputs, tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    for path in graphs(result):
        graph = onnx.load(path, load_external_data=False).graph
        assert [tensor.name for tensor in graph.initializer] == ["w0"]
        assert [value.name for value in graph.input] == ["x", "w0"]


def test_a_name_that_means_another_weight_in_the_other_file_is_kept(tmp_path: Path) -> None:
    text = "d (float[N, 48] z) => (float[N, 80] y)"
    body = "{ h = MatMul(z, t) k = MatMul(h, w) y = MatMul(k, t) }"
    other = model(f"{text} {body}", t=np.ascontiguousarray(W.T).T.copy(), w=weight(80, 48, seed=9))
    decoder = saved(other, tmp_path / "decoder.onnx")
    encoder = saved(_encoder(), tmp_path / "encoder.onnx")
    result = retie([encoder, decoder], tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    entries = _data(graphs(result)[1])
    assert entries["t"] == _data(graphs(result)[0])["w"]
    assert not entries["w"]


@pytest.mark.parametrize("already_shared", [False, True])
def test_a_graph_goes_on_with_its_own_initializer(already_shared: bool, tmp_path: Path) -> None:
    """Whether it has the kept bytes already, or an equal copy of them beside a transposed one."""
    text = "a (float[N, 80] x) => (float[N, 80] y)"
    body = "{ z = Gemm <transB = 1> (x, u) y = Gemm <transB = 1> (z, t) }"
    tensors = {"t": np.ascontiguousarray(W.T), "u": W}
    second = saved(model(f"{text} {body}", **tensors), tmp_path / "a.onnx", external="w.data")
    first = saved(_encoder(), tmp_path / "encoder.onnx")
    if already_shared:
        made, other = onnx.load(first), onnx.load(second, load_external_data=False)
        made.graph.initializer[0].CopyFrom(other.graph.initializer[1])
        made.graph.initializer[0].name = "w"
        first.write_bytes(made.SerializeToString())
    result = retie([first, second], tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    assert list(_data(graphs(result)[1])) == ["u"]


def test_files_that_share_their_data_already_are_copied(tmp_path: Path) -> None:
    encoder = saved(_encoder(), tmp_path / "first" / "encoder.onnx", external="w.data")
    (tmp_path / "first" / "again.onnx").write_bytes(encoder.read_bytes())
    inputs = [encoder, tmp_path / "first" / "again.onnx"]
    result = retie(inputs, tmp_path / "out")
    assert result.mends == ()
    assert digests(tmp_path / "out") == digests(tmp_path / "first")
    assert result.bytes_after == result.bytes_before


def test_an_earlier_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    inputs = [
        saved(_encoder(), tmp_path / "encoder.onnx"),
        saved(_decoder(), tmp_path / "decoder.onnx"),
    ]
    retie(inputs, tmp_path / "out")
    first = digests(tmp_path / "out")
    retie(inputs, tmp_path / "out")
    assert digests(tmp_path / "out") == first
    retie(inputs[:1], tmp_path / "alone")
    assert sorted(digests(tmp_path / "alone")) == ["encoder.onnx"]


def test_a_result_is_left_as_it_is_when_retied(tmp_path: Path) -> None:
    inputs = [
        saved(_encoder(), tmp_path / "encoder.onnx"),
        saved(_decoder(), tmp_path / "decoder.onnx"),
    ]
    first = retie(inputs, tmp_path / "once")
    second = retie(graphs(first), tmp_path / "twice")
    assert second.mends == ()
    assert digests(tmp_path / "once") == digests(tmp_path / "twice")


def _in_its_own_folder(tmp_path: Path) -> tuple[list[Path], Path]:
    return [saved(_encoder(), tmp_path / "encoder.onnx")], tmp_path


def _above_its_folder(tmp_path: Path) -> tuple[list[Path], Path]:
    return [saved(_encoder(), tmp_path / "deep" / "encoder.onnx")], tmp_path


def _where_the_data_is(tmp_path: Path) -> tuple[list[Path], Path]:
    (tmp_path / "data").mkdir()
    return [saved(_encoder(), tmp_path / "e.onnx", external="data/w")], tmp_path / "data"


def _one_name(tmp_path: Path) -> tuple[list[Path], Path]:
    """Of the second the folder's name would be taken by the third."""
    names = ("a/model.onnx", "b/model.onnx", "b-model.onnx")
    return [saved(_encoder(), tmp_path / name) for name in names], tmp_path / "out"


def _named_as_the_data(tmp_path: Path) -> tuple[list[Path], Path]:
    return [saved(_encoder(), tmp_path / "weights.data")], tmp_path / "out"


def _one_file_twice(tmp_path: Path) -> tuple[list[Path], Path]:
    path = saved(_encoder(), tmp_path / "encoder.onnx")
    (tmp_path / "link.onnx").symlink_to(path)
    return [path, tmp_path / "link.onnx"], tmp_path / "out"


def _foreign_files(tmp_path: Path) -> tuple[list[Path], Path]:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    return [saved(_encoder(), tmp_path / "encoder.onnx")], tmp_path / "out"


def _a_file(tmp_path: Path) -> tuple[list[Path], Path]:
    (tmp_path / "out").write_text("precious")
    return [saved(_encoder(), tmp_path / "encoder.onnx")], tmp_path / "out"


@pytest.mark.parametrize(
    "arrange",
    [
        _in_its_own_folder,
        _above_its_folder,
        _where_the_data_is,
        _one_name,
        _named_as_the_data,
        _one_file_twice,
        _foreign_files,
        _a_file,
        lambda tmp_path: ([], tmp_path / "out"),
    ],
)
def test_nothing_is_overwritten(
    arrange: Callable[[Path], tuple[list[Path], Path]], tmp_path: Path
) -> None:
    inputs, output = arrange(tmp_path)
    before = digests(tmp_path)
    with pytest.raises(UsageError):
        retie(inputs, output)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("link", ["encoder.onnx", "in/../encoder.onnx", "other.onnx"])
def test_a_file_that_is_given_twice_is_called_that(link: str, tmp_path: Path) -> None:
    """By the same path, by another path to it, and by a link."""
    path = saved(_encoder(), tmp_path / "encoder.onnx")
    (tmp_path / "in").mkdir()
    (tmp_path / "other.onnx").symlink_to(path)
    with pytest.raises(UsageError, match="given twice"):
        retie([path, tmp_path / link], tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"atol": -1.0}, {"atol": float("nan")}, {"atol": float("inf")}, {"accept": True}],
)
def test_options_without_sense_are_refused(options: dict[str, float], tmp_path: Path) -> None:
    path = saved(_encoder(), tmp_path / "encoder.onnx")
    with pytest.raises(UsageError):
        retie([path], tmp_path / "out", **options)


def test_an_unsound_input_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    good, bad = saved(_encoder(), tmp_path / "good.onnx"), tmp_path / "bad.onnx"
    bad.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(GraphError):
        retie([good, bad], tmp_path / "out")
    assert sorted(digests(tmp_path)) == ["bad.onnx", "good.onnx"]


@pytest.mark.parametrize("when", ["write", "prove"])
def test_a_kill_leaves_nothing_half(when: str, tmp_path: Path) -> None:
    path = saved(_autoencoder(), tmp_path / "a.onnx")
    twice = saved(_decoder(), tmp_path / "d.onnx")
    retie([path, twice], tmp_path / "out")
    whole = digests(tmp_path / "out")
    owner = {"write": "write.Layout.write", "prove": "proof.prove"}[when]
    script = (
        "import sys, time\n"
        "from tiedexport import retie\n"
        "from tiedexport.retie import proof, write\n"
        f"original = {owner}\n"
        "def stop(*args):\n"
        "    result = original(*args)\n"
        "    print('here', flush=True)\n"
        "    time.sleep(60)\n"
        f"{owner} = stop\n"
        "retie.retie(sys.argv[2:], sys.argv[1])\n"
    )
    arguments = [str(tmp_path / "out"), str(path), str(twice)]
    child = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        os.kill(child.pid, signal.SIGKILL)
    assert digests(tmp_path / "out") == whole
    assert len(list(tmp_path.glob(".out.*"))) == 1
    retie([path, twice], tmp_path / "out")
    assert digests(tmp_path / "out") == whole
    assert list(tmp_path.glob(".out.*")) == []
