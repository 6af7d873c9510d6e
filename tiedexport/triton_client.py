"""An inference server of the open inference protocol (v2), over HTTP or gRPC, asked at once often.

Triton speaks it, and so do KServe's runtimes. NVIDIA's client does the work; its errors stop here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from tiedexport.data.extras import needed_for
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np

_DEFAULT_PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}
_TIMEOUT_S = 60.0
_CONNECTIONS = 512
"""`select`, which alone wakes at the microsecond, watches files numbered below 1,024; a request
that waits for a connection waits in the client, and an open loop counts that too."""


@dataclass(frozen=True)
class ServedModel:
    """A model as its server describes it.

    Attributes:
        name, versions: the server's own.
        inputs, outputs: name → (data type of the protocol, shape with -1 for the batch).
        parameters: of its configuration, those that are text; none where the server has no
            configuration to show.
    """

    name: str
    versions: tuple[str, ...]
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[str, tuple[int, ...]]]
    parameters: dict[str, str] = field(default_factory=dict)


class RequestFailedError(RuntimeFailedError):
    """The server refused a request or did not answer it."""


class TritonClient:
    """A client, in an `async with` statement.

    Args:
        url: http://HOST[:PORT], https://, grpc:// or grpcs://.

    Raises:
        UsageError: the URL is none of these.
        MissingRuntimeError: tritonclient is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise UsageError(
                "not the URL of a server",
                got=url,
                expected="http://HOST:PORT or grpc://HOST:PORT (with TLS https:// or grpcs://)",
            )
        self.protocol = parts.scheme.rstrip("s")
        self._tls = parts.scheme.endswith("s")
        port = "" if parts.port else f":{_DEFAULT_PORTS[parts.scheme]}"
        self._place = f"{parts.netloc}{port}{parts.path.rstrip('/')}"
        self._library, self._failures = _library(self.protocol)
        self._client: Any = None

    async def __aenter__(self) -> Self:
        if self.protocol == "grpc":
            self._client = self._library.InferenceServerClient(self._place, ssl=self._tls)
        else:
            self._client = self._library.InferenceServerClient(
                self._place, ssl=self._tls, conn_limit=_CONNECTIONS, conn_timeout=_TIMEOUT_S
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def server(self) -> str:
        """Name and version of the server.

        Raises:
            MissingRuntimeError: none answers there.
        """
        try:
            found = await self._told("get_server_metadata")
        except RequestFailedError as error:
            raise MissingRuntimeError(
                "no inference server answers",
                where=self.url,
                got=error.got,
                hint="start one: tritonserver --model-repository REPOSITORY",
            ) from error
        return f"{found['name']} {found['version']}"

    async def model(self, name: str) -> ServedModel:
        """The description of a model.

        Raises:
            UsageError: the server has no such model that is ready.
        """
        try:
            found = await self._told("get_model_metadata", name)
        except RequestFailedError as error:
            raise UsageError(
                "the server has no such model that is ready",
                where=self.url,
                got=f"{name}: {error.got}",
                expected=", ".join(sorted(await self._ready())) or "any: it names none",
                hint="name it: --model NAME, without _encoder, _decoder or _autoencoder",
            ) from error
        configuration = await self._extension("get_model_config", name)
        configuration = configuration.get("config", configuration)  # of gRPC it is one level lower
        parameters = configuration.get("parameters", {})
        return ServedModel(
            name=name,
            versions=tuple(found.get("versions", ())),
            inputs=_tensors(found["inputs"]),
            outputs=_tensors(found["outputs"]),
            parameters={key: one.get("string_value", "") for key, one in parameters.items()},
        )

    async def _ready(self) -> list[str]:
        index = await self._extension("get_model_repository_index")
        rows = index.get("models", []) if isinstance(index, dict) else index
        return [row["name"] for row in rows if row.get("state") == "READY"]

    async def _extension(self, question: str, *about: str) -> Any:
        """What Triton says beyond the protocol, as JSON would have it; {} of another server."""
        try:
            return await self._told(question, *about)
        except RequestFailedError:
            return {}

    async def _told(self, question: str, *about: str) -> Any:
        """What the server says of itself or of a model, as JSON would have it."""
        way = {"as_json": True, "client_timeout": _TIMEOUT_S} if self.protocol == "grpc" else {}
        try:
            return await getattr(self._client, question)(*about, **way)
        except self._failures as error:
            raise self._failed(error) from error

    def question(self, model: str, feeds: dict[str, np.ndarray], output: str) -> Question:
        """A request that can be sent any number of times; its bytes are made once.

        Args:
            model: its name.
            feeds: input name → array [n, ...] of float32 or float16.
            output: the name of the one that is wanted.
        """
        inputs = []
        for name, values in feeds.items():
            datatype = f"FP{values.dtype.itemsize * 8}"
            inputs.append(self._library.InferInput(name, list(values.shape), datatype))
            inputs[-1].set_data_from_numpy(values)
        wanted = self._library.InferRequestedOutput(output)
        return Question(model, inputs, [wanted], output)

    async def ask(self, question: Question) -> tuple[np.ndarray, str]:
        """The output, and the version of the model that it is of.

        Raises:
            RequestFailedError: the server refused it or did not answer.
        """
        limit = {"client_timeout": _TIMEOUT_S} if self.protocol == "grpc" else {}
        try:
            found = await self._client.infer(
                question.model, question.inputs, outputs=question.outputs, **limit
            )
            values: np.ndarray | None = found.as_numpy(question.output)
            answer = found.get_response()
        except self._failures as error:
            raise self._failed(error) from error
        if values is None:
            raise RequestFailedError(f"no output {question.output}", where=self.url)
        if self.protocol == "grpc":
            return values, answer.model_version
        return values, answer.get("model_version", "")

    def _failed(self, error: BaseException) -> RequestFailedError:
        words = str(error) or type(error).__name__
        return RequestFailedError("the server failed a request", where=self.url, got=words)


@dataclass(frozen=True)
class Question:
    """A request as NVIDIA's client has it."""

    model: str
    inputs: list[Any]
    outputs: list[Any]
    output: str


def _tensors(found: list[dict[str, Any]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {one["name"]: (one["datatype"], tuple(map(int, one["shape"]))) for one in found}


def _library(protocol: str) -> tuple[Any, tuple[type[BaseException], ...]]:
    """The module of NVIDIA's client, and what it raises."""
    with needed_for("asking a server", "tritonclient", extra="serve"):
        import aiohttp
        from tritonclient.utils import InferenceServerException

        client = import_module(f"tritonclient.{protocol}.aio")
    return client, (InferenceServerException, aiohttp.ClientError, asyncio.TimeoutError, OSError)
