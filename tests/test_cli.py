"""The command line: every verb on a model of images that the project has never seen."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from tiedexport.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_BAD_INPUT, EXIT_INTERNAL = 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130

RECIPE = """
[model]
family = "autoencoder"
widths = [48, 24, 6]

[data]
source = "images.npz"

[training]
epochs = 3
batch_size = 8
"""


@dataclass
class Done:
    """What a call of the command line left behind."""

    returncode: int
    stdout: str
    stderr: str


def tiedexport(*arguments: object, cwd: Path) -> Done:
    """The command line in this process, with output that is no terminal, 80 columns wide."""
    words = [str(argument) for argument in arguments]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["tiedexport", *words])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stop:
            main()
    code = stop.value.code
    assert isinstance(code, int)
    return Done(code, *(_text(stream) for stream in (out, err)))


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.npz, a recipe, and what train and build made of them."""
    path = tmp_path_factory.mktemp("unseen")
    random = np.random.default_rng(7)
    stripes = np.sin(np.arange(48).reshape(6, 8) * random.uniform(0.1, 1.0, (90, 1, 1)))
    np.savez(path / "images.npz", images=((stripes + 1) * 127).astype(np.uint8))
    (path / "stripes.toml").write_text(RECIPE)
    for arguments in (
        ("train", "stripes.toml", "-o", "model.pt"),
        ("build", "model.pt", "--target", "none"),
    ):
        done = tiedexport(*arguments, cwd=path)
        assert done.returncode == 0, done.stderr
    return path


def test_train_prints_the_test_error_beside_the_untied_twin_and_pca(folder: Path) -> None:
    done = tiedexport("train", "stripes.toml", "-o", "again.pt", "--json", "-", cwd=folder)
    assert done.returncode == 0, done.stderr
    record = msgspec.json.decode(done.stdout)["record"]
    assert 0 < record["test_rmse"] < 1
    assert record["untied_parameters"] > record["parameters"]
    assert record["data"]["source"] == "images.npz"


def test_a_bare_build_makes_the_bundle_beside_the_checkpoint(folder: Path) -> None:
    assert (folder / "model.tied" / "manifest.json").is_file()


def test_verify_passes_and_ends_with_the_command_that_repeats_it(folder: Path) -> None:
    done = tiedexport("verify", "model.tied", "--require", "onnxruntime", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r"PASSED in [\d.]+ s: tiedexport verify model.tied --require onnxruntime", last
    )


def test_verify_writes_json_with_a_schema_and_a_verdict(folder: Path) -> None:
    done = tiedexport("verify", "model.tied", "--runtime", "onnxruntime", "--json", "-", cwd=folder)
    result = msgspec.json.decode(done.stdout)
    assert (result["schema"], result["passed"]) == (1, True)
    assert {row["runtime"] for row in result["comparisons"]} == {"onnxruntime"}
    assert {row["status"] for row in result["quality"]} == {"passed"}


def test_verify_with_a_required_runtime_missing_exits_3(folder: Path) -> None:
    done = tiedexport("verify", "model.tied", "--require", "onnxruntime-cuda", cwd=folder)
    if "onnxruntime-cuda fp32" in done.stdout:
        pytest.skip("this machine has onnxruntime-cuda")
    assert done.returncode == EXIT_MISSING
    assert "FAILED" in done.stdout.splitlines()[-1]


