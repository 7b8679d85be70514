"""Benchmarks of asv: one class for each operation and for each thing that is measured of it.

Their parameters come from the tables of the project (metrics, losses, norms), and stay the same everywhere: a library or a device that
is absent raises NotImplementedError in ``setup``, and asv shows a gap. Nothing here imports an array library before ``setup``.
"""
