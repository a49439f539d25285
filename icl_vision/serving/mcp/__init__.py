"""Tools that see and draw, for agents by the Model Context Protocol.

    server, remarks = Kit(roots=["photos"]).assembled()         # ``kit``; then ``stdio`` or ``http``

``looking``, ``asking``, ``drawing`` and ``folders`` each hold tools over one part of the library; ``tool`` is what a
tool is, ``given`` the arguments they share, ``roots`` what a client narrows, ``server`` the SDK's server around them.

Knows: whether the official SDK is installed. Refuses to know: everything else.
"""

from icl_vision.errors import MissingExtraError

try:
    import mcp  # noqa: F401  # every module here needs it; said once, with what to install
except ImportError as error:
    raise MissingExtraError("the MCP server", "mcp") from error
