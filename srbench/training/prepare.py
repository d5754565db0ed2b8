"""From the options of a call to a run that can begin: recipe, protocol, data and device, checked before any work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric

from srbench import weights
from srbench.compute.numerics import Numerics
from srbench.compute.progress import track
from srbench.data.catalogue import default_protocol, is_paired, is_small, with_originals
from srbench.data.source import Source
from srbench.errors import UsageError
from srbench.files.atomic import check_out_dir
from srbench.files.paths import user_path
from srbench.method import Method
from srbench.protocol import Protocol, load_protocol
from srbench.training import checkpoint
from srbench.training.fabric import choose_numerics, make_fabric
from srbench.training.images import ImageSet, LabelMap
from srbench.training.options import TrainOptions
from srbench.training.recipe import Recipe, apply_overrides, load_recipe
from srbench.training.splits import open_splits


@dataclass(frozen=True)
class PreparedRun:
    """What the options of a call came to.

    Attributes:
        options: The options.
        numerics: Arithmetic that it computes in.
        fabric: Device, precision, ranks.
        protocol: The protocol in force.
        recipe: The recipe in force.
        recipe_name: Its name.
        data: Sources to train on.
        val: Sources to validate on.
        out: Folder of the run.
        name: Name of the weights.
    """

    options: TrainOptions
    numerics: Numerics
    fabric: Fabric
    protocol: Protocol
    recipe: Recipe
    recipe_name: str
    data: list[Source]
    val: list[Source]
    out: Path
    name: str

    @property
    def shows(self) -> bool:
        """Whether this rank draws progress bars."""
        return self.options.progress and self.fabric.is_global_zero


def choose_recipe(
    options: TrainOptions, recipes: Mapping[str, Recipe], *, task_type: str = "classification"
) -> tuple[Recipe, str]:
    """Return the recipe with the call's own settings, and its name.

    Args:
        options: The options; without a recipe the one meant for the demo, the task type or the device is taken.
        recipes: The recipes that can be named.
        task_type: What the data ask of a network.
    """
    if isinstance(options.recipe, Recipe):
        recipe, name = options.recipe, "custom"
    else:
        name = options.recipe or _default_recipe(options, recipes, task_type)
        recipe = load_recipe(name, recipes)
        name = Path(name).stem if name.endswith(".toml") else name
    recipe = apply_overrides(recipe, options.overrides)
    if options.epochs is not None:
        recipe = apply_overrides(recipe, [f"epochs={options.epochs}"])
    return dataclasses.replace(recipe, init=options.init_from) if options.init_from is not None else recipe, name


def _default_recipe(options: TrainOptions, recipes: Mapping[str, Recipe], task_type: str) -> str:
    cuda = options.device != "cpu" and torch.cuda.is_available()
    by_device = "gpu" if cuda else "cpu-small"
    wanted = (task_type, "demo" if set(options.data) == {"demo"} else by_device, "default")
    return next((name for name in wanted if name in recipes), next(iter(recipes)))


def choose_protocol(protocol: str | Protocol | None, scale: float | None, *, data: Sequence[str]) -> Protocol:
    """Return the protocol in force, apart from what real pairs change in it.

    Raises:
        UsageError: If a scale is given for real pairs.
    """
    if not isinstance(protocol, Protocol):
        protocol = load_protocol(protocol or default_protocol(data))
    if scale is not None and any(is_paired(spec) for spec in data):
        raise UsageError(f"the LR of real pairs is given, so --scale {scale:g} cannot apply; leave --scale out")
    return protocol if scale is None else protocol.at_scale(scale)


def prepare_run(options: TrainOptions, *, recipe: Recipe, recipe_name: str, out: str, name: str) -> PreparedRun:
    """Check what can be wrong with a call, open the data and the device.

    Args:
        options: The options.
        recipe: The recipe in force.
        recipe_name: Its name.
        out: Name of the folder in out/train where the options name none.
        name: Name of the weights where the options give none.

    Raises:
        UsageError: If something is wrong.
    """
    _check_originals(options)
    protocol = choose_protocol(options.protocol, options.scale, data=options.data)
    folder = user_path(options.out) if options.out is not None else Path("out") / "train" / out
    _check_patches(recipe, protocol)
    _check_out(folder, options)
    training, validation = open_splits(options.data, options.val)
    factors = {source.factor for source in [*training, *validation]}
    if len(factors) > 1:
        kinds = ", ".join(sorted("LR made of HR" if factor is None else f"pairs of x{factor}" for factor in factors))
        raise UsageError(f"all data of a run have one kind of LR, got {kinds}; train on one of them at a time")
    (factor,) = factors
    numerics = choose_numerics(options.device, options.precision)
    return PreparedRun(
        options=options,
        numerics=numerics,
        fabric=make_fabric(numerics),
        protocol=protocol if factor is None else protocol.of_pairs(factor),
        recipe=recipe,
        recipe_name=recipe_name,
        data=training,
        val=validation,
        out=folder,
        name=_clean_name(options.name or name),
    )


def open_images(run: PreparedRun, sources: Sequence[Source], labels: LabelMap | None, *, scored: bool) -> ImageSet:
    """Fill the cache of HR crops on rank 0, and open it everywhere.

    Args:
        run: The run.
        sources: What to read.
        labels: From class names to the classifier's outputs, or None where labels are of no use.
        scored: Whether images smaller than HR are enlarged, as the protocol says where it scores.
    """
    fabric, limit = run.fabric, run.options.limit
    count = sum(min(len(source.samples), limit or len(source.samples)) for source in sources)
    if not fabric.is_global_zero:
        fabric.barrier()
    with track("decoding", count, show=run.shows) as advance:
        images = ImageSet(sources, run.protocol.hr, label_map=labels, limit=limit, enlarge=scored, advance=advance)
    if fabric.is_global_zero:
        fabric.barrier()
    return images


def _check_originals(options: TrainOptions) -> None:
    """Refuse data that are small by nature."""
    small = [spec for spec in [*options.data, options.val or ""] if is_small(spec)]
    if small:
        raise UsageError(
            f"--data {small[0]}: these images were never large, and training needs large originals, which the teacher"
            f" sees and from which LR is made; data that have them are {with_originals()}: train on one that shows the"
            " same kind of thing, and score the result on the small images with `srbench eval`"
        )


def _check_patches(recipe: Recipe, protocol: Protocol) -> None:
    if recipe.patch is not None and protocol.sr.side is not None:
        raise UsageError(
            f"protocol {protocol.name!r} fixes the side of SR ({protocol.sr.side}), so patches have no meaning;"
            " leave them out with --set patch=none"
        )
    if recipe.patch is None and (recipe.patches_per_image > 1 or recipe.min_detail):
        setting = "patches_per_image" if recipe.patches_per_image > 1 else "min_detail"
        raise UsageError(
            f"recipe setting {setting} is about patches, but none are cut; give their side with --set patch=96, or set"
            " patches_per_image=1 and min_detail=0"
        )


def _check_out(out: Path, options: TrainOptions) -> None:
    file = out / checkpoint.NAME
    check_out_dir(out)
    if options.resume and not file.is_file():
        raise UsageError(f"--resume was given, but {out} holds no {checkpoint.NAME}; leave --resume out to start")
    if file.is_file() and not options.resume and not options.force:
        raise UsageError(
            f"{out} holds a checkpoint already; go on with --resume, or start over with --force or another --out"
        )


def _clean_name(name: str) -> str:
    cleaned = re.sub(r"[^\w+-]+", "-", Path(name).stem if name.endswith(weights.SUFFIX) else name).strip("-")
    if not cleaned:
        raise UsageError(f"--name {name!r} has no letter or digit; give a word such as mine-x4")
    return cleaned


def check_channels(name: str, method: Method, sources: Sequence[Source]) -> None:
    """Refuse data in colour for a network of one channel.

    Raises:
        UsageError: Naming the data.
    """
    channels = method.info.channels
    for source in sources:
        if channels not in (3, source.channels):
            raise UsageError(
                f"{name} takes {channels}-channel images here, {source.spec} has {source.channels};"
                " train on grey images, or build the network for colour with --set parameters.channels=3"
            )
