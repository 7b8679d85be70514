"""Peak memory of a call on Dask arrays, which has to compute them: that of all threads of this process."""

from pairx.measure import cpu_peak_bytes as peak_bytes

__all__ = ["peak_bytes"]
