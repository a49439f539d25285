"""`icl-vision demo`: a frozen text LLM classifies photographs it has never seen, through words.

Knows: the packaged photographs, what is printed while it goes, and the two files it writes.
Refuses to know: how the items of an episode are asked, counted or drawn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    json_option,
    llm_option,
    print_json,
    progress_wanted,
    quiet_option,
    say,
    seed_option,
    tokenizer_option,
    try_out,
)
from icl_vision.errors import PyramidError, StorageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.evaluation.few_shot.episodes.drawing import Episode
    from icl_vision.evaluation.few_shot.items import ItemMaker
    from icl_vision.evaluation.kit.metrics import Accuracy
    from icl_vision.tokenizers import ImageTokenizer

WAYS, SHOTS, K = 5, 3, 5
BASELINES = ("blind", "prior", "words_prototype")
TITLE = "A language model that has never seen a picture names photographs"
ATTRIBUTION = (
    "Photographs: Li, Andreeto, Ranzato, Perona, Caltech 101 (1.0), CaltechDATA 2022, doi:10.22002/D1.20086, "
    "licence CC BY 4.0; resized and re-encoded."
)
NAMES = {"local": "Gemma 3 270M"}
LONGEST_START = 60.0


def _process_age() -> float:
    """Seconds since this process was started, as far as the system tells; 0 where it does not."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        age = uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    # A long-lived process (a notebook, a test run) was not started for this command.
    return age if 0 <= age < LONGEST_START else 0.0


# Taken when this module is imported: the interpreter's start belongs to the time a user waits.
_START_UP = _process_age()


def demo_folder() -> Path:
    """The packaged photographs, one folder per class.

    Raises:
        StorageError: they are missing from this installation.
    """
    folder = Path(__file__).resolve().parent.parent / "demo_data" / "caltech101-demo12"
    if not folder.is_dir():
        raise StorageError(f"the demo's photographs are missing at {str(folder)!r}; install icl-vision again")
    return folder


@click.command("demo", short_help="Watch a frozen text LLM classify photographs through words.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for the page (index.html) and every answer (results.json); each is replaced whole at the end.",
)
@click.option(
    "--episodes",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help=f"How many {WAYS}-way {SHOTS}-shot episodes of {WAYS} questions each; 10 keep it well under three minutes.",
)
@tokenizer_option()
@llm_option()
@seed_option()
@quiet_option
@json_option
def command(out: Path, episodes: int, tokenizer: str, llm: str, seed: int, quiet: bool, as_json: bool) -> None:
    """Watch a frozen text LLM classify photographs it has never seen.

    Each photograph becomes a few ordinary words. The LLM reads labelled examples as words and names new photographs
    from their words alone. Beside its accuracy stand three baselines on the same questions: the same LLM with the words
    withheld (blind), the most frequent label (prior), and a nearest-class rule on the same words without any LLM
    (words_prototype).
    """
    began = time.monotonic()
    try_out(out, folder=True)

    from icl_vision.evaluation.few_shot.baselines import ROWS
    from icl_vision.evaluation.few_shot.config import Setting
    from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
    from icl_vision.evaluation.few_shot.items import ItemMaker
    from icl_vision.evaluation.few_shot.pages import few_shot_page
    from icl_vision.evaluation.few_shot.scorers import LADDER
    from icl_vision.evaluation.few_shot.tally import RowInfo, Tally
    from icl_vision.evaluation.kit.remember import RememberingTokenizer
    from icl_vision.files.storage import write_json, write_text
    from icl_vision.llms import connect
    from icl_vision.tasks.classify.prompts import PromptBuilder
    from icl_vision.tasks.classify.scoring import choose_method
    from icl_vision.tokenizers import ImageTokenizer

    silent = not progress_wanted(quiet)
    folder = ImageFolder(demo_folder())
    series = folder.episodes(episodes, ways=WAYS, shots=SHOTS, seed=seed, fresh=True)
    say(f"Loading the tokenizer {tokenizer!r} and the LLM {llm!r} ...", quiet=silent)
    eyes = ImageTokenizer.from_pretrained(tokenizer)
    model = connect(llm)
    # By the best way that this LLM has; the longest labels are the most that it can be restricted to.
    method = choose_method("auto", model.profile, PromptBuilder(), sorted(folder.labels, key=len)[-WAYS:])
    row = LADDER[method]
    maker = ItemMaker(
        llm=model,
        tokenizer=RememberingTokenizer(eyes),
        k=_words_per_image(eyes),
        image=lambda path: str(folder.path(path)),
        scorers=(row.name,),
        baselines=BASELINES,
        strict=True,
    )
    setting, tally = Setting(WAYS, SHOTS), Tally()
    asked: list[list[dict[str, Any]]] = []
    for number, episode in enumerate(series):
        items: list[dict[str, Any]] = []
        for _, item in maker.answered(number, episode, [setting]):
            tally.add(item)
            items.append(item)
        asked.append(items)
        if as_json:
            say(f"episode {len(asked)} of {episodes}", quiet=silent)
        else:
            _print_episode(items, row.name, len(asked), episodes)

    result = tally.accuracy(RowInfo.of(row, "llm"), setting)
    assert result is not None  # a row that cannot be had has raised
    baselines: dict[str, Accuracy] = {}
    for name in BASELINES:
        info = RowInfo.of(ROWS[name], "baseline")
        if name == "blind" and row.scorer != "likelihood":
            info = replace(info, scorer="prefix")  # read as free text
        accuracy = tally.accuracy(info, setting)
        if accuracy is not None:
            baselines[name] = accuracy
    name = NAMES.get(llm, llm)
    facts = {
        "episodes": f"{episodes}, each {WAYS}-way {SHOTS}-shot, {WAYS} questions, seed {seed}",
        "tokenizer": tokenizer,
        "LLM": f"{name} ({llm})" if name != llm else llm,
        "questions": "no photograph is asked about twice, and none stands in its own support set",
    }
    page = few_shot_page(
        asked,
        folder,
        method=method,
        result=result,
        baselines=baselines,
        title=TITLE,
        llm=name,
        facts=facts,
        attribution=ATTRIBUTION,
    )
    seconds = round(time.monotonic() - began + _START_UP, 1)
    document: dict[str, Any] = {
        "result": result.to_dict(),
        "ways": WAYS,
        "shots": SHOTS,
        "episodes": episodes,
        "seconds": seconds,
        "baselines": {baseline: accuracy.to_dict() for baseline, accuracy in baselines.items()},
    }
    details = {
        **document,
        "seed": seed,
        "llm": llm,
        "tokenizer": tokenizer,
        "episode_results": [
            _details(episode, items, row.name, method, maker) for episode, items in zip(series, asked, strict=True)
        ],
    }
    write_json(out / "results.json", details)
    write_text(out / "index.html", page)
    if as_json:
        print_json(document)
    else:
        click.echo(f"\n{WAYS}-way {SHOTS}-shot, {counted(episodes, 'episode')}")
        for title, accuracy in {name: result, **baselines}.items():
            click.echo(f"  {title.replace('_', ' '):<16} {accuracy}")
        click.echo(f"\n{seconds:.0f} seconds. Open the page: {out / 'index.html'}")
        click.echo('Ask about a photograph of your own: icl-vision answer PHOTO --question "What is this?"')


