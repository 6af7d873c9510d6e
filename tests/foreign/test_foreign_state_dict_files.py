"""State dicts as files: what is refused, what an option may say, and what the command prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from command_line import tiedexport
from torch import nn

from tiedexport.bundle import open_bundle
from tiedexport.errors import CheckpointError, UsageError
from tiedexport.foreign import checkpoint
from tiedexport.foreign.brought import Asked
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quick_export")

ASKED = Asked(family="autoencoder")


def tied() -> dict[str, Any]:
    """20 → 13 → 7 and back, nn.Linear on both sides."""
    torch.manual_seed(0)
    one, two = nn.Linear(20, 13), nn.Linear(13, 7)
    other, last = nn.Linear(7, 13), nn.Linear(13, 20)
    other.weight, last.weight = (
        nn.Parameter(layer.weight.detach().t().contiguous()) for layer in (two, one)
    )
    parts = {"encoder": nn.Sequential(one, two), "decoder": nn.Sequential(other, last)}
    return dict(nn.ModuleDict(parts).state_dict())


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "weights.pt")
    return folder / "weights.pt"


def test_without_a_family_the_option_is_named(tmp_path: Path):
    saved(tied(), tmp_path)
    for asked in (Asked(), Asked(family="conv")):
        with pytest.raises(UsageError, match="which model") as caught:
            checkpoint(tmp_path / "weights.pt", asked)
        assert caught.value.expected == "--family autoencoder"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "swish"}, "relu"),
        ({"widths": "3"}, "read off the weights"),
        ({"speed": "3"}, "activation, code, output"),
    ],
)
def test_a_setting_that_the_family_does_not_have_is_refused(options, words, tmp_path: Path):
    asked = Asked(family="autoencoder", settings=options)
    with pytest.raises(UsageError) as caught:
        checkpoint(saved(tied(), tmp_path), asked)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("alter", "match"),
    [
        (lambda s: {k: v.half() for k, v in s.items()}, "not a float32 tensor"),
        (lambda s: {k: v * torch.inf for k, v in s.items()}, "not finite"),
        (lambda s: s | {"epoch": 3}, "not a state dict"),
        (lambda s: {}, "not a state dict"),
    ],
)
def test_content_that_is_no_usable_state_dict_is_refused(alter, match: str, tmp_path: Path):
    path = saved(alter(tied()), tmp_path)
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint(path, ASKED)
    assert str(path) in str(caught.value.where)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("m.safetensors", b"text", "unreadable weights"),
        ("m.safetensors", None, "no such file"),
        ("m.pt", b"text", "unreadable|refused"),
        ("m.pt", None, "no such checkpoint"),
    ],
)
def test_damaged_and_missing_files_are_refused(name, content, match: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        checkpoint(tmp_path / name, ASKED)


def test_the_command_says_what_it_assumed_and_its_bundle_passes(tmp_path: Path):
    saved(tied(), tmp_path)
    done = tiedexport(
        "build", "weights.pt", "--family", "autoencoder", "--set", "activation=tanh", "--target",
        "none", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in (
        "weights.pt: read as an autoencoder 20 → 13 → 7",
        "tied: encoder.0 and decoder.1, encoder.1 and decoder.0",
        "so assumed: code=activated, output=sigmoid; change one with --set",
        "random in [0, 1)",
    ):
        assert words in done.stderr
    bundle = open_bundle(tmp_path / "weights.tied")
    assert bundle.manifest.config["activation"] == "tanh"
    assert bundle.manifest.parameter_count == 20 * 13 + 13 * 7 + 13 + 7 + 13 + 20
    assert verify(bundle).passed


def test_a_setting_without_a_value_is_an_error_of_usage(tmp_path: Path):
    done = tiedexport("build", "m.pt", "--set", "activation", cwd=tmp_path)
    assert done.returncode == 2
    assert "FIELD=VALUE" in done.stderr
