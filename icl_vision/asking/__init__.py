"""One prompt prefix, many queries, any kind of answer.

Knows: prompts, LLMs, answers. Refuses to know: labels and images.
"""
