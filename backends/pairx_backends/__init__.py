"""The array libraries that pairx ships with, one folder each; found through the entry points ``pairx.backends``."""
