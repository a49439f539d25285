"""`icl-vision eval few-shot`: the papers' few-shot tables on any images, tokenizer and LLM, as one resumable run.

Knows: option names, and how results read in a terminal. Refuses to know: how anything is asked or counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from icl_vision.cli.options.common import (
    ListsCommand,
    json_option,
    kept,
    llm_option,
    print_json,
    progress_wanted,
    quiet_option,
    say,
    seed_option,
    task_options,
    tokenizer_option,
    trust_option,
    try_out,
)
from icl_vision.cli.options.runs import RunOptions, run_options, slotted
from icl_vision.errors import UsageError
from icl_vision.files.trust import Reader
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.evaluation.few_shot.benchmark import FewShotBenchmark

_CONFIG = "icl_vision.cli.eval.few_shot.config"


def _defaults(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Values of --config become the defaults of the other options: what the command line says counts more."""
    if path is not None:
        ctx.meta[_CONFIG] = path
        ctx.default_map = {**(ctx.default_map or {}), **_read_config(path, ctx.command)}
    return path


@click.command(name="few-shot", cls=ListsCommand)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.yaml",
    is_eager=True,
    expose_value=False,
    callback=_defaults,
    help="Options as a YAML mapping, names as here without dashes (episodes: 400). What the command line says counts "
    "more. Default: none.",
)
@click.option(
    "--data",
    required=True,
    metavar="DIR|EPISODES.json",
    type=click.Path(exists=True, path_type=Path),
    help="A folder with a sub-folder of images for each class; the episodes of an earlier run (its episodes.json, or "
    "--save-episodes); or an extracted few-shot archive (Frozen's, VL-ICL's).",
)
@click.option(
    "--images",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the images of an episode file lie. Default: beside the file; with --trust the folder that it names.",
)
@trust_option
@click.option(
    "--ways",
    multiple=True,
    type=click.IntRange(min=2),
    default=(2, 5),
    show_default="2 5",
    metavar="N...",
    help="Numbers of classes; the papers' two tables by default. Each has a series of episodes of its own.",
)
@click.option(
    "--settings",
    multiple=True,
    default=("all",),
    show_default="all",
    metavar="all|ID...",
    help="Columns of the table: all seven of the papers for each of --ways; or ids as 5w-1s-3r-i (ways, inner shots, "
    "repeats, i or n for with or without task induction), or without ways (1s-3r-i).",
)
@click.option(
    "--episodes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Episodes for each number of ways, one question each. Default: 100 drawn ones (an interval of about 10 points "
    "at 80%), or all of an episode file.",
)
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Words per image; 5 is what the papers compare.",
)
@tokenizer_option()
@llm_option()
@click.option(
    "--labels",
    type=click.Choice(["real", "nonsense"]),
    default="real",
    show_default=True,
    help="Names of the classes: their own, as in the tables of LQAE and SPAE, or made-up ones that only the examples "
    "explain.",
)
@click.option(
    "--scorers",
    multiple=True,
    default=("all",),
    show_default="all",
    metavar="all|NAME...",
    help="Ways to read the LLM's answer: exact, exact_normalised, prefix, substring (one open-ended answer), "
    "likelihood (the classifier's own path), direct, calibrated, constrained.",
)
@click.option(
    "--baselines",
    multiple=True,
    default=("all",),
    show_default="all",
    metavar="all|none|NAME...",
    help="Rows beside the LLM's, on the same questions. All by default, since an accuracy alone says little; only "
    "blind and untrained ask the LLM.",
)
@click.option(
    "--controls",
    multiple=True,
    default=("none",),
    show_default="none",
    metavar="none|all|NAME...",
    help="Rows in which something is taken away: shuffled_labels, shuffled_words, withheld, ascii, second_llm. None by "
    "default: each costs as much as the row it controls.",
)
@click.option(
    "--control-episodes",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Controls, and the untrained baseline, are asked in the first so many episodes, to save time.",
)
@click.option(
    "--control-scorer",
    default="likelihood",
    show_default=True,
    metavar="NAME",
    help="The scorer by which controls and the untrained baseline are asked: the strongest row by default.",
)
@click.option("--template", default="classification", show_default=True, help="Prompt template, by name.")
@click.option(
    "--templates",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your own templates, looked in first. Default: the packaged ones only.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE...",
    help="Any other option of FewShotClassifier for the likelihood row, as scoring=direct or ensemble=null "
    "(probabilities=raw holds for every row that gives any); VALUE is read as YAML. Default: the classifier's own.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help="Episodes asked about at the same time. Default: 1 for an LLM on this machine, whose cores one fills, 8 for "
    "others.",
)
@click.option(
    "--quoted/--no-quoted",
    default=True,
    show_default=True,
    help="Show published figures beside the measured ones, marked as quoted.",
)
@click.option(
    "--save-episodes",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the episodes to this file too. Default: only to episodes.json in --out.",
)
@run_options
@seed_option()
@json_option
@quiet_option
def command(
    data: Path,
    images: Path | None,
    trust: bool,
    ways: tuple[int, ...],
    settings: tuple[str, ...],
    episodes: int | None,
    k: int,
    tokenizer: str,
    llm: str,
    labels: str,
    scorers: tuple[str, ...],
    baselines: tuple[str, ...],
    controls: tuple[str, ...],
    control_episodes: int,
    control_scorer: str,
    template: str,
    templates: Path | None,
    options: tuple[str, ...],
    concurrency: int | None,
    quoted: bool,
    save_episodes: Path | None,
    run: RunOptions,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Few-shot accuracy in the papers' settings, with every scorer, baselines and controls.

    Draws seeded episodes from --data, asks each question once for all rows, and journals every finished one in --out;
    after a stop of any kind the same command with --resume goes on. Prints the table (per cents with 95% intervals),
    and writes results.json and report.html into --out. What it will take is said first (with --resume, what is left);
    with --dry-run nothing else is done.
    """
    from icl_vision.evaluation.few_shot.baselines import ROWS
    from icl_vision.evaluation.few_shot.benchmark import FewShotBenchmark
    from icl_vision.evaluation.few_shot.config import BenchmarkConfig, parse_settings
    from icl_vision.evaluation.few_shot.controls.controls import parse_controls
    from icl_vision.evaluation.few_shot.scorers import LLM_ROWS

    if not trust:
        _check_paths(click.get_current_context())
    run.needs_out()
    if save_episodes is not None:
        try_out(save_episodes, folder=False)
    config = BenchmarkConfig(
        settings=parse_settings(settings, ways),
        episodes=episodes,
        seed=seed,
        k=k,
        labels=labels,  # type: ignore[arg-type]  # click.Choice saw to it
        scorers=_named(scorers, tuple(LLM_ROWS)),
        baselines=_named(baselines, tuple(ROWS)),
        controls=tuple(control.name for control in parse_controls(controls)),
        control_episodes=control_episodes,
        control_scorer=control_scorer,
        options={"template": template, "templates": templates, **task_options(options)},
        quoted=quoted,
    )
    parts = run.connect(slotted(llm), tokenizer)
    benchmark = FewShotBenchmark(
        data, llm=parts.llm, tokenizer=parts.tokenizer, config=config, images=images, trust=trust
    )
    if save_episodes is not None:
        benchmark.episode_set.save(save_episodes)
    going_on = run.out if run.resume else None
    if run.dry_run:
        estimate = benchmark.estimate(going_on)
        print_json(estimate.to_dict()) if as_json else click.echo(str(estimate))
        return
    if not quiet:
        estimate = benchmark.estimate(going_on)
        say(str(estimate) if estimate.items else "every question has an answer; nothing is asked")
    _run(benchmark, run, concurrency or (1 if benchmark.llm.profile.embedded else 8), as_json=as_json, quiet=quiet)
    parts.report(quiet=quiet)


def _run(benchmark: FewShotBenchmark, run: RunOptions, concurrency: int, *, as_json: bool, quiet: bool) -> None:
    from icl_vision.evaluation.few_shot.tally import render_reliability, render_rows, render_table

    assert run.out is not None
    with kept(run.out, quiet=quiet):
        finished = benchmark.run(
            run.out,
            resume=run.resume,
            concurrency=concurrency,
            progress=progress_wanted(quiet),
            say=lambda text: say(text, quiet=quiet),
            prices=None if run.prices is None else run.price_table(),
        )
    from icl_vision.viz.benchmark.page import write_report

    page = write_report(finished.folder, images=benchmark.episode_set.root)
    if as_json:
        print_json(finished.results)
    else:
        click.echo(render_rows(finished.results) + "\n\n" + render_table(finished.results))
        if fits := render_reliability(finished.results):
            click.echo("\n" + fits)
    say(
        f"{counted(finished.asked, 'question')} asked, {finished.kept:,} known from before, "
        f"{finished.failed:,} failed; results in {finished.folder / 'results.json'}, page in {page}",
        quiet=quiet,
    )
    if finished.failed:
        # A failure is no remark: --quiet keeps it.
        failed = counted(finished.failed, "question")
        say(f"{failed} failed, not counted in the figures; --resume asks again. The first was")
        say(finished.problem)
        raise click.exceptions.Exit(1)


def _named(names: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The rows that are named, in the order of the table; "all" and "none" stand alone. Unknown names are kept."""
    if "all" in names or "none" in names:
        if len(set(names)) > 1:
            raise UsageError(f"'all' and 'none' stand alone; got {', '.join(names)}")
        return known if "all" in names else ()
    ordered = [name for name in known if name in names]
    return (*ordered, *(name for name in dict.fromkeys(names) if name not in known))


_PATHS = ("data", "images", "templates", "prices", "out", "save_episodes")


def _check_paths(context: click.Context) -> None:
    """Raises UntrustedNameError where --config, and not the command line, says something that leads elsewhere."""
    from icl_vision.tokenizers import zoo

    def said(name: str) -> Any:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT_MAP:
            return None
        return context.params.get(name, (context.default_map or {}).get(name))

    reader = Reader(str(context.meta.get(_CONFIG)), how="--trust")
    if said("llm") is not None:
        reader.llm(str(said("llm")), "--llm SPEC")
    if said("tokenizer") is not None:
        reader.packaged("tokenizer", str(said("tokenizer")), zoo.available(), "--tokenizer NAME")
    for name in _PATHS:
        if said(name) is not None:
            option = "--" + name.replace("_", "-")
            reader.place(option.removeprefix("--"), str(said(name)), f"{option} on the command line")
    for text in said("options") or ():
        if text.partition("=")[0].strip().replace("-", "_") == "templates":
            reader.place("folder of templates", text.partition("=")[2], "--templates DIR")


def _read_config(path: Path, command: click.Command) -> dict[str, Any]:
    """The values of a --config file by parameter name.

    Raises:
        UsageError: not a mapping, or a key that is no option.
    """
    from icl_vision.files.reading import read_yaml

    try:
        document = read_yaml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {str(path)!r} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"--config {str(path)!r} must be a mapping of option names to values")
    options = {
        option.lstrip("-"): param
        for param in command.params
        if isinstance(param, click.Option)
        for option in param.opts
        if option.lstrip("-") not in ("config", "resume", "dry-run", "trust")
    }
    values: dict[str, Any] = {}
    for key, value in document.items():
        name = str(key).replace("_", "-")
        if name not in options:
            raise UsageError(f"--config {str(path)!r}: {key!r} is no option; there are {', '.join(sorted(options))}")
        if name == "option" and isinstance(value, dict):
            value = [f"{option}={json.dumps(given)}" for option, given in value.items()]
        if options[name].multiple and not isinstance(value, list):
            value = [value]
        values[str(options[name].name)] = value
    return values
