"""The proxy: a client that sends pictures in front, an LLM that has only read text behind.

    client --> headers, body --> dialects --> conversation --> edits of the body --> upstream --> the answer, as it is
                                              (over words.py)                        embedded

Nothing is translated between APIs: a request goes on to the path it came in on, and of its body only the pictures
change. Which parts are pictures is a dialect's to know, what is said of them ``conversation``'s, where they stand in
the bytes ``spans``'s.

Knows: its modules, by their names. Refuses to know: how any of it works.
"""
