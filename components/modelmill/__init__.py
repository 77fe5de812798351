"""modelmill takes a transformer from "trained" to "promoted"."""

__version__ = "0.1.0"
