"""Weights in safetensors: 8 bits with one scale for each output channel (symmetric) where there are many."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from db.errors import ModelRefused
from workers.trained_models import File, TrainedModel, read_checked

Floats = dict[str, NDArray[np.float32]]
SCALE = ".scale"
ENCODING = "int8 per output channel; small kernels float16"
HALVES = "float16"
ARROW = ">"  # in the name of what is stored for int8: a range between two places of the network, not a weight

# Kernels below this many weights keep 16 bits. Those are the early layers: 6 % of a ResNet-50, and rounding them
# to 8 bits moved scores by up to 0.019 where rounding all the others moved them by 0.001.
SMALL = 200_000


def pack(weights: Floats) -> dict[str, NDArray[np.generic]]:
    """Store large kernels (two axes or more, the last one output channels) in 8 bits and small ones in 16; what has
    one axis (biases, statistics) stays float32."""
    packed: dict[str, NDArray[np.generic]] = {}
    for name, values in weights.items():
        if values.ndim < 2:
            packed[name] = values
        elif values.size < SMALL:
            packed[name] = values.astype(np.float16)
        else:
            packed[name + SCALE] = scale = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0) / np.float32(127)
            packed[name] = np.rint(values / np.maximum(scale, np.finfo(np.float32).tiny)).astype(np.int8)
    return packed


def pack_halves(weights: Floats) -> dict[str, NDArray[np.generic]]:
    """Store kernels in 16 bits, for networks that 8 bits would change; what has one axis stays float32."""
    return {name: values if values.ndim < 2 else values.astype(np.float16) for name, values in weights.items()}


def unpack(packed: dict[str, NDArray[np.generic]]) -> Floats:
    """Give back float32 weights from what `pack` made."""
    return {
        name: values.astype(np.float32) * packed[name + SCALE].astype(np.float32)
        if name + SCALE in packed
        else values.astype(np.float32)
        for name, values in packed.items()
        if not name.endswith(SCALE)
    }


def read(folder: Path, model: TrainedModel) -> Floats:
    """Read a trained model's weights as float32. Raises ModelRefused if the file is altered or no safetensors."""
    return unpack(read_arrays(folder, model.weights))


def at_int8(values: Floats, stored: Floats) -> Floats:
    """Weights with what belongs to int8 (workers.networks.quantised) among them: ranges, and biases corrected for what
    rounding shifts on average. Raises ModelRefused where a bias is none of the network's."""
    biases = {name: array for name, array in stored.items() if ARROW not in name}
    for name, array in biases.items():
        if name not in values or values[name].shape != array.shape:
            raise ModelRefused(f"int8: the network has no {name} of shape {array.shape}")
    return {**values, **stored}


def read_arrays(folder: Path, wanted: File) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of one safetensors file. Raises ModelRefused if it is altered or of another kind."""
    content = read_checked(folder, wanted)
    try:
        arrays: dict[str, NDArray[np.generic]] = load(content)
    except Exception as error:  # safetensors raises its own class, and others, on a malformed header
        raise ModelRefused(f"{folder / wanted.file} is not a safetensors file: {error}") from error
    return arrays
