"""The few-shot benchmark: every setting of the papers, every scorer, baselines and controls, as one resumable run.

    from icl_vision.evaluation import BenchmarkConfig, FewShotBenchmark

    benchmark = FewShotBenchmark("photos/", config=BenchmarkConfig(episodes=100))
    print(benchmark.estimate())
    results = benchmark.run("runs/photos")

One item is an episode's question in one setting, put to every row. Each finished item is journalled before it counts
(``icl_vision.files.runs``); killed at any moment, the run goes on with ``resume=True``. Memory does not grow with the
number of episodes: they are read from their file one at a time, and results are summed up from the journal.

Knows: the order of items, who works on them, when to stop. Refuses to know: how a question is asked (``items``), how
results are counted (``tally``), commands and pages.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision import checks
from icl_vision.asking.jobs import progress_bar
from icl_vision.errors import ImageError
from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.config import BenchmarkConfig, Estimate, Setting, prompt_hash
from icl_vision.evaluation.few_shot.controls.controls import UNTRAINED, Setup, Variant, prepare_variants
from icl_vision.evaluation.few_shot.episodes import sets
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder
from icl_vision.evaluation.few_shot.episodes.loaders import detect, load_archive
from icl_vision.evaluation.few_shot.episodes.names import nonsense_names
from icl_vision.evaluation.few_shot.episodes.sets import save_episodes
from icl_vision.evaluation.few_shot.items import ItemMaker, estimate, item_id
from icl_vision.evaluation.few_shot.published import quoted
from icl_vision.evaluation.few_shot.scorers import LLM_ROWS, UnaskedLLM
from icl_vision.evaluation.few_shot.tally import RowInfo, Tally, means
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.evaluation.kit.running import Keeper, machine
from icl_vision.files.runs import Run, check_config, read_info, read_results, versions
from icl_vision.probabilities.packaged import knows_llm
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.llms.cost import PriceTable

COMMAND = "eval few-shot"
KIND = "few-shot"
FORMAT_VERSION = 1

DRAWN = 100
"""Episodes drawn of each number of ways, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended.

    folder: the run's. results: as in results.json. asked, kept, failed: items. problem: of the first that failed.
    """

    folder: Path
    results: dict[str, Any]
    asked: int
    kept: int
    failed: int
    problem: str = ""


class FewShotBenchmark:
    """A benchmark on one set of images, with one LLM and one tokenizer.

    Args:
        data: a folder of class folders, or an episode file (``icl_vision.evaluation.few_shot.episodes.sets``).
        llm: under test; a ``connect`` string or a ``TextLLM``.
        tokenizer: a name, a folder or a ``Tokenizer``.
        config: what is asked.
        images: of an episode file: the folder of its images; None where they lie beside it.
        trust: follow an episode file's own names, such as the folder that it says its images lie in.

    The episodes are drawn (or checked against their hashes) here, before any LLM is asked.

    Raises:
        UsageError: too few classes or images, an image that is not the one of the episode file, and the like.

    >>> results = FewShotBenchmark("photos/", config=BenchmarkConfig(episodes=50)).run("runs/photos")  # doctest: +SKIP
    >>> results.results["cells"][0]["accuracy"]  # doctest: +SKIP
    {'accuracy': 0.82, 'n': 50, 'interval': [0.69, 0.9], 'scorer': 'exact'}
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "words-photo",
        config: BenchmarkConfig | None = None,
        images: str | os.PathLike[str] | None = None,
        trust: bool = False,
    ) -> None:
        from icl_vision.llms import connect

        self.config = config or BenchmarkConfig()
        self._temporary = Path(tempfile.mkdtemp(prefix="icl-vision-episodes-"))
        weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        self.episode_set = self._episode_set(Path(data), None if images is None else Path(images), trust)
        fewest = min(self.episode_set.sizes.get(ways, (0, 0))[0] for ways in self.config.shots)
        self.episodes = fewest if self.config.episodes is None else self.config.episodes
        for ways, shots in self.config.shots.items():
            self.episode_set.require(ways, shots=shots, episodes=self.episodes)
        self.llm = connect(llm)
        if isinstance(tokenizer, str | os.PathLike):
            from icl_vision.tokenizers import ImageTokenizer

            tokenizer = ImageTokenizer.from_pretrained(os.fspath(tokenizer))
        remembers = isinstance(tokenizer, RememberingTokenizer)
        self.tokenizer: Tokenizer = tokenizer if remembers else RememberingTokenizer(tokenizer)

    def _episode_set(self, data: Path, images: Path | None, trust: bool) -> sets.EpisodeSet:
        target, seed = self._temporary / "episodes.json", self.config.seed
        archive = detect(data)
        if archive is not None and archive.has_episodes:
            loaded = [load_archive(data, ways=ways, seed=seed) for ways in self.config.shots]
            save_episodes(target, (episode for episodes, _ in loaded for episode in episodes))
            return sets.read(target, loaded[0][1])
        if os.path.isdir(data):
            count = self.config.episodes or DRAWN
            return sets.draw(ImageFolder(data), target, shots=self.config.shots, episodes=count, seed=seed)
        return sets.read(data, images, trust=trust)

    # What would be done.

    def run_config(self) -> dict[str, Any]:
        """What decides the results, as plain JSON: a run goes on only with the same."""
        config = self.config
        return {
            "icl_vision": versions().get("icl-vision"),
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "tokenizer": self.tokenizer.name,
            "tokenizer_hash": fingerprint(self.tokenizer),
            "k": config.k,
            "episodes": self.episodes,
            "questions": self.episode_set.digest,
            "seed": config.seed,
            "labels": config.labels,
            "settings": [setting.id for setting in config.settings],
            "scorers": list(config.scorers),
            "baselines": list(config.baselines),
            "controls": list(config.controls),
            "control_episodes": config.control_episodes,
            "control_scorer": config.control_scorer,
            "options": config.classifier,
            "prompt": prompt_hash(config.options),
            **({"probabilities": "calibrated"} if self._calibrates() else {}),
        }

    def _calibrates(self) -> bool:
        """Whether a row's probabilities may be calibrated ones; where not, they are raw whatever the option says."""
        wanted = self.config.options.get("probabilities", "calibrated") == "calibrated"
        return wanted and knows_llm(str(getattr(self.llm, "identity", self.llm.profile.name)))

    def estimate(self, out: str | os.PathLike[str] | None = None) -> Estimate:
        """What a run would ask, without asking anything: the first episode of each series is prepared as it would be.

        Args:
            out: a run folder to go on with: what has an answer there is left out. None, or no run there: everything.

        Raises:
            ImageError: an image of those episodes cannot be used.
            RunMismatchError, RunError: the run in ``out`` is another one, or cannot be read.
            TemplateError: there is no such template.
        """
        prompt_hash(self.config.options)  # a template that is not there is no question that costs nothing
        done = set() if out is None else self._done(Path(out))
        llm = UnaskedLLM(self.llm)
        firsts = {ways: episode for ways in self.config.shots for _, episode in self._series(ways, 1)}
        maker = self._maker(llm, dry=True)
        return estimate(maker, llm, firsts, self.config.settings, episodes=self.episodes, done=done)

    def _done(self, out: Path) -> set[str]:
        """The items that the run in a folder has answered; none where there is no run."""
        if not (out / "run.json").exists():
            return set()
        check_config(read_info(out), COMMAND, self.run_config(), out)
        return {item for item, _ in read_results(out)}

    # Doing it.

    def run(
        self,
        out: str | os.PathLike[str],
        *,
        resume: bool = False,
        concurrency: int = 1,
        progress: bool | None = None,
        say: Callable[[str], None] = lambda text: None,
        prices: PriceTable | None = None,
    ) -> Finished:
        """Ask everything that has no answer in the run folder yet, sum it up, and write results.json.

        Args:
            out: the run folder; made if missing.
            resume: go on with the run that is there, if one is. Items that failed are asked again.
            concurrency: episodes worked on at the same time: 1 for an LLM on this machine, more for a provider.
            progress: a bar on stderr; None only at a terminal.
            say: told remarks for people, how long it will take among them.
            prices: results.json says what the answered questions cost by them; None: it says nothing of money.

        Raises:
            RunMismatchError, RunLockedError, RunError: the folder cannot be used; see ``Run.open``.
            BudgetExceededError: the budget does not allow the next question. Everything answered is kept.
            LLMError: the LLM refuses for good, or failed ``FAILURES_IN_A_ROW`` times in a row.
            LabelError: a label that must not enter a prompt.
        """
        concurrency = checks.count("concurrency", concurrency)
        config = self.run_config()
        # Before there is a folder: a number of words that the tokenizer does not have makes no run.
        for _, episode in self._series(next(iter(self.config.shots)), 1):
            self._encode(episode)
        with Run.open(out, COMMAND, config, seed=self.config.seed, resume=resume) as run:
            kept_episodes = run.folder / "episodes.json"
            if not kept_episodes.exists():
                self.episode_set = self.episode_set.save(kept_episodes)
            maker = self._maker(self.llm)
            total = self.episodes * len(self.config.settings)
            kept = sum(
                item_id(number, setting) in run.done
                for setting in self.config.settings
                for number in range(self.episodes)
            )
            with progress_bar(total, "questions", progress) as done:
                done(kept)
                keeper = Keeper(run, done, say, total - kept)
                self._ask_all(maker, keeper, concurrency)
            results = self._results(run, maker.variants, prices)
            run.finish(results)
            return Finished(run.folder, results, keeper.asked, kept, keeper.failed, keeper.problem)

    def _ask_all(self, maker: ItemMaker, keeper: Keeper, concurrency: int) -> None:
        def ask_episode(number: int, episode: Episode, settings: list[Setting]) -> None:
            if keeper.stopped is not None:
                return
            for setting, document in maker.items(number, episode, settings):
                keeper.keep(item_id(number, setting), document)
                if keeper.stopped is not None:
                    return

        with keeper.working(concurrency, "icl-vision-benchmark") as begin:
            running: set[concurrent.futures.Future[None]] = set()
            for number, episode, settings in self._unasked(keeper.run.done):
                # While the LLM answers, the next episode becomes words.
                self._encode(episode)
                while len(running) > concurrency:
                    finished, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                if keeper.stopped is not None:
                    break
                running.add(begin(ask_episode, number, episode, settings))
            for future in concurrent.futures.as_completed(running):
                future.result()

    def _unasked(self, done: set[str]) -> Iterator[tuple[int, Episode, list[Setting]]]:
        """Episodes with the settings they still have to be asked in, the first of every series first."""
        series = [self._series(ways, self.episodes) for ways in self.config.shots]
        for together in zip(*series, strict=True):
            for number, episode in together:
                missing = [setting for setting in self._settings(episode.ways) if item_id(number, setting) not in done]
                if missing:
                    yield number, episode, missing

    def _encode(self, episode: Episode) -> None:
        paths = [self.episode_set.image(item.path) for item in (*episode.support, *episode.queries)]
        try:
            self.tokenizer.encode(paths, self.config.k)
        except ImageError:
            return  # the item that shows the image says so, and only that one fails

    def _series(self, ways: int, count: int) -> Iterator[tuple[int, Episode]]:
        for number, episode in enumerate(self.episode_set.series(ways, count)):
            yield number, self._named(number, replace(episode, queries=episode.queries[:1]))  # one item an episode

    def _named(self, number: int, episode: Episode) -> Episode:
        if self.config.labels == "real":
            return episode
        vocabulary = self.tokenizer.vocabulary
        taken = () if vocabulary is None else vocabulary.words
        key = (self.config.seed, episode.ways, number)
        return episode.renamed(nonsense_names(episode.labels, key=key, taken=taken))

    def _settings(self, ways: int) -> list[Setting]:
        return [setting for setting in self.config.settings if setting.ways == ways]

    def _maker(self, llm: TextLLM, *, dry: bool = False) -> ItemMaker:
        config = self.config
        names = [*(["untrained"] if "untrained" in config.baselines else []), *config.controls]
        episodes = (episode for ways in config.shots for episode in self.episode_set.series(ways, self.episodes))
        tested = {label for episode in episodes for label in episode.labels} if names else set()
        variants = prepare_variants(
            names, Setup(self.tokenizer, llm, config.k, tuple(sorted(tested))), seed=config.seed
        )
        if dry:
            variants = tuple(variant.unasked() for variant in variants)
        return ItemMaker(
            llm=llm,
            tokenizer=self.tokenizer,
            k=config.k,
            image=self.episode_set.image,
            scorers=config.scorers,
            baselines=tuple(name for name in config.baselines if name != UNTRAINED.name),
            variants=variants,
            variant_episodes=config.control_episodes,
            variant_scorer=config.control_scorer,
            options=config.options,
        )

    # What came of it.

    def _results(self, run: Run, variants: tuple[Variant, ...], prices: PriceTable | None) -> dict[str, Any]:
        tally = Tally()
        wanted = {setting.id for setting in self.config.settings}
        for _, item in run.results():
            if item["setting"] in wanted:
                tally.add(item)
        settings = self.config.settings
        infos = self._rows(variants)
        cells = tally.cells(infos, settings)
        beside = quoted(settings) if self.config.quoted else {"rows": [], "cells": [], "means": []}
        return {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "config": {"data": str(self.episode_set.root), **run.info["config"]},
            "settings": [setting.to_dict() for setting in settings],
            "rows": tally.rows(infos) + beside["rows"],
            "cells": cells + beside["cells"],
            "means": means(cells, settings) + beside["means"],
            "items": tally.items,
            "missing": self.episodes * len(settings) - tally.items,
            "usage": tally.usage.to_dict(),
            "requests": tally.usage.requests,
            "prompts": tally.asked,
            **({} if prices is None else {"cost": tally.cost(prices, self.llm.profile.name).to_dict()}),
            "seconds": round(tally.seconds, 1),
            "machine": machine(),
            "versions": versions(),
            "commit": run.info.get("commit"),
        }

    def _rows(self, variants: tuple[Variant, ...]) -> list[RowInfo]:
        scorer = LLM_ROWS[self.config.control_scorer]
        infos = [RowInfo.of(row, "llm") for row in LLM_ROWS.values() if row.name in self.config.scorers]
        exchanged = {
            variant.name: RowInfo(
                variant.name,
                "baseline" if variant.control is UNTRAINED else "control",
                variant.meaning,
                scorer.scorer,
                scorer.constrained,
            )
            for variant in variants
        }
        for row in ROWS.values():
            if row.name in self.config.baselines:
                infos.append(exchanged.pop(row.name, RowInfo.of(row, "baseline")))
        return [*infos, *exchanged.values()]
