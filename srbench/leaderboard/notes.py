"""The sentences below a table: what its marks mean, how sure its numbers are, and why some are missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srbench.compute.numerics import Numerics
from srbench.leaderboard.board import Leaderboard
from srbench.leaderboard.numbers import MINIMUM_BATCHES
from srbench.leaderboard.ranks import ranking_name
from srbench.leaderboard.rows import TRAINED_ON, Row
from srbench.leaderboard.texts import ADAPTED_MARK, CONTROL_MARK, TIE_MARK, formatted, plural
from srbench.metrics.catalogue import all_metrics, metric
from srbench.metrics.stats.chance import chance_level, is_at_chance
from srbench.records.schema import BASELINE, ORACLE
from srbench.task_types import task_type

# Below this many samples a class, a class's F1 is too uncertain to be read without its caution.
FEW_SAMPLES = 100
WIDE_LATENCY = 1.5  # 90th percentile / 10th; repeats on an idle machine differ by a few percent


def notes(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    """Return the sentences that must stand below a table."""
    about = board.tasks[task]
    dataset, unit = about["dataset"], plural(about["dataset"]["unit"])
    lines = cautions(board, task, rows)
    lines += [dataset["note"]] if dataset["note"] else []
    lines += _mark_notes(rows)
    lines += _interval_notes(board, rows, unit)
    lines += _place_notes(rows)
    lines += _seed_notes(board, task, rows)
    lines += _power_note(board, task, rows, unit)
    lines += _latency_notes(rows)
    lines += _numerics_note(about)
    lines += _class_notes(board, task, rows)
    if any(row.partial for row in rows):
        sizes = sorted({row.n for row in rows if row.partial and row.status == "ok"})
        lines.append(f"partial: --limit left {', '.join(map(str, sizes)) or 'no'} {unit}; such rows are never ranked")
    if dataset["n_unreadable"]:
        named = ", ".join(dataset["unreadable"])
        more = ", ..." if dataset["n_unreadable"] > len(dataset["unreadable"]) else ""
        lines.append(f"unreadable and left out of every row: {dataset['n_unreadable']} ({named}{more})")
    one_channel = dataset.get("n_one_channel", 0)  # boards of before it was counted do not say
    if one_channel and _scoring(about).get("channels") == "y":
        lines.append(f"{one_channel} of {dataset['n']} {unit} are stored with one channel, which is taken as Y itself")
    if turned := dataset.get("n_turned", 0):
        lines.append(
            f"{turned} of {dataset['n']} {unit} ask by EXIF to be turned; all are scored as they are stored, as the"
            " usual loaders read them"
        )
    lines += _exact_notes(rows)
    lines += _null_notes(rows)
    for status in ("skipped", "error"):
        reasons: dict[str, list[str]] = {}
        for row in rows:
            if row.status == status:
                reasons.setdefault(row.reason or "", []).append(row.label)
        lines += [f"{status}: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return lines


def cautions(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    """Return what may make a table worthless; it begins the notes, and a terminal shows it above."""
    about = board.tasks[task]
    dataset, unit = about["dataset"], plural(about["dataset"]["unit"])
    n, lines = dataset["n"], []
    if dataset["n_not_degraded"]:
        lines.append(
            f"{dataset['n_not_degraded']} of {n} {unit} are already at or below the LR size: the degradation does"
            " nothing to them; images that were never large are scored as small:PATH"
        )
    for classifier in dict.fromkeys(row.classifier for row in rows):
        network = about["classifiers"].get(classifier, {})
        if trained_on := network.get("trained_on", 0):
            lines.append(
                f"classifier {classifier} was trained on {trained_on} of these {n} {unit}, so its accuracy here is"
                " none on new ones; score what was held out with --split test"
            )
    by_count: dict[str, list[str]] = {}
    for row in rows:
        if TRAINED_ON in row.notes:
            by_count.setdefault(row.notes[TRAINED_ON], []).append(row.label)
    for count, labels in by_count.items():
        lines.append(f"trained on {count} of these {n} {unit}: {', '.join(labels)}; score what was held out")
    return [*lines, *_size_cautions(rows), *_chance_cautions(board, task, rows)]


def _size_cautions(rows: Sequence[Row]) -> Iterator[str]:
    """Say which ranked rows had fewer input sizes to choose from than the others."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        if row.competes and row.accuracy_by_size and "accuracy_by_size" in row.notes:
            labels.setdefault(row.notes["accuracy_by_size"], []).append(row.label)
    for reason, named in labels.items():
        yield (
            f"{', '.join(named)}: {reason}, so the place is not a fair one;"
            f" run {'it' if len(named) == 1 else 'them'} again with the same --input-size"
        )


