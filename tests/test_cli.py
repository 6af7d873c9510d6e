"""The command line: every verb on a model of images that the project has never seen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from command_line import tiedexport

from tiedexport.runtimes import Options, onnxruntime
from tiedexport.session import open_session

if TYPE_CHECKING:
    from pathlib import Path

EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_BAD_INPUT, EXIT_INTERNAL = 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130


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
    assert done.stdout.splitlines()[-1].startswith("INCOMPLETE")


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


def test_bench_sets_both_layouts_side_by_side(folder: Path) -> None:
    done = tiedexport(
        "bench", "model.tied", "--runtime", "onnxruntime", "--runtime", "torch", "--batch", "1",
        "--memory", "both", "--warmUp", "1", "--duration", "0.01", "--iterations", "3",
        "--json", "bench.json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"onnxruntime fp32 +packed", done.stdout)
    rows = msgspec.json.decode((folder / "bench.json").read_bytes())["latencies"]
    ran = {(r["runtime"], r["memory"]) for r in rows if r["status"] == "passed"}
    assert ran == {("onnxruntime", "shared"), ("onnxruntime", "packed"), ("torch", "shared")}


@pytest.mark.parametrize("memory", ["", "shared", "packed"])
def test_run_opens_the_layout_that_was_asked_for(
    memory: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = []
    session_options = onnxruntime.session_options

    def recorded(options: Options) -> Any:
        layouts.append(options.memory)
        return session_options(options)

    monkeypatch.setattr(onnxruntime, "session_options", recorded)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((5, 48), np.float32))
    asked = ["--memory", memory] if memory else []
    arguments = ["encode", "x.npy", "-o", "z.npy", "--runtime", "onnxruntime", *asked]
    done = tiedexport("run", folder / "model.tied", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert layouts[-1] == (memory or "shared")
    with open_session(folder / "model.tied", runtime="onnxruntime") as session:
        expected = session.encode(np.load(tmp_path / "x.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected, rtol=0, atol=1e-6)


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
