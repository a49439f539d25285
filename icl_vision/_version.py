"""The version, in the one place that everything else reads it from (pyproject.toml, the package, the CLI)."""

__version__ = "0.1.0"
