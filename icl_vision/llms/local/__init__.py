"""The LLM on this machine: GGUF files, llama.cpp's server, and scores read from it.

Knows: its modules, by their names. Refuses to know: LLMs behind a provider's API.
"""
