"""A LangChain model with addresses among its fields, in a module of its own so that it can be pickled."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import FakeListChatModel


class Placed(FakeListChatModel):
    """Goes nowhere."""

    openai_api_base: str = ""
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
