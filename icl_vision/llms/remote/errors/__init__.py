"""What went wrong at a provider, read from statuses, headers, bodies and other people's exceptions.

Knows: forms of errors. Refuses to know: when to ask again, which is ``resilience``.
"""
