"""`srbench.train` for methods and `train_network` for classifiers: from a call to trained weights, used by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from srbench.data.catalogue import default_task_type
from srbench.errors import UsageError
from srbench.networks.classifiers import Classifier
from srbench.networks.detectors import detector_names
from srbench.networks.loading import demo_classifiers, load_classifier
from srbench.protocol import Protocol
from srbench.registry import Registry, listed
from srbench.task_types import task_type
from srbench.training.losses import NEED_CLASSIFIER
from srbench.training.method_run import MethodRun
from srbench.training.network_run import NetworkRun, network_recipes
from srbench.training.options import TrainOptions
from srbench.training.prepare import choose_recipe, prepare_run
from srbench.training.recipe import Recipe
from srbench.training.result import TrainingResult


def train(
    method: str,
    *,
    data: str | Sequence[str],
    val: str | None = None,
    classifier: str | Sequence[str] | None = None,
    judge: str | Sequence[str] = (),
    protocol: str | Protocol | None = None,
    scale: float | None = None,
    recipe: str | Recipe | None = None,
    overrides: str | Sequence[str] = (),
    epochs: int | None = None,
    out: Path | str | None = None,
    name: str | None = None,
    init_from: str | None = None,
    licence: str | None = None,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    limit: int | None = None,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
    command: str = "",
) -> TrainingResult:
    """Train a method: `train_method` with every option as a keyword; `TrainOptions` says what each means.

    Returns:
        The weights, the history and what selected the epoch.

    Raises:
        UsageError: If the call is wrong; nothing has been trained then.
        TrainingError: If training cannot go on; the last checkpoint is named.
    """
    options = TrainOptions(
        data=data,
        val=val,
        protocol=protocol,
        scale=scale,
        recipe=recipe,
        overrides=overrides,
        epochs=epochs,
        out=out,
        name=name,
        init_from=init_from,
        licence=licence,
        resume=resume,
        force=force,
        device=device,
        precision=precision,
        seed=seed,
        limit=limit,
        progress=progress,
        command=command,
    )
    return train_method(method, options, classifier=classifier or (), judge=judge, plugins=plugins)


def train_method(
    method: str,
    options: TrainOptions,
    *,
    classifier: str | Sequence[str] = (),
    judge: str | Sequence[str] = (),
    plugins: Sequence[Path | str] = (),
) -> TrainingResult:
    """Train a method.

    Args:
        method: Its name.
        options: The options.
        classifier: SPEC of the teacher, or of the classifier that is adapted, or several of teachers, which take turns;
            without any it is the first demo classifier on the demo, and no classifier elsewhere.
        judge: SPECs of classifiers that see SR in validation and take no part in training.
        plugins: Files of further methods.

    Returns:
        The weights, the history and what selected the epoch.

    Raises:
        UsageError: If the call is wrong; nothing has been trained then.
        TrainingError: If training cannot go on; the last checkpoint is named.
    """
    registry = Registry(plugins)
    method_class = registry.get(method)
    if not method_class.recipes:
        trainable = sorted(name for name, each in registry.working().items() if each.recipes)
        raise UsageError(f"{method} has nothing to train; methods that can be trained: {', '.join(trainable)}")
    recipe, recipe_name = choose_recipe(options, method_class.recipes, task_type=default_task_type(options.data))
    estimates = recipe.norm_steps > 0 and not all(each.losses for each in method_class.recipes.values())
    if not recipe.losses and not estimates:
        raise UsageError(f"recipe {recipe_name!r} has no losses; give at least one with --set losses.NAME=1")
    _check_phases(recipe)
    demo = set(options.data) == {"demo"}
    specs = listed(classifier or ()) or (_demo_classifier(recipe) if demo else [])
    needing = sorted(set(recipe.losses) & NEED_CLASSIFIER)
    if not specs and (needing or recipe.track == "adapted"):
        what = f"the loss term {needing[0]!r}" if needing else "the adapted track"
        raise UsageError(f"{what} needs a classifier; give --classifier SPEC, see `srbench list classifiers`")
    if len(specs) > 1 and recipe.track == "adapted":
        raise UsageError(
            f"track 'adapted' trains one classifier along, got {len(specs)}; give one with --classifier, or"
            " --set track=frozen"
        )
    teachers, judges = [[load_classifier(spec) for spec in given] for given in (specs, listed(judge or ()))]
    _check_ids([*teachers, *judges])
    name = "-".join([recipe_name, *(teacher.id for teacher in teachers)])
    run = prepare_run(options, recipe=recipe, recipe_name=recipe_name, out=method, name=name)
    return MethodRun(run, method, method_class, registry, teachers=teachers, judges=judges).result()


def train_network(
    arch: str,
    options: TrainOptions,
    *,
    in_chans: int = 3,
    encoder: str | None = None,
    init_encoder: str | None = None,
) -> TrainingResult:
    """Train a network on what the data say, classes or masks; it can then be named with --network.

    Args:
        arch: Architecture of timm, or "torchvision:NAME"; with an encoder a decoder of segmentation-models-pytorch,
            such as "fpn", or a detector, such as "fcos".
        options: The options. In overrides "args.KEY=value" goes to the architecture's constructor,
            "args.pretrained=true" starts from the library's weights, and "args.pretrained=if-available" does so where
            these can be had, and from scratch elsewhere.
        in_chans: Channels that the network takes, 1 or 3.
        encoder: "timm:NAME", or the name of one of that library's own encoders.
        init_encoder: SPEC of a classifier of that architecture, whose weights the encoder starts from.

    Returns:
        The weights, the history and what selected the epoch.

    Raises:
        UsageError: If the call is wrong; nothing has been trained then.
        TrainingError: If training cannot go on; the last checkpoint is named.
    """
    if in_chans not in {1, 3}:
        raise UsageError(f"--in-chans takes 1 or 3, got {in_chans}")
    if init_encoder is not None and encoder is None:
        raise UsageError("--init-encoder fills the encoder of a decoder; name it too, as in --encoder timm:resnet18")
    detector = arch in detector_names()
    if detector:
        arch = f"torchvision:{arch}"
    elif encoder is not None:
        arch = f"smp:{arch}/{encoder}"
    library, colon, architecture = arch.partition(":")
    library, architecture = (library, architecture) if colon else ("timm", arch)
    asked = default_task_type(options.data)
    recipe, recipe_name = choose_recipe(options, network_recipes(), task_type=asked)
    term = task_type(asked).loss_term
    if options.recipe is None and recipe_name == "default" and term not in recipe.losses:
        # It is made for classes. A task type without a recipe of its own takes its schedule with its own loss.
        recipe = replace(recipe, losses={term: 1.0}, label_smoothing=0.0, select=task_type(asked).criterion)
    if detector and encoder is not None:
        recipe = replace(recipe, parameters={**recipe.parameters, "encoder": encoder.removeprefix("timm:")})
    if set(recipe.losses) != {term}:
        raise UsageError(
            f"a classifier is trained by the loss term {term!r} alone on such data, got {sorted(recipe.losses)}"
        )
    short = architecture.partition("/")[0]
    name = f"{short}-{options.data[0].partition(':')[0]}"
    run = prepare_run(options, recipe=recipe, recipe_name=recipe_name, out=short, name=name)
    begun = load_classifier(init_encoder) if init_encoder is not None else None
    return NetworkRun(run, library, architecture, in_chans, encoder=begun).result()


def _check_ids(networks: Sequence[Classifier]) -> None:
    names = [network.id for network in networks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"the classifier {twice[0]} was given twice; a network teaches once, and one that teaches cannot judge:"
            " leave one out of --classifier and --judge"
        )


def _check_phases(recipe: Recipe) -> None:
    if recipe.input_sizes and recipe.track == "adapted":
        raise UsageError(
            "input_sizes are drawn for a frozen classifier, got track 'adapted'; leave them out, or --set track=frozen"
        )
    if recipe.classifier_losses and recipe.track != "adapted":
        raise UsageError(
            f"classifier_losses train the classifier, which track {recipe.track!r} leaves alone; give"
            " --set track=adapted, or take the terms out by weights of 0"
        )
    if recipe.classifier_optimizer is not None and not recipe.classifier_losses:
        raise UsageError(
            "classifier_optimizer is for a classifier that has a step of its own; name its terms too, as in"
            " --set classifier_losses.ce_sr=1, or leave it out"
        )


def _demo_classifier(recipe: Recipe) -> list[str]:
    names = demo_classifiers()
    needed = set(recipe.losses) & NEED_CLASSIFIER or recipe.track == "adapted" or recipe.select not in {"psnr", "none"}
    return names[:1] if needed else []
