"""The kernels compiled by numba; nothing outside imports more than `kernels`."""
