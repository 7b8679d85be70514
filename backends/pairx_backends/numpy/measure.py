"""Peak memory of a call on NumPy arrays: the CPU's."""

from pairx.measure import cpu_peak_bytes as peak_bytes

__all__ = ["peak_bytes"]
