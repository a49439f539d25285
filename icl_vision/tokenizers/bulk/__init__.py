"""Many image files to words: in batches, in order, into files that a kill does not spoil.

Knows: which names are public. Refuses to know: how a tokenizer works.
"""

from icl_vision.tokenizers.bulk.encoding import encode_files
from icl_vision.tokenizers.bulk.files import BulkReport, tokenize_files

__all__ = ["BulkReport", "encode_files", "tokenize_files"]
