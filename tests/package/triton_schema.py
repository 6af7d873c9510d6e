"""Configurations of Triton's models as its own schema reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

STAGES = ("encoder", "decoder", "autoencoder")


def config_of(model: Path) -> ModelConfig:
    """The configuration in a model's folder.

    Raises:
        ParseError: the schema does not know a field, or its value has another type.
    """
    return text_format.Parse((model / "config.pbtxt").read_text("utf-8"), ModelConfig())


def parameters_of(config: ModelConfig) -> dict[str, str]:
    """What the backend is told."""
    return {key: value.string_value for key, value in config.parameters.items()}
