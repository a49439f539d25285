"""From torch modules to the artefact folders that the runtime reads: one module per tokenizer, and shared parity
checks. Needs the extra ``train``; never imported on the runtime line."""