def test_verify_of_a_damaged_bundle_exits_4(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged.tied"
    subprocess.run(["cp", "-r", folder / "model.tied", copy], check=True)
    with (copy / "weights.fp32.safetensors").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x55")
    done = tiedexport("verify", copy, cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert "weights.fp32.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_reports_every_batch_and_says_what_did_not_run(folder: Path) -> None:
    done = tiedexport(
        "bench", "model.tied", "--batch", "1,3", "--warmUp", "1", "--duration", "0.01",
        "--iterations", "3", "--percentile", "50,90", "--json", "-", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = msgspec.json.decode(done.stdout)["latencies"]
    ran = [row for row in rows if row["status"] == "passed"]
    assert {row["batch"] for row in ran} == {1, 3}
    assert all(set(row["percentiles_s"]) == {"p50", "p90"} for row in ran)
    assert all(row["reason"] for row in rows if row["status"] == "not run")


@pytest.mark.parametrize(("verb", "shape"), [("encode", (5, 6)), ("reconstruct", (5, 48))])
def test_run_writes_the_stage_s_output(folder: Path, verb: str, shape: tuple[int, ...]) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).random((5, 6, 8)))
    done = tiedexport("run", "model.tied", verb, "x.npy", "-o", "y.npy", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert np.load(folder / "y.npy").shape == shape


def test_run_takes_the_images_that_train_takes(folder: Path) -> None:
    images = np.load(folder / "images.npz")["images"][:4]
    np.save(folder / "bytes.npy", images)
    np.save(folder / "floats.npy", images.astype(np.float32) / np.float32(255))
    for name in ("bytes", "floats"):
        done = tiedexport(
            "run", "model.tied", "encode", f"{name}.npy", "-o", f"{name}-z.npy", cwd=folder
        )
        assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(folder / "bytes-z.npy"), np.load(folder / "floats-z.npy"))


def test_run_decodes_what_it_encoded(folder: Path) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).random((2, 48), dtype=np.float32))
    for verb, source, target in (
        ("encode", "x", "z"),
        ("decode", "z", "y"),
        ("reconstruct", "x", "r"),
    ):
        done = tiedexport(
            "run", "model.tied", verb, f"{source}.npy", "-o", f"{target}.npy", cwd=folder
        )
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(folder / "y.npy"), np.load(folder / "r.npy"), rtol=0, atol=1e-6
    )


def test_inspect_names_stages_ties_files_and_training(folder: Path) -> None:
    done = tiedexport("inspect", "model.tied", cwd=folder)
    assert done.returncode == 0, done.stderr
    for word in (
        "encoder",
        "decoder",
        "autoencoder",
        "layers.0.weight",
        "weights.fp16",
        "images.npz",
    ):
        assert word in done.stdout


def test_doctor_names_every_runtime_and_what_to_install(folder: Path) -> None:
    done = tiedexport("doctor", "--json", "-", cwd=folder)
    assert done.returncode == 0
    components = msgspec.json.decode(done.stdout)["components"]
    assert {"torch", "reference", "onnxruntime", "tensorrt"} <= {row["name"] for row in components}
    for row in components:
        availability = row["availability"]
        assert availability["available"] or (availability["reason"] and availability["remedy"])


def test_dry_runs_print_the_plan_and_write_nothing(folder: Path, tmp_path: Path) -> None:
    train = tiedexport("train", folder / "stripes.toml", "--data", folder / "images.npz",
                       "-o", tmp_path / "m.pt", "--dry-run", cwd=folder)  # fmt: skip
    build = tiedexport("build", "model.pt", "-o", tmp_path / "b.tied", "--dry-run", cwd=folder)
    assert (train.returncode, build.returncode) == (0, 0), train.stderr + build.stderr
    assert "48" in train.stdout
    assert "b.tied" in build.stdout
    assert not list(tmp_path.iterdir())


def test_nothing_but_results_reaches_a_quiet_terminal(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.tied"
    done = tiedexport("build", "model.pt", "-o", output, "--target", "none", "-q", cwd=folder)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, tmp_path: Path) -> None:
    done = tiedexport("--print-completion", shell, cwd=tmp_path)
    assert done.returncode == 0
    assert "_TIEDEXPORT_COMPLETE" in done.stdout


