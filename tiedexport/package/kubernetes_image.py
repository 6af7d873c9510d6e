"""The Dockerfile of the server's image, and of one that holds the models alone."""

from __future__ import annotations

TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:25.08-py3"
"""Has every backend, CUDA, and a Python that tiedexport supports; starts without a GPU too."""

IGNORED = "*\n!models\n!wheels\n"
"""Of .dockerignore: what the Dockerfile copies, and nothing else."""

WHEELS = """\
pip looks here before it asks an index. For a tiedexport that is not on one, put its wheel here:
make wheel leaves it in dist/.
"""

_TEMPLATE = """\
# Written by tiedexport. Build the server, and where models are deployed as an image, those too:
#   docker build --target server --tag {image} .
#   docker build --target models --tag {models_image} .

FROM scratch AS models
COPY models /

FROM {base} AS server
{installed}USER {user}
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \\
  CMD ["curl", "--fail", "--silent", "http://127.0.0.1:8000/v2/health/ready"]
{command}
"""

_INSTALLED = """\
COPY wheels /wheels
# The image serves and does nothing else: it may put packages where Debian's own are.
RUN python3 -m pip install --no-cache-dir --break-system-packages --find-links /wheels \\
      "tiedexport[{extra}]=={version}" && \\
    python3 -c 'import tiedexport' && \\
    rm -rf /wheels
ENV OMP_NUM_THREADS={threads}
"""


def dockerfile(
    *,
    version: str,
    image: str,
    models_image: str,
    extra: str,
    threads: int,
    user: int,
    command: str,
) -> str:
    """The text of a Dockerfile.

    Args:
        version: of tiedexport, which runs inside.
        image: what the server is to be called.
        models_image: what the models are to be called.
        extra: of tiedexport: the runtime that is installed with it; "" where Triton's own backends
            run all.
        threads: that a numeric library may start.
        user: number of the one that the server runs as, who exists in Triton's image.
        command: the instruction that starts the server.
    """
    installed = _INSTALLED.format(extra=extra, version=version, threads=threads)
    return _TEMPLATE.format(
        base=TRITON_IMAGE,
        installed=installed if extra else "",
        image=image,
        models_image=models_image,
        user=user,
        command=command,
    )
