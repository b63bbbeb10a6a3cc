#!/usr/bin/env python3
"""Writes the .npy and .safetensors files in this folder with the Python libraries.

The tests read the committed files and need no Python; run this by hand (pip install numpy 'safetensors>=0.8')
to make them again. Values are 0, 1, 2, ... times a factor, so that tests can state them.
"""
import pathlib

import numpy as np
from safetensors import TensorSpec, serialize_file
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def values(dtype, shape, factor=1):
    return (np.arange(int(np.prod(shape))) * factor).reshape(shape).astype(dtype)


def write_version(name, array, version):
    with open(HERE / name, "wb") as file:
        np.lib.format.write_array(file, array, version=version)


def npy():
    np.save(HERE / "f8.npy", values("<f8", (2, 3), 0.5))
    np.save(HERE / "f4.npy", values("<f4", (5,), -0.25))
    np.save(HERE / "i8.npy", values("<i8", (2, 2, 2), -(2**40)))
    np.save(HERE / "i4.npy", values("<i4", (3, 1), 1000))
    np.save(HERE / "u1.npy", values("u1", (4,), 60))
    np.save(HERE / "b1.npy", np.array([True, False, True]))
    np.save(HERE / "scalar.npy", np.float32(1.5))
    np.save(HERE / "empty.npy", np.zeros((0, 3), "<f4"))
    np.save(HERE / "fortran.npy", np.asfortranarray(values("<f4", (2, 3, 4))))
    np.save(HERE / "big_endian.npy", values(">f4", (2, 3), 0.5))
    np.save(HERE / "big_endian_i8.npy", values(">i8", (3,), 2**33))
    np.save(HERE / "half.npy", values("<f2", (3,)))
    np.save(HERE / "structured.npy", np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))
    np.save(HERE / "seven_dims.npy", np.zeros((1,) * 7, "<f4"))
    write_version("version2.npy", values("<f4", (2, 2)), (2, 0))
    write_version("version3.npy", values("<f4", (2, 2)), (3, 0))


def safetensors():
    save_file(
        {
            "weight": values("<f4", (2, 3), 0.5),
            "layers.0.bias": values("<f8", (3,), -0.25),
            "steps": np.array(7, "<i8"),
            "ids": values("<i4", (2, 2), 10),
            "mask": values("u1", (3,)),
            "none": np.zeros((0, 4), "<f4"),
        },
        HERE / "mixed.safetensors",
        metadata={"format": "np, \u00fc\n"},
    )
    bits = np.array([0x3F80, 0xC000, 0x7F80], "<u2")  # 1, -2, inf
    bf16 = TensorSpec(dtype="bfloat16", shape=[3], data_ptr=bits.ctypes.data, data_len=bits.nbytes)
    serialize_file({"x": bf16}, HERE / "bf16.safetensors")
    save_file({"x": values("<f2", (3,))}, HERE / "half.safetensors")
    save_file({}, HERE / "nothing.safetensors")


if __name__ == "__main__":
    npy()
    safetensors()
