"""The package's version, read by ``setup.py`` and by Python."""

__version__ = "0.2.0"