def test_an_engine_that_was_asked_for_and_cannot_be_built_exits_3_and_leaves_the_bundle(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b.tied"
    done = tiedexport("build", "model.pt", "-o", output, "--target", "tensorrt", cwd=folder)
    if done.returncode == 0:
        pytest.skip("this machine builds TensorRT engines")
    assert done.returncode == EXIT_MISSING
    assert tiedexport("inspect", output, cwd=folder).returncode == 0


def test_a_bundle_that_stands_survives_a_build_whose_engine_fails(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b.tied"
    assert (
        tiedexport("build", "model.pt", "-o", output, "--target", "none", cwd=folder).returncode
        == 0
    )
    before = (output / "manifest.json").read_bytes()
    done = tiedexport("build", "model.pt", "-o", output, "--target", "rtx:sm999", cwd=folder)
    assert done.returncode == EXIT_MISSING, done.stdout
    assert "sm999" in done.stderr
    assert (output / "manifest.json").read_bytes() == before


def test_a_build_that_is_told_to_stop_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tiedexport", "build", "model.pt", "-o", tmp_path / "b.tied"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as build:
        while not list(tmp_path.iterdir()):
            assert build.poll() is None, "the build ended before it could be stopped"
            time.sleep(0.01)
        build.send_signal(signal.SIGTERM)
        _, words = build.communicate()
    assert build.returncode == EXIT_INTERRUPTED
    assert "interrupted" in words
    assert not list(tmp_path.iterdir())


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_pickle_that_would_execute_something_exits_4_and_executes_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"state": _Malicious()}))
    done = tiedexport("build", "model.pt", cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build", "absent.pt"], EXIT_BAD_INPUT, "absent.pt"),
        (["verify", "absent.tied"], EXIT_BAD_INPUT, "absent.tied"),
        (["train", "absent.toml"], EXIT_BAD_INPUT, "absent.toml"),
        (["frobnicate"], EXIT_USAGE, "frobnicate"),
        (["build", "m.pt", "--opset", "5"], EXIT_USAGE, "18<=x<=23"),
        (["build", "m.pt", "--target", "none", "--target", "rtx"], EXIT_USAGE, "none"),
        (["bench", "x.tied", "--batch", "1,two"], EXIT_USAGE, "two"),
        (["run", "x.tied", "dream", "x.npy", "-o", "y.npy"], EXIT_USAGE, "dream"),
    ],
)
def test_wrong_input_names_itself_and_has_its_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    done = tiedexport(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "model.pt", "--precision", "fp33"],
        ["build", "model.pt", "--precision", ""],
        ["bench", "model.tied", "--stage", "attic"],
        ["build", "model.pt", "--target", "abacus"],
        ["verify", "model.tied", "--runtime", "abacus"],
        ["run", "model.tied", "encode", "x.npy", "-o", "y.npy", "--runtime", "abacus"],
    ],
)
def test_names_that_do_not_exist_exit_2(arguments: list[str], folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros((1, 48), np.float32))
    done = tiedexport(*arguments, cwd=folder)
    assert done.returncode == EXIT_USAGE, done.stderr
    assert "expected" in done.stderr


def test_a_fault_of_ours_exits_5_and_says_how_to_report_it(tmp_path: Path) -> None:
    script = (
        "import tiedexport.doctor, tiedexport.__main__\n"
        "def fail(): raise KeyError('planted')\n"
        "tiedexport.doctor.doctor = fail\n"
        "tiedexport.__main__.main(['doctor'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == EXIT_INTERNAL
    assert "planted" in done.stderr
    assert "report" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["train", "r.toml"], ["build", "m.pt"], ["demo"]], ids=str)
def test_a_target_without_torch_learns_what_to_install_for_authoring(
    arguments: list[str], tmp_path: Path
) -> None:
    script = (
        f"import sys; sys.modules['torch'] = None\n"
        f"import tiedexport.__main__; tiedexport.__main__.main({arguments!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == EXIT_MISSING, done.stderr
    assert "torch" in done.stderr
    assert "pip install 'tiedexport[train]'" in done.stderr
    assert "Traceback" not in done.stderr
