"""Two ways of running one ONNX graph on a batch: as it comes, or in buffers of fixed sizes that stay where they are.

A processor takes as long as a batch has items: padding costs it a third more on average and gains nothing. A GPU wants
few sizes, buffers in its own memory and, for CUDA graphs, the same addresses every time. Buffers work on both.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]
"""Name of an output -> shape of one item's."""

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(uint8)": np.dtype(np.uint8), "tensor(float)": np.dtype(np.float32)}


class Graph(Protocol):
    """A graph of one input; rows do not depend on each other."""

    def run(self, items: Array, /) -> list[Array]:
        """Items (N, ...) -> the outputs, each (N, ...)."""


class Plain:
    """Runs batches of any size as they come."""

    def __init__(self, session: Any, outputs: Shapes) -> None:
        self._session = session
        self._outputs = list(outputs)
        self._input = session.get_inputs()[0].name

    def run(self, items: Array) -> list[Array]:
        """Items (N, ...) -> the outputs, each (N, ...). Thread-safe."""
        outputs: list[Array] = self._session.run(self._outputs, {self._input: items})
        return outputs


@dataclass(frozen=True)
class _Slot:
    """What one batch size takes: where its input is put together, buffers on the device, and how to run it."""

    staging: Array
    input: Any
    outputs: list[Any]
    binding: Any
    options: Any


class Bound:
    """Runs batches padded with zeros to the next of `sizes`, in buffers of their own; what is larger is cut.

    The padding never shows: rows do not depend on each other. `record` replays each size as a CUDA graph.
    """

    def __init__(
        self, session: Any, item: tuple[int, ...], outputs: Shapes, sizes: tuple[int, ...], *, record: bool
    ) -> None:
        """`item` is the shape of one input item; `sizes` rise."""
        self._session = session
        self._item = item
        self._device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"
        self._slots = {size: self._slot(size, outputs, record=record) for size in sizes}
        self._lock = threading.Lock()  # the buffers hold one batch at a time

    def run(self, items: Array) -> list[Array]:
        """Items (N, ...) -> the outputs, each (N, ...). Thread-safe. Raises ValueError on another shape or dtype."""
        slot = next(iter(self._slots.values()))
        if items.shape[1:] != self._item or items.dtype != slot.staging.dtype:
            got, wanted = (items.dtype, items.shape[1:]), (slot.staging.dtype, self._item)
            raise ValueError(f"got items of {got[0]} {got[1]}, the graph takes {wanted[0]} {wanted[1]}")
        most = max(self._slots)
        with self._lock:
            parts = [self._run(items[start : start + most]) for start in range(0, len(items), most)]
        return parts[0] if len(parts) == 1 else [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    def _run(self, items: Array) -> list[Array]:
        count = len(items)
        slot = next(slot for size, slot in self._slots.items() if size >= count)
        slot.staging[:count] = items
        slot.staging[count:] = 0  # nothing of an earlier request stays
        slot.input.update_inplace(slot.staging)
        slot.binding.synchronize_inputs()
        self._session.run_with_iobinding(slot.binding, slot.options)
        slot.binding.synchronize_outputs()
        return [np.array(value.numpy()[:count]) for value in slot.outputs]  # on a CPU numpy() is a view of the buffer

    def _slot(self, size: int, outputs: Shapes, *, record: bool) -> _Slot:
        source = self._session.get_inputs()[0]
        staging = np.zeros((size, *self._item), _DTYPES[source.type])
        binding, options = self._session.io_binding(), ort.RunOptions()
        if record:
            options.add_run_config_entry("gpu_graph_id", str(size))
        buffer = self._buffer(staging.shape, staging.dtype)
        binding.bind_ortvalue_input(source.name, buffer)
        values = []
        for name, shape in outputs.items():
            values.append(self._buffer((size, *shape), np.dtype(np.float32)))
            binding.bind_ortvalue_output(name, values[-1])
        return _Slot(staging, buffer, values, binding, options)

    def _buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, self._device, 0)
