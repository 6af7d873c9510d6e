"""TensorRT plans on the device: weights that all share, and contexts that one thread may use.

All of it goes through cuda.core and a TensorRT module handle. Addresses that a context or a graph
holds stay valid because their owners are kept: a session closes graphs, contexts, engines and
weights, in that order.
"""

from tiedexport.device.engine import Engine
from tiedexport.device.execution import Execution
from tiedexport.device.gpu import Gpu, memory_bytes
from tiedexport.device.weights import DeviceWeights

__all__ = ["DeviceWeights", "Engine", "Execution", "Gpu", "memory_bytes"]
