"""Kubernetes' objects for a server of a bundle's models, as plain data.

The fields are those of the API reference: apps/v1 Deployment, v1 Service and PersistentVolumeClaim,
autoscaling/v2 HorizontalPodAutoscaler, and KServe's serving.kserve.io/v1beta1 InferenceService.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiedexport.package.kubernetes_budget import Budget

Object = dict[str, Any]

USER = 1000
"""`triton-server` in Triton's image."""
MODELS = "/models"
SERVER = (
    "tritonserver",
    f"--model-repository={MODELS}",
    # Every model that the volume holds, and no other while the server runs: a new version comes
    # with a new pod. With "explicit" whoever reaches the port could load models of their own code.
    "--model-control-mode=none",
    "--exit-timeout-secs=30",
)
_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
_STARTS_S = 600
_BUSY_PERCENT = 70


@dataclass(frozen=True)
class Deployed:
    """What the objects tell of one bundle.

    Attributes:
        name: of every object, a DNS label.
        model: the server's name of the one that a pod must have, in this version, to be asked.
        version: of the models.
        digest: SHA-256 of the bundle's manifest: another one replaces the pods.
        image, models_image: of the server; of the models, or "" where a claim has them.
        replicas: at least and at most.
    """

    name: str
    model: str
    version: int
    digest: str
    image: str
    models_image: str
    replicas: tuple[int, int]
    budget: Budget

    @property
    def labels(self) -> dict[str, str]:
        """What selects the pods."""
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/component": "server"}

    def metadata(self) -> Object:
        """Of every object."""
        return {
            "name": self.name,
            "labels": {
                **self.labels,
                "app.kubernetes.io/version": str(self.version),
                "app.kubernetes.io/managed-by": "tiedexport",
            },
            "annotations": {"tiedexport/manifest-sha256": self.digest},
        }


def deployment(of: Deployed) -> Object:
    """The server's pods; the autoscaler says how many."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": of.metadata(),
        "spec": {
            "selector": {"matchLabels": of.labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {name: of.metadata()[name] for name in ("labels", "annotations")},
                "spec": pod(of),
            },
        },
    }


def service(of: Deployed) -> Object:
    """One address for all pods; who comes again comes to the same one, which has its version."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": of.metadata(),
        "spec": {
            "selector": of.labels,
            "sessionAffinity": "ClientIP",
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                for name, port in _PORTS.items()
            ],
        },
    }


def autoscaler(of: Deployed) -> Object:
    """As many pods as keep the requested processors busy, and not more so."""
    least, most = of.replicas
    utilization = {"type": "Utilization", "averageUtilization": _BUSY_PERCENT}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": of.metadata(),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": of.name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }


def claim(of: Deployed) -> Object:
    """The volume of models, with room for the versions that are kept and one more."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": of.metadata() | {"name": _claim_name(of)},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": f"{of.budget.storage_mib}Mi"}},
        },
    }


def inference_service(of: Deployed) -> Object:
    """KServe's own object in place of Deployment, Service and autoscaler, which it makes of it."""
    least, most = of.replicas
    metadata = of.metadata()
    metadata["annotations"]["serving.kserve.io/deploymentMode"] = "RawDeployment"
    predictor = {
        "minReplicas": least,
        "maxReplicas": most,
        "scaleMetric": "cpu",
        "scaleTarget": _BUSY_PERCENT,
        "annotations": of.metadata()["annotations"],
        **pod(of, "kserve-container", {"http": _PORTS["http"]}),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def pod(of: Deployed, name: str = "triton", ports: dict[str, int] = _PORTS) -> Object:
    """A pod that can write nowhere but in memory, and is nobody to the cluster."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(of, name, ports)],
        "volumes": [
            {"name": "models", **_models(of)},
            _memory("shared-memory", of.budget.shared_mib),
            _memory("temporary", 16),
        ],
    }


def _container(of: Deployed, name: str, ports: dict[str, int]) -> Object:
    # Over an empty volume the server itself says that it is ready.
    has_models = f"models/{of.model}/versions/{of.version}/ready"
    return {
        "name": name,
        "image": of.image,
        "command": list(SERVER),
        "ports": [
            {"name": port, "containerPort": number, "protocol": "TCP"}
            for port, number in ports.items()
        ],
        "resources": _resources(of.budget),
        # Loading reads the whole bundle and warms up: until then nobody asks whether it lives.
        "startupProbe": _probe(has_models, 5, _STARTS_S // 5),
        "livenessProbe": _probe("health/live", 10, 3),
        "readinessProbe": _probe(has_models, 5, 2),
        # The server is asked to stop when nobody sends it requests any more.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "temporary", "mountPath": "/tmp"},
        ],
    }


def _resources(budget: Budget) -> Object:
    """Memory requested is memory limited: what is mapped must not be thrown out again."""
    memory = f"{budget.memory_mib}Mi"
    devices = {"nvidia.com/gpu": str(budget.gpus)} if budget.gpus else {}
    return {
        "requests": {"cpu": str(budget.cpus), "memory": memory, **devices},
        "limits": {"cpu": str(budget.most_cpus), "memory": memory, **devices},
    }


def _probe(what: str, period_s: int, failures: int) -> Object:
    return {
        "httpGet": {"path": f"/v2/{what}", "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _memory(name: str, size_mib: int) -> Object:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": f"{size_mib}Mi"}}


def _models(of: Deployed) -> Object:
    if of.models_image:
        return {"image": {"reference": of.models_image, "pullPolicy": "IfNotPresent"}}
    return {"persistentVolumeClaim": {"claimName": _claim_name(of), "readOnly": True}}


def _claim_name(of: Deployed) -> str:
    return f"{of.name}-models"
