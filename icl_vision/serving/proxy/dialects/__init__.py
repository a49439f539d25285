"""The dialects of the three APIs: where pictures stand in a request, and how an answer is written.

Each module has ``turns(document)``, which says what a conversation holds, and ``answered(document, text)`` and
``streamed(document, text)``, which write an answer of our own. ``reading`` has what they share.

Knows: which dialect is spoken at which path. Refuses to know: what is done with a picture.
"""

from __future__ import annotations

from icl_vision.serving.proxy.dialects import chat, messages, responses
from icl_vision.serving.proxy.dialects.reading import Dialect

DIALECTS: dict[str, Dialect] = {
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": messages,
}
"""By path."""