def _words_per_image(tokenizer: ImageTokenizer) -> int | None:
    """``K`` where the tokenizer can say an image in so many words, else its own default (text pictures, say)."""
    try:
        tokenizer.layout_for(K)
    except PyramidError:
        return None
    return K


def _print_episode(items: Sequence[Mapping[str, Any]], row: str, number: int, total: int) -> None:
    """One block for a person: the classes, then every photograph with its words, the answer and the verdict."""
    click.echo(f"\nEpisode {number} of {total}: {', '.join(items[0]['labels'])}")
    for item in items:
        query, answer = item["query"], item["answers"][row]
        shares = answer["probabilities"]
        share = "" if not shares or answer["label"] is None else f" {shares[answer['label']]:.0%}"
        verdict = "right" if answer["right"] else f"WRONG, it is {query['label']}"
        said = f"{answer['label'] or 'no answer'}{share}"
        click.echo(f"  {query['image']:<20} {' '.join(query['words'][:K]):<52} -> {said:<16} {verdict}")


def _details(
    episode: Episode, items: Sequence[Mapping[str, Any]], row: str, method: str, maker: ItemMaker
) -> dict[str, Any]:
    """An episode as results.json has it."""
    pyramids = maker.tokenizer.encode([maker.image(item.path) for item in episode.queries], maker.k)
    queries = [
        {
            "image": item["query"]["image"],
            "truth": item["query"]["label"],
            "right": item["answers"][row]["right"],
            "label": item["answers"][row]["label"],
            "probabilities": item["answers"][row]["probabilities"],
            "calibrated": item["answers"][row]["calibrated"],
            "words": [pyramid.words(layer) for layer in range(1, pyramid.layers + 1)],
            "method": method,
            "text": item["answers"][row]["raw"] or "",
            "usage": item["usage"],
            "error": None,
            "baselines": {name: item["answers"][name]["label"] for name in BASELINES if name in item["answers"]},
        }
        for item, pyramid in zip(items, pyramids, strict=True)
    ]
    return {
        "number": episode.number,
        "seed": episode.seed,
        "labels": list(episode.labels),
        "support": items[0]["support"],
        "queries": queries,
    }
