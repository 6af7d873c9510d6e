"""What `package --format kubernetes` writes, against the published schemas and a real linter."""

from __future__ import annotations

import builtins
import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from command_line import tiedexport
from conftest import contents, resign
from published_schemas import check_kserve, check_kubernetes, needs_kserve

from tiedexport.bundle import MANIFEST, Bundle, file_sha256, open_bundle
from tiedexport.errors import BundleError, MissingRuntimeError, UsageError
from tiedexport.manifest import decode_manifest
from tiedexport.package import package
from tiedexport.package.kubernetes import Options, label
from tiedexport.package.kubernetes_budget import budget
from tiedexport.package.triton import model_name

NEWEST = kubernetes_validate.latest_version()
OLDEST = "1.25.0"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


def written(bundle: Bundle, folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Name of a file → the object in it."""
    package(bundle, folder, "kubernetes", **options)
    files = sorted((folder / "kubernetes").iterdir())
    return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in files}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_of_the_cluster_s_api(
    dense_bundle: Bundle, tmp_path: Path, version: str
) -> None:
    found = written(dense_bundle, tmp_path)
    assert list(found) == ["autoscaler", "claim", "deployment", "service"]
    for one in found.values():
        check_kubernetes(one, version)
    wrong = copy.deepcopy(found["deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readonlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        check_kubernetes(wrong, version)


def test_models_may_be_an_image(dense_bundle: Bundle, tmp_path: Path) -> None:
    found = written(dense_bundle, tmp_path, models_image="registry/models:3")
    assert list(found) == ["autoscaler", "deployment", "service"]
    check_kubernetes(found["deployment"], NEWEST)
    volume = found["deployment"]["spec"]["template"]["spec"]["volumes"][0]
    assert volume["image"]["reference"] == "registry/models:3"


@needs_kserve
def test_an_inference_service_is_one_of_kserve_s_api(dense_bundle: Bundle, tmp_path: Path) -> None:
    written(dense_bundle, tmp_path)
    found = written(dense_bundle, tmp_path, kserve=True)
    assert list(found) == ["claim", "inference-service"]  # what it replaces is gone
    service = found["inference-service"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    check_kserve(service, "V1beta1InferenceService", NEWEST)
    for wrong in ({"maxReplica": 3}, {"maxReplicas": "3"}, {"volumes": [{"nam": "models"}]}):
        broken = copy.deepcopy(service)
        broken["spec"]["predictor"] |= wrong
        with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
            check_kserve(broken, "V1beta1InferenceService", NEWEST)


@pytest.mark.parametrize("kserve", [False, True])
def test_a_pod_writes_nowhere_and_is_nobody(
    dense_bundle: Bundle, tmp_path: Path, kserve: bool
) -> None:
    pod = _pod(written(dense_bundle, tmp_path, kserve=kserve))
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/models"]["readOnly"] is True
    assert volumes["models"]["persistentVolumeClaim"]["readOnly"] is True
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")
    }
    model = f"{model_name(dense_bundle.manifest.name)}_encoder"
    assert (tmp_path / "models" / model / "1").is_dir()
    # Not "health/ready": a server without models says that it is ready.
    assert probes["startup"] == {"path": f"/v2/models/{model}/versions/1/ready", "port": "http"}
    assert probes["readiness"] == probes["startup"]
    assert probes["liveness"] == {"path": "/v2/health/live", "port": "http"}


def _pod(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if "inference-service" in found:
        return found["inference-service"]["spec"]["predictor"]
    return found["deployment"]["spec"]["template"]["spec"]


def test_memory_is_weights_once_a_version_and_processes_of_which_the_comment_tells(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    found = written(dense_bundle, tmp_path, instances=3, threads=2, max_batch=1 << 16)
    limits = _pod(found)["containers"][0]["resources"]
    assert limits["requests"] == {"cpu": "6", "memory": limits["limits"]["memory"]}
    assert limits["limits"]["cpu"] == "18"
    text = (tmp_path / "kubernetes/deployment.yaml").read_text("utf-8")
    weights, server, instances, exchange, total = re.findall(r"^#   (.*)$", text, re.MULTILINE)
    reckoned = [
        2 * int(re.search(r"x (\d+) MiB of weights", weights)[1]),
        int(re.search(r"(\d+) MiB of server", server)[1]),
        18 * int(re.search(r"18 instances .* x (\d+) MiB", instances)[1]),
        int(re.search(r"(\d+) MiB of /dev/shm", exchange)[1]),
    ]
    assert sum(reckoned) == int(re.search(r"= (\d+) MiB", total)[1])
    assert 1.25 * sum(reckoned) <= int(limits["limits"]["memory"].removesuffix("Mi"))
    shared = _pod(found)["volumes"][1]["emptyDir"]["sizeLimit"]
    assert shared == f"{reckoned[3]}Mi"  # 18 x (1 + 2 x 65,536 rows of 20 float32, 5 MiB)
    assert reckoned[3] == 18 * 11


def test_heavier_weights_ask_for_twice_their_bytes(plain: Path) -> None:
    options = Options(precision="fp32")
    before = budget(open_bundle(plain), options)
    manifest = open_bundle(plain).manifest
    weights = manifest.weights[next(iter(manifest.weights))]
    files = dict(manifest.files)
    files[weights] = type(files[weights])(files[weights].size_bytes + (512 << 20), "0" * 64)
    resign(plain, files=files)
    heavier = Bundle(plain, decode_manifest((plain / MANIFEST).read_bytes(), plain))
    added = budget(heavier, options).memory_mib - before.memory_mib
    assert 1.25 * 1024 <= added <= 1.25 * 1024 + 64


def test_a_gpu_is_asked_for_where_one_is_needed(dense_bundle: Bundle, tmp_path: Path) -> None:
    found = written(dense_bundle, tmp_path, device="gpu")
    limits = _pod(found)["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert "tiedexport[gpu]==" in (tmp_path / "Dockerfile").read_text("utf-8")
    check_kubernetes(found["deployment"], NEWEST)


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint for this machine")
@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
def test_the_dockerfile_is_clean_and_copies_what_is_there(
    dense_bundle: Bundle, tmp_path: Path, backend: str
) -> None:
    found = written(dense_bundle, tmp_path, backend=backend, precision="fp32")
    path = tmp_path / "Dockerfile"
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    text = path.read_text("utf-8")
    sources = re.findall(r"^COPY (\S+) \S+$", text, re.MULTILINE)
    assert sources == (["models", "wheels"] if backend == "python" else ["models"])
    assert all((tmp_path / source).is_dir() for source in sources)
    ignored = (tmp_path / ".dockerignore").read_text("utf-8").split()
    assert {f"!{source}" for source in sources} < set(ignored)
    started = json.loads(re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1])
    assert started == _pod(found)["containers"][0]["command"]
    assert "--model-control-mode=none" in started  # else clients may load models of their own
    assert ("pip install" in text) == (backend == "python")  # Triton's own backends need it not
    assert text.rindex("USER 1000") > text.rindex("FROM ")


def test_models_are_those_of_the_triton_format_and_a_new_version_replaces_the_pods(
    dense_bundle: Bundle, plain: Path, tmp_path: Path
) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    package(dense_bundle, other, "triton", name="m")
    first = written(dense_bundle, one, name="m")
    assert contents(one / "models") == contents(other)
    written(dense_bundle, same, name="m")
    written(dense_bundle, same, name="m")
    assert contents(one) == contents(same)
    digest = file_sha256(dense_bundle.path / MANIFEST)
    assert _told(first) == ("1", digest)
    resign(plain, created="2001-01-01T00:00:00Z")
    second = written(open_bundle(plain), one, name="m")
    assert _told(second) == ("2", file_sha256(plain / MANIFEST))
    selects = second["service"]["spec"]["selector"]
    assert selects.items() <= second["deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert selects == first["service"]["spec"]["selector"]  # a selector cannot change


def _told(found: dict[str, dict[str, Any]]) -> tuple[str, str]:
    told = found["deployment"]["spec"]["template"]["metadata"]
    labels, annotations = told["labels"], told["annotations"]
    return labels["app.kubernetes.io/version"], annotations["tiedexport/manifest-sha256"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "digits"),
        ("Digits_v2.1", "digits-v2-1"),
        ("2024 run", "run"),
        ("x" * 80, "x" * 56),
        ("--a--", "a"),
    ],
)
def test_names_of_objects_are_dns_labels(name: str, expected: str) -> None:
    assert label(name) == expected
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", f"{label(name)}-models")


def test_a_name_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UsageError, match="no name for an object"):
        label("2024")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"image": "two words"}, "not the name of an image"),
        ({"models_image": "Upper:Case"}, "not the name of an image"),
        ({"min_replicas": 0}, "not a range of pods"),
        ({"min_replicas": 3, "max_replicas": 2}, "not a range of pods"),
        ({"colour": "red"}, "options that kubernetes does not have"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    dense_bundle: Bundle, tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        package(dense_bundle, tmp_path / "out", "kubernetes", **wrong)
    assert not (tmp_path / "out").exists()


def test_without_pyyaml_it_says_what_to_install(
    dense_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ImportError("No module named 'yaml'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingRuntimeError, match="pip install 'tiedexport\\[serve\\]'"):
        package(dense_bundle, tmp_path / "out", "kubernetes")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_to_type_next(dense_bundle: Bundle, tmp_path: Path) -> None:
    options = ("--format", "kubernetes", "-o", "cluster", "--max-replicas", "9", "--image", "r/s:1")
    done = tiedexport("package", dense_bundle.path, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: kubectl apply -f cluster/kubernetes" in done.stdout
    autoscaler = yaml.safe_load((tmp_path / "cluster/kubernetes/autoscaler.yaml").read_text())
    assert autoscaler["spec"]["maxReplicas"] == 9


def test_a_backend_that_the_bundle_has_nothing_for_writes_no_objects(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="no engine of the"):
        package(dense_bundle, tmp_path, "kubernetes", backend="tensorrt")
    assert not (tmp_path / "kubernetes").exists()
