"""The packaged router on lines that it was not fitted to, beside a prior and a list of keywords.

    python benchmarks/router.py --out FILE.json
    python benchmarks/router.py --llm local --out FILE.json      # lines on which it abstains are put to an LLM
    python benchmarks/router.py --package                        # fit the packaged router anew, and write its card

benchmarks/router_lines.jsonl holds the lines: twelve languages, written apart from the instructions and frozen before
the router first met them. Lines that have the template of an instruction which wants the same (``same_template`` looks)
make a row of their own and count in no other. router_lines_first, _second and _third are earlier ones: what the router
did on them showed which instructions it lacked, so they measure nothing now; what it did when it met each for the first
time is kept beside (results/router_first.json and so on). Figures: docs/text-to-image.md.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.contracts import TextLLM
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.files.storage import sha256_file, write_json
from icl_vision.llms import connect
from icl_vision.probabilities.measuring import reliability
from icl_vision.text_to_image.router import ROUTER_FILE, Router, packaged_lines
from icl_vision.text_to_image.routing.lines import Instruction, read_instructions

LINES = Path(__file__).resolve().parent / "router_lines.jsonl"

# What somebody would write first: draws where any of these begins a word (or, in Chinese, stands anywhere).
KEYWORDS = (
    "draw", "paint", "sketch", "picture", "image", "photo", "illustrat", "drawing", "zeichn", "mal", "bild", "skizz",
    "dessin", "peins", "peindre", "croquis", "dibuj", "pint", "imagen", "boceto", "disegn", "dipin", "immagin",
    "schizz", "desenh", "imagem", "esboç", "teken", "schilder", "schets", "afbeelding", "narysuj", "namaluj", "obraz",
    "szkic", "rysun", "нарису", "картин", "рисун", "изображ", "набросок", "çiz", "resim", "resmi", "görsel", "gambar",
    "lukis", "sketsa", "画", "图",
)  # fmt: skip


def keyword(line: str) -> str:
    """The route by the list of keywords."""
    text = line.casefold()
    found = any(re.search(rf"\b{re.escape(word)}", text) or (word in "画图" and word in text) for word in KEYWORDS)
    return "draw" if found else "text"


def same_template(lines: Sequence[Instruction], instructions: Sequence[Instruction]) -> list[tuple[str, str]]:
    """Lines that fit a template of their language and route, each with it: case, marks and spaces do not count."""

    def bare(text: str) -> str:
        return " ".join(re.sub(r"[^\w{}]+", " ", text.casefold()).split())

    patterns = [
        (one.language, one.route, one.template, re.sub(r"\\\{\w+\\\}", ".+", re.escape(bare(one.template))))
        for one in instructions
    ]
    return [
        (line.template, template)
        for line in lines
        for language, route, template, pattern in patterns
        if (language, route) == (line.language, line.route) and re.fullmatch(pattern, bare(line.template))
    ]


def row(lines: Sequence[Instruction], chosen: Sequence[str | None]) -> dict[str, Any]:
    """How often a way of routing is right; None: it abstains."""
    sure = [(one, name) for one, name in zip(lines, chosen, strict=True) if name is not None]
    texts = [(one, name) for one, name in zip(lines, chosen, strict=True) if one.route == "text"]
    return {
        "right_of_sure": Accuracy.of((name == one.route for one, name in sure), "route").to_dict(),
        "right_of_all": Accuracy.of(
            (name == one.route for one, name in zip(lines, chosen, strict=True)), "route"
        ).to_dict(),
        "abstained": Accuracy.of((name is None for name in chosen), "abstained").to_dict(),
        "text_drawn": Accuracy.of((name == "draw" for _, name in texts), "drawn").to_dict(),
    }


def measure(router: Router, lines: Sequence[Instruction], llm: TextLLM | None) -> dict[str, Any]:
    """Every row on the same lines."""
    told = [router.route(one.template) for one in lines]
    own = [None if route.by == "unsure" else route.name for route in told]
    prior = "text" if router.facts["routes"]["text"] >= router.facts["routes"]["draw"] else "draw"
    rows: dict[str, dict[str, Any]] = {
        "router": row(lines, own),
        "router, unsure lines in text": row(lines, [route.name for route in told]),
        "router, no threshold": row(lines, ["draw" if route.probability >= 0.5 else "text" for route in told]),
        "keywords": row(lines, [keyword(one.template) for one in lines]),
        "prior": row(lines, [prior] * len(lines)),
    }
    if llm is not None:
        asked = [router.route(one.template, llm) for one in lines]
        rows["router, then the LLM"] = row(lines, [route.name for route in asked])
        rows["router, then the LLM"]["unread"] = sum(
            route.reply is not None and route.by == "unsure" for route in asked
        )
        unsure = [place for place, route in enumerate(told) if route.by == "unsure"]
        rows["the LLM on lines where the router is unsure"] = row(
            [lines[place] for place in unsure], [asked[place].name for place in unsure]
        )
    likelier = [max(route.probability, 1 - route.probability) for route in told]
    hits = [(route.probability >= 0.5) == (one.route == "draw") for one, route in zip(lines, told, strict=True)]
    sure = [place for place, name in enumerate(own) if name is not None]
    fits: dict[str, Callable[[], Any]] = {
        "all": lambda: reliability(likelier, hits),
        "sure": lambda: reliability([likelier[place] for place in sure], [hits[place] for place in sure]),
    }
    by_language = {
        language: row(*(list(some) for some in zip(*pairs, strict=True)))
        for language in dict.fromkeys(one.language for one in lines)
        if (pairs := [(one, name) for one, name in zip(lines, own, strict=True) if one.language == language])
    }
    wrong = [
        {"text": one.template, "language": one.language, "wants": one.route, "got": route.to_dict()}
        for one, route, name in zip(lines, told, own, strict=True)
        if name is not None and name != one.route
    ]
    return {
        "rows": rows,
        "calibration": {name: fit().to_dict() for name, fit in fits.items()},
        "languages": by_language,
        "wrong_where_sure": wrong,
        "unsure": [one.template for one, name in zip(lines, own, strict=True) if name is None],
    }


def package() -> None:
    """Fit the packaged router to the packaged instructions, and write its card."""
    folder = packaged_lines().parent
    router = Router.fit(packaged_lines())
    router.save(folder / ROUTER_FILE)
    names = (packaged_lines().name, ROUTER_FILE)
    card = {
        "format_version": 1,
        "name": folder.name,
        "kind": "router",
        "description": "Instructions in twelve languages, written for this library, and a router fitted to them.",
        "licence": "Apache-2.0",
        **header(seed=0),
        "fitted_to": {name: router.facts[name] for name in ("templates", "routes", "languages", "lines")},
        "held_out": router.facts["held_out"],
        "files": {name: sha256_file(folder / name) for name in names},
    }
    write_json(folder / "card.json", card)
    print(router, router.calibration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", help="a router's file; default: the packaged one")
    parser.add_argument("--lines", default=str(LINES), help="lines with their routes")
    parser.add_argument("--llm", help="an LLM for lines on which the router abstains")
    parser.add_argument("--out", help="where the figures go")
    parser.add_argument("--package", action="store_true", help="fit the packaged router anew")
    options = parser.parse_args()
    if options.package:
        package()
        return
    router = Router.load(options.router) if options.router else Router.packaged()
    given = read_instructions(options.lines)
    shared = {line for line, _ in same_template(given, read_instructions(packaged_lines()))}
    lines = [one for one in given if one.template not in shared]
    known = [one for one in given if one.template in shared]
    document = {
        **header(seed=0),
        "lines": {"n": len(lines), "sha256": sha256_file(Path(options.lines)), "of_a_known_template": len(known)},
        "router": {**router.facts, "features": len(router.names)},
        "llm": options.llm,
        **measure(router, lines, connect(options.llm) if options.llm else None),
    }
    if known:
        told = [router.route(one.template) for one in known]
        document["rows"]["router, on known templates with other things"] = row(
            known, [None if route.by == "unsure" else route.name for route in told]
        )
    if options.out:
        write(options.out, document)
    print(json.dumps({name: document[name] for name in ("lines", "rows", "calibration")}, indent=1))
    for one in document["wrong_where_sure"]:
        print(one["wants"], round(one["got"]["probability"], 3), one["text"])


if __name__ == "__main__":
    main()
