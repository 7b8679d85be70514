"""Make ``reference.npz`` anew. From a checkout, with mpmath, SciPy and scikit-learn: ``python src/pairx/data/make_reference.py``.

Every value comes from the published formula with 50 digits (``tests/reference.py``), so nothing of pairx that could be
wrong is in it; the inputs alone are :func:`pairx.doctor.flowers`. What SciPy or scikit-learn have as well must agree.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests"))


def compare(kind: str, name: str, x: Any, y: Any, want: Any) -> str:
    """Compare with SciPy or scikit-learn; answers which, or an empty text where neither has it."""
    import numpy as np
    from scipy.spatial import distance
    from sklearn.metrics import pairwise

    others = {
        ("distance", "haversine"): pairwise.haversine_distances,
        ("distance", "nan_euclidean"): pairwise.nan_euclidean_distances,
        ("kernel", "cosine"): pairwise.cosine_similarity,
    }
    if (kind, name) in others:
        source, got = "scikit-learn", others[kind, name](x, y)
    elif kind == "kernel":
        source, got = "scikit-learn", pairwise.pairwise_kernels(x, y, metric=name)
    elif name == "jaccard":  # SciPy takes every value that is not 0 for true
        source, got = "", want
    elif hasattr(distance, name):
        source, got = "SciPy", distance.cdist(x, y, name)
    else:
        return ""
    got = np.where(np.isfinite(got), got, want)  # 0/0, where SciPy answers NaN or inf and pairx's convention is finite
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14, err_msg=f"{source} {name}")
    return source


def main() -> None:
    """Write the file beside this one."""
    import numpy as np
    from reference import REFERENCE, reference_cdist  # type: ignore[import-not-found]

    from pairx.doctor import flowers
    from pairx.metrics import KERNELS, METRICS  # the domains of the inputs, and that none is forgotten

    tables = {"distance": METRICS, "kernel": KERNELS}
    assert {(k, n) for k, table in tables.items() for n in table} == {key for key in REFERENCE if key[0] in tables}
    values = {}
    for kind, name in sorted(key for key in REFERENCE if key[0] in tables):
        x, y = flowers(tables[kind][name].domain)
        values[f"{kind}-{name}"] = want = reference_cdist(x, y, name, kind=kind)
        print(f"{kind:9} {name:16} {compare(kind, name, x, y, want) or '-'}")
    np.savez_compressed(HERE / "reference.npz", **values)


if __name__ == "__main__":
    main()
