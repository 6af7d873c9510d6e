"""Deploy weight-tied neural networks with one physical copy of every weight."""

__version__ = "0.1.0"
