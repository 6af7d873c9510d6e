"""The examples for clusters in the documentation hold."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tiedexport.cli.encode import encode

PAGE = (Path(__file__).parents[2] / "docs/howto/encode.md").read_text()


def block(language: str) -> str:
    """The only block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_array_of_slurm_covers_every_share() -> None:
    script = block("bash")
    known = {
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_ARRAY_TASK_ID": "15",
        "SLURM_ARRAY_TASK_COUNT": "16",
    }
    printing = script.replace("tiedexport encode", "printf '%s\\n'")
    done = subprocess.run(
        ["bash", "-eu", "-c", printing], capture_output=True, text=True, check=True, env=known
    )
    parsed = encode.make_context("encode", done.stdout.splitlines()).params
    assert parsed["shard"] == (15, 16)
    assert parsed["inputs"] == ("/data/images/*.parquet",)
    assert "#SBATCH --array=0-15\n" in script


def test_the_job_of_kubernetes_is_valid_and_covers_every_share() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    validate = pytest.importorskip("kubernetes_validate", reason="no schemas of Kubernetes here")
    job = yaml.safe_load(block("yaml"))
    validate.validate(job, validate.latest_version(), strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"]]
    last = str(job["spec"]["completions"] - 1)
    words = shlex.split(shlex.join(words).replace("$(JOB_COMPLETION_INDEX)", last))
    assert encode.make_context("encode", words[2:]).params["shard"] == (15, 16)
