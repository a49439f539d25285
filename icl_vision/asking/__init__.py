"""One prompt prefix, many queries, any kind of answer.

A task says which queries share a prefix, what is put to the LLM about each and what a reply means (``inquiries.ask``);
it gets results in the order of its queries, each of them or the error in its place. ``many`` asks so about any number
of items and keeps every result in a run folder (``jobs.Journal``); ``plan`` counts what would be sent.

Knows: prompts, inquiries, replies, LLMs. Refuses to know: labels, images, what is made of an answer.
"""
