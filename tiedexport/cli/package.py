"""`tiedexport package`."""

from __future__ import annotations

from typing import Any

import click

from tiedexport.cli.options import PATH, comma_separated, common


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.option("--format", required=True, help="triton or kubernetes.")
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True,
              help="The folder to write, or to add a version to.")  # fmt: skip
@click.option("--backend", type=click.Choice(["python", "onnxruntime", "tensorrt"]),
              help="Triton's. Default: python.")  # fmt: skip
@click.option("--name", help="Of the models; default: the bundle's.")
@click.option("--runtime", help="Of each instance. Default: auto, the best where it starts.")
@click.option("--precision", help="fp32, fp16 or bf16; default: the runtime's best.")
@click.option("--threads", type=click.IntRange(min=1), help="Of each instance. Default: 1.")
@click.option("--instances", type=click.IntRange(min=1), help="Of each model. Default: 1.")
@click.option(
    "--device", type=click.Choice(["cpu", "gpu"]), help="Default: gpu for tensorrt, else cpu."
)
@click.option("--max-batch", type=click.IntRange(min=1),
              help="Rows that the server puts together at most. Default: 64.")  # fmt: skip
@click.option("--preferred-batch", callback=comma_separated(int), metavar="8,64",
              help="Rows at which it waits for no more.")  # fmt: skip
@click.option("--queue-delay", "queue_delay_us", type=click.IntRange(min=0), metavar="MICROSECONDS",
              help="How long a row waits for others. Default: 100.")  # fmt: skip
@click.option("--check", type=click.Choice(["hash", "size"]),
              help="Of the bundle, by each instance that starts. Default: hash.")  # fmt: skip
@click.option("--server", metavar="URL",
              help="A running server: it is told to load what was written.")  # fmt: skip
@click.option("--image", metavar="REGISTRY/NAME:TAG",
              help="Of the pods; default: tiedexport-server:VERSION.")  # fmt: skip
@click.option("--models-image", metavar="REGISTRY/NAME:TAG",
              help="Of the models, as a volume; default: a claim has them.")  # fmt: skip
@click.option("--kserve", is_flag=True, default=None,
              help="An InferenceService in place of a Deployment.")  # fmt: skip
@click.option("--min-replicas", type=click.IntRange(min=1), help="Pods at least. Default: 1.")
@click.option("--max-replicas", type=click.IntRange(min=1), help="Pods at most. Default: 4.")
@common
def package(quiet: bool, **arguments: Any) -> None:
    """Write a bundle in the form that a server or a cluster takes.

    triton: a model repository. Encoder, decoder and autoencoder become three models of one version,
    and share one copy of the weights. A repository that has them gets the next version.

    kubernetes: such a repository, a Dockerfile, and a Deployment with Service and autoscaler.
    """
    from tiedexport import package as verb

    given = {name: value for name, value in arguments.items() if value is not None}
    written = verb.package(**given)
    if not quiet:
        models = ", ".join(written.models)
        click.echo(f"{written.output}: version {written.version} of {models}")
        click.echo(f"next: {written.next}")
