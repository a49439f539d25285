"""Torch networks behind the tokenizers. Imported by exporters, training and tests, never on the runtime line."""
