"""Exact int8 kernels for the CPU, in C++ behind ctypes; ``kernels.CpuKernels`` is the backend."""
