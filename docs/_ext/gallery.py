"""The gallery: sphinx-gallery runs docs/plots and takes each figure as SVG."""

from __future__ import annotations

from typing import Any

from sphinx_gallery.scrapers import matplotlib_scraper


def svg(*args: Any, **kwargs: Any) -> str:
    """Figures as SVG: sharp at any size, and small."""
    return str(matplotlib_scraper(*args, format="svg", **kwargs))


def style(conf: Any, name: str) -> None:
    """What all figures share."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update(
        {
            "figure.figsize": (7.2, 4.2),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.grid": False,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "svg.hashsalt": "pairx",
            "axes.prop_cycle": matplotlib.cycler(color=["#0b6e99", "#d9730d", "#4d8b31", "#ad1a72", "#64473a", "#6940a5"]),
        }
    )


SETTINGS: dict[str, Any] = {
    "examples_dirs": "plots",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "image_scrapers": (svg,),
    "reset_modules": (style,),
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "copyfile_regex": r"",
    "write_computation_times": False,
    "backreferences_dir": None,
    "notebook_extensions": set(),
    "only_warn_on_example_error": False,
}
