"""A client's roots take away from the folders the server may read, and never add to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import INTERNAL_ERROR, ErrorData, ListRootsResult, Root

from icl_vision.serving.mcp.roots import folder_of


def naming(*roots: str | Path) -> Callable[[Any], Any]:
    """What a client answers to the question for its roots."""

    async def answer(context: Any) -> ListRootsResult:
        uris = [root if isinstance(root, str) else root.as_uri() for root in roots]
        return ListRootsResult(roots=[Root(uri=uri) for uri in uris])

    return answer


async def described(world: Any, era: str, path: str, callback: Any) -> Any:
    async with Client(world.server(), mode=era, list_roots_callback=callback) as client:
        return await client.call_tool("describe_image", {"path": path})


async def test_a_root_inside_narrows(world: Any, era: str) -> None:
    assert not (await described(world, era, "blue.png", naming(world.root / "below"))).is_error
    assert not (await described(world, era, str(world.root / "below/blue.png"), naming(world.root / "below"))).is_error
    assert (await described(world, era, "red.png", naming(world.root / "below"))).is_error
    assert (await described(world, era, str(world.root / "red.png"), naming(world.root / "below"))).is_error


async def test_a_root_around_or_the_same_changes_nothing(world: Any, era: str) -> None:
    assert not (await described(world, era, "red.png", naming(world.root.parent))).is_error
    assert not (await described(world, era, "red.png", naming(world.root))).is_error


async def test_a_root_elsewhere_gives_nothing(world: Any, era: str, text_of: Any) -> None:
    for named in (naming(world.outside), naming(), naming("file://other-machine/photos")):
        for path in ("red.png", str(world.outside / "secret.png"), "secret.png"):
            result = await described(world, era, path, named)
            assert result.is_error and "outside-canary" not in text_of(result)


async def test_a_link_of_the_clients_is_followed_before_it_is_judged(world: Any, era: str, tmp_path: Path) -> None:
    (world.root / "away").symlink_to(world.outside, target_is_directory=True)
    assert (await described(world, era, "secret.png", naming(world.root / "away"))).is_error
    (tmp_path / "same").symlink_to(world.root, target_is_directory=True)
    assert not (await described(world, era, "red.png", naming(tmp_path / "same"))).is_error


async def test_folders_are_narrowed_too(world: Any, era: str, text_of: Any) -> None:
    async with Client(world.server(), mode=era, list_roots_callback=naming(world.root / "below")) as client:
        whole = await client.call_tool("tokenize_folder", {"folder": ".", "out": "a.jsonl"})
        other = await client.call_tool("tokenize_folder", {"folder": "..", "out": "b.jsonl"})
    assert whole.structured_content["images"] == 1
    assert other.is_error and "no folder that may be read" in text_of(other)


async def test_bytes_need_no_roots(world: Any, era: str, encoded: str) -> None:
    async def never(context: Any) -> ErrorData:
        raise AssertionError("asked for roots without need")

    async with Client(world.server(), mode=era, list_roots_callback=never) as client:
        assert not (await client.call_tool("describe_image", {"image": encoded})).is_error
    async with Client(world.server(roots=()), mode=era, list_roots_callback=never) as client:
        assert not (await client.call_tool("describe_image", {"image": encoded})).is_error


async def test_a_client_that_declares_roots_and_names_none_reads_nothing(world: Any, text_of: Any) -> None:
    async def failing(context: Any) -> ErrorData:
        return ErrorData(code=INTERNAL_ERROR, message="not now")

    result = await described(world, "legacy", "red.png", failing)
    assert result.is_error and "declares roots" in text_of(result)


async def test_more_roots_than_are_looked_at(world: Any, era: str, text_of: Any) -> None:
    result = await described(world, era, "red.png", naming(*[world.root] * 300))
    assert result.is_error and "300 roots" in text_of(result)


def test_addresses_of_folders(tmp_path: Path) -> None:
    spaced = tmp_path / "my photos ü"
    assert folder_of(spaced.as_uri()) == spaced
    assert folder_of(f"file://localhost{tmp_path.as_posix()}") == tmp_path
    for address in ("file://elsewhere/photos", "https://localhost/photos", "file:///a%00b", "file:photos", "photos"):
        assert folder_of(address) is None


@pytest.mark.skipif(os.name == "nt", reason="file addresses read otherwise there")
def test_an_address_with_more_than_a_path_is_none() -> None:
    assert folder_of("file:///photos?x=1") is None and folder_of("file:///photos#x") is None
    assert folder_of("file:///a%23b") == Path("/a#b")
