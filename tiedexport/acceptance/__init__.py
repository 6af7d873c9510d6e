"""The acceptance of a GPU: in one call, everything that a machine without one cannot prove."""