def _scoring(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how the protocol of a task scores; boards of before a field was there lack it."""
    scoring: Mapping[str, Any] = about["protocol"]["fields"].get("score", {})
    return scoring


def _chance_cautions(board: Leaderboard, task: str, rows: Sequence[Row]) -> Iterator[str]:
    """Say that a classifier guesses on the original images."""
    about = board.tasks[task]
    for row in rows:
        accuracy, network = row["accuracy"], about["classifiers"].get(row.classifier)
        if row.role != "oracle" or accuracy is None or network is None:
            continue
        table = board.per_class
        ours = table[(table["task"] == task) & (table["classifier"] == row.classifier) & (table["method"] == ORACLE)]
        present = _scoring(about).get("logits") == "present"
        outputs = about["dataset"]["n_classes"] if present else network["n_classes"]
        chance = chance_level([int(each) for each in ours["support"]], outputs)
        if is_at_chance(accuracy, row.n, chance):
            if is_at_chance(1.0, row.n, chance):
                unit = about["dataset"]["unit"]
                counted = f"1 {unit} is" if row.n == 1 else f"{row.n} {plural(unit)} are"
                yield f"{counted} too few to tell classifier {row.classifier} from guessing, which gives {chance:.3f}"
                continue
            yield (
                f"classifier {row.classifier} is at chance on the original images: accuracy {accuracy:.3f}, where"
                f" guessing gives {chance:.3f}; differences between methods mean nothing: train it, look at its labels"
            )


def _mark_notes(rows: Sequence[Row]) -> Iterator[str]:
    if any(row.role == "oracle" for row in rows):
        yield f"{ORACLE}: the classifier on HR itself, the most that can be recovered"
    if any(row.role == "control" for row in rows):
        yield f"{CONTROL_MARK} control: keeps the comparison honest and has no rank"
    if any(row.track == "adapted" for row in rows):
        yield (
            f"{ADAPTED_MARK} adapted: the classifier was trained too; never ranked against frozen rows;"
            f" differences refer to the frozen {ORACLE} and {BASELINE}"
        )


def _interval_notes(board: Leaderboard, rows: Sequence[Row], unit: str) -> Iterator[str]:
    if not any(row.ci for row in rows):
        return
    how = board.bootstrap
    line = (
        f"intervals: {100 * how['level']:.3g} % paired bootstrap over {unit}, {how['draws']} draws, seed {how['seed']}"
    )
    if any(row["p_holm"] is not None for row in rows):
        line += f"; p: exact McNemar against {BASELINE}, Holm-corrected over {_families(rows)}"
    yield line
    score = _scoring(board.tasks[rows[0].task])
    if score.get("psnr_reduction") == "batch":
        yield (
            f"PSNR: mean over batches of {score['psnr_batch']} {unit} with pooled MSE; its interval resamples batches"
            f" (at least {MINIMUM_BATCHES})"
        )


def _place_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Say what the intervals of places are, and which rows are tied."""
    if any(row.rank_interval is not None for row in rows):
        yield "place 95 %: the middle 95 % of a row's places over the same draws"
    if any(row.tied for row in rows):
        yield (
            f"{TIE_MARK} tied with the best of its track: the 95 % interval of the difference holds 0 (it holds for all"
            " pairs of rows at once, because the same data chose the best)"
        )


def _seed_notes(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    """Say which trainings a row of several seeds stands for, and what each of them reached."""
    kind, lines = task_type(board.tasks[task]["dataset"].get("task_type", "classification")), []
    for row in rows:
        name = ranking_name(row, kind) if row.seeds else None
        if name is None:
            continue
        info = metric(name)
        each = ", ".join(
            f"{formatted(info, seed.values.get(name))} ({seed.weights}, seed {seed.seed})" for seed in row.seeds
        )
        lines.append(f"{row.label}: means over {len(row.seeds)} trainings; {info.word} {each}")
    if lines:
        lines.append("rows of several seeds: intervals resample seeds and images, and p is from these draws")
    return lines


def _power_note(board: Leaderboard, task: str, rows: Sequence[Row], unit: str) -> list[str]:
    """Say which difference the number of samples can show."""
    power = next((each for row in rows if (each := board.power_of(task, row.classifier)) is not None), None)
    if power is None:
        return []
    share = f"{100 * power['discordance']:.1f} %"
    if power["difference"] is None:
        return [f"{power['n']} {unit} cannot show any difference in accuracy to exact McNemar p < 0.05"]
    if power["difference"] > power["discordance"]:  # a difference needs as many disagreements
        seen = f"more than rows and {BASELINE} can differ by here, as they disagree on {share} of them"
    else:
        seen = f"where two methods disagree on {share} of them, as rows and {BASELINE} do here"
    return [
        f"the smallest difference in accuracy that {power['n']} {unit} could show is"
        f" {100 * power['difference']:.1f} points (exact McNemar p < 0.05 in 80 % of such data sets), {seen}"
    ]


def _latency_notes(rows: Sequence[Row]) -> list[str]:
    """Name the rows whose latency was measured on a machine that did something else too."""
    wide = []
    for row in rows:
        low, high = row["latency_p10_ms"], row["latency_p90_ms"]
        if low is not None and high is not None and high > WIDE_LATENCY * low:
            wide.append(
                f"{row.label} ({formatted(metric('latency_ms'), low)} to {formatted(metric('latency_ms'), high)})"
            )
    if not wide:
        return []
    return [
        f"ms / image: the 90th percentile is more than {WIDE_LATENCY:g} x the 10th for {', '.join(wide)}; the machine"
        " was busy, so these do not rank methods; `srbench bench` on an idle one does"
    ]


def _numerics_note(about: Mapping[str, Any]) -> list[str]:
    """Say in which arithmetic the values were computed; boards of before it was recorded say nothing."""
    if "numerics" not in about:
        return []
    numerics = Numerics(**about["numerics"])
    return [f"computed in {numerics.arithmetic} on {'a GPU' if numerics.device == 'cuda' else 'a CPU'}"]


def _families(rows: Sequence[Row]) -> str:
    sizes = [sum(row["p_holm"] is not None and row.track == track for row in rows) for track in ("frozen", "adapted")]
    named = [f"{size} {track}" for size, track in zip(sizes, ("frozen", "adapted"), strict=True) if size]
    return f"{' and '.join(named)} {'row' if sum(sizes) == 1 else 'rows'}"


def _class_notes(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    about = board.tasks[task]
    classes, size = about["dataset"]["n_classes"], about["dataset"]["n"]
    if not classes or all(row["f1_macro"] is None for row in rows) or size / classes >= FEW_SAMPLES:
        return []
    each = size / classes
    if each < 1:
        unit = about["dataset"]["unit"]
        counted = f"{size} {unit if size == 1 else plural(unit)} for {classes} classes"
        return [f"F1 of single classes: {counted}, fewer than one a class; F1 is taken over those present"]
    # A share near one half of so many samples; F1 is no steadier than that.
    points = 100 * 0.5 / math.sqrt(each)
    return [f"F1 of single classes: about {each:.0f} a class, a standard error near {points:.0f} points"]


def _null_notes(rows: Sequence[Row]) -> list[str]:
    """Say why values are missing: always for the gap and the image metrics, else where other rows have a value."""
    ok = [row for row in rows if row.status == "ok"]
    reasons: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    told = {info.name: info.absence for info in all_metrics() if info.absence is not None}
    for name, absence in {**told, "ci.psnr": "always"}.items():
        lacking = [row for row in ok if name in row.notes]
        if absence == "elsewhere" and len(lacking) == len(ok):
            continue
        for reason in dict.fromkeys(row.notes[name] for row in lacking):
            where = tuple(row.label for row in lacking if row.notes[name] == reason)
            spelled = () if len(where) == len(ok) else where
            reasons.setdefault((reason, spelled), []).append(name)
    lines = []
    for (reason, where), names in reasons.items():
        scope = f" for {', '.join(where)}" if where else ""
        lines.append(f"no {' and no '.join(_spoken(name) for name in names)}{scope}: {reason}")
    return lines


def _exact_notes(rows: Sequence[Row]) -> list[str]:
    """Say for which rows exact images stand in a mean at the most that one image counts."""
    labels: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, text in row.notes.items():
            if name.startswith("exact."):
                labels.setdefault((name.removeprefix("exact."), text), []).append(row.label)
    return [f"{metric(name).word}: {text}: {', '.join(named)}" for (name, text), named in labels.items()]


def _spoken(name: str) -> str:
    prefix, _, of = name.rpartition(".")
    return f"interval of {metric(of).word}" if prefix == "ci" else metric(name).word
