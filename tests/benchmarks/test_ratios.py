"""The harness as a ratio to a bare loop, and one pass over several methods as a ratio to a pass for each.

A ratio is taken inside one process, the two sides in turn, so that the speed of the machine cancels. It stands in the
JSON under `extra_info` and in the table of `make bench`, in wall-clock time and, where other work on the machine would
drown it, in CPU time.
"""

from __future__ import annotations

import dataclasses
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from dummies import make_classifier, make_images
from torch import Tensor

import srbench
from srbench import metrics
from srbench.compute.numerics import Numerics
from srbench.data.catalogue import open_source
from srbench.data.hr_cache import build_hr_store
from srbench.evaluation import api
from srbench.evaluation.loaded_methods import LoadedMethod, choose
from srbench.evaluation.options import PassSettings
from srbench.imaging.degrade import degrade, restore_size, round_8bit
from srbench.method import TaskInfo
from srbench.networks.classifiers import Classifier, label_map
from srbench.networks.loading import load_classifier
from srbench.protocol import Protocol, load_protocol
from srbench.registry import Registry
from srbench.weights import Card, save


@dataclass(frozen=True)
class Work:
    """What both sides do: the same images, networks and metrics."""

    data: str
    card: str
    methods: tuple[str, ...]
    weights: dict[str, list[str]]
    limit: int | None = None
    sizes: tuple[int, ...] = ()  # input sizes beside the protocol's own


@pytest.fixture
def no_statistics(monkeypatch):
    """Leave the leaderboard out: its bootstrap is not the pass."""
    monkeypatch.setattr(api.leaderboard, "build", lambda *_, **__: None)
    monkeypatch.setattr(api.tables, "write", lambda *_, **__: None)


def harness(work: Work, out) -> Callable[[], None]:
    def run():
        result = srbench.evaluate(
            work.methods,
            data=work.data,
            classifiers=[work.card],
            weights=work.weights,
            limit=work.limit,
            input_sizes=work.sizes,
            device="cpu",
            out=out,
            force=True,
            measure=False,
            progress=False,
        )
        assert not result.failed

    return run


def bare(work: Work, *, shared: bool = False, metrics_too: bool = True) -> Callable[[], None]:
    """Return a loop over tensors that lie in memory: networks and metrics, and nothing that a harness is for.

    HR, LR, the scores of HR and the labels are made beforehand. Metrics are those that srbench offers to anybody, one
    call a method and batch. With `shared`, what PSNR and SSIM need of HR alone is made once for all methods, which is
    the fastest loop that gives these numbers. Without `metrics_too` it restores and classifies alone.

    At further input sizes a network of fixed factor does not run again, and HR is classified there too.
    """
    source = open_source(work.data)
    protocol = load_protocol("demo" if source.name == "demo" else "clean")
    store = build_hr_store(source, protocol.hr, limit=work.limit)
    classifier = load_classifier(work.card)
    classifier.to(memory_format=torch.channels_last)
    loaded_methods = choose(
        work.methods, Registry(), given=work.weights, classifiers=[classifier], protocol=protocol, dataset=source.name
    )
    task = TaskInfo("bench", protocol, classifier.id, classifier.info.weights_sha256, classifier.info.input_size)
    taking_part = [each for each in loaded_methods if each.skip_reason(task) is None]
    for each in taking_part:
        assert each.method is not None
        each.method.to(memory_format=torch.channels_last)
    adapted = {id(each): each.adapted_network(classifier) for each in taking_part if each.track == "adapted"}
    outputs = torch.from_numpy(label_map(classifier.info, source.classes))
    batches = []
    with torch.inference_mode():
        settings = PassSettings(torch.device("cpu"), Numerics("cpu"), None, seed=0)
        for positions in store.groups(range(len(store)), settings.images_a_batch):
            hr = store.batch(positions).float() / 255
            batches.append((hr, degrade(hr, protocol.lr), classifier(hr), outputs[store.labels[positions]]))

    @torch.inference_mode()
    def run():
        for hr, lr, hr_logits, target in batches:
            common = metrics.HrStatistics(hr) if shared else None
            size = (hr.shape[-2], hr.shape[-1])
            for side in work.sizes:
                classifier(round_8bit(restore_size(hr, (side, side), protocol.sr)))
            for each in taking_part:
                network = adapted.get(id(each), classifier)
                assert each.method is not None
                sr = each.method(lr, size)
                if metrics_too:
                    reference = common or metrics.HrStatistics(hr)
                    one_method(each, network, reference, size, sr, hr_logits, target, protocol)
                else:
                    network(round_8bit(restore_size(sr, size, protocol.sr)) if each.method.info.output == "hr" else sr)
                for side in work.sizes if each.method.info.output == "hr" else ():
                    if each.method.info.factor == "any":
                        sr = each.method(lr, (side, side))
                    network(round_8bit(restore_size(sr, (side, side), protocol.sr)))

    return run


def one_method(
    loaded: LoadedMethod,
    network: Classifier,
    reference: metrics.HrStatistics,
    size: tuple[int, int],
    sr: Tensor,
    hr_logits: Tensor,
    target: Tensor,
    protocol: Protocol,
) -> list[Tensor]:
    assert loaded.method is not None
    found = []
    if loaded.method.info.output == "hr":
        sr = round_8bit(restore_size(sr, size, protocol.sr))
        mse = reference.mse(sr)
        found += [mse, metrics.psnr_from_mse(mse), reference.ssim(sr)]
    logits = network(sr)
    found += [
        logits.argmax(1),
        metrics.confidence(logits),
        metrics.logit_mse(logits, hr_logits),
        metrics.kl_to_hr(logits, hr_logits),
        metrics.cross_entropy(logits, target),
        metrics.topk_hit(logits, target),
    ]
    return found


def ratio(
    benchmark,
    numerator: Callable[[], object],
    denominator: Callable[[], object],
    *,
    of: str,
    rounds: int,
    stricter: Callable[[], object] | None = None,
) -> None:
    """Time them in turn; the numerator is the benchmark, medians of its ratios to the others stand beside it."""
    sides = {"above": numerator, "below": denominator} | ({} if stricter is None else {"stricter": stricter})
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}

    def timed(side: str) -> None:
        start, start_cpu = time.perf_counter(), time.process_time()
        sides[side]()
        wall[side].append(time.perf_counter() - start)
        cpu[side].append(time.process_time() - start_cpu)

    def denominators() -> None:
        for side in list(sides)[1:]:
            timed(side)

    for work in sides.values():  # fills caches, warms up
        work()
    benchmark.pedantic(timed, args=("above",), setup=denominators, rounds=rounds)

    def ratios(seconds: dict[str, list[float]], side: str) -> list[float]:
        return [above / below for above, below in zip(seconds["above"], seconds[side], strict=True)]

    found = ratios(wall, "below")
    benchmark.extra_info |= {"ratio": statistics.median(found), "ratio_of": of, "ratios": found}
    benchmark.extra_info["cpu_ratio"] = statistics.median(ratios(cpu, "below"))
    if stricter is not None:
        benchmark.extra_info["strict_ratio"] = statistics.median(ratios(wall, "stricter"))
        benchmark.extra_info["strict_cpu_ratio"] = statistics.median(ratios(cpu, "stricter"))


FIVE = ("nearest", "bilinear", "bicubic", "lanczos", "area")
DEMO = Work("demo", "demo-resnet", FIVE, {}, limit=128)
OF = "srbench.evaluate / bare loop"


def photographs(real, methods: tuple[str, ...], weights=None, *, limit: int | None = None) -> Work:
    card = str(real / "weights" / "mobilenetv2_tfquant.toml")
    return Work(f"folder:{real / 'photos'}", card, methods, weights or {}, limit)


def save_esrgan(folder, blocks: int, features: int) -> dict[str, list[str]]:
    """Save an untrained network: how long it takes does not depend on its values."""
    torch.manual_seed(0)
    network = Registry().get("esrgan")(blocks=blocks, features=features)
    path = folder / f"rrdb-{blocks}-{features}.safetensors"
    save(path, network.state_dict(), Card(namespace="esrgan", name=path.stem, factor=4))
    return {"esrgan": [str(path)]}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("methods", [DEMO.methods, ("esrgan",)], ids=["interpolations", "esrgan"])
def test_harness_over_bare_loop_on_128_demo_patches(benchmark, methods, tmp_path, no_statistics):
    given = {"esrgan": ["demo-x4"]} if "esrgan" in methods else {}
    work = Work(DEMO.data, DEMO.card, methods, given, DEMO.limit)
    ratio(benchmark, harness(work, tmp_path), bare(work), of=OF, rounds=5)


@pytest.mark.real
@pytest.mark.timeout(7200)
def test_harness_over_bare_loop_on_500_photographs(benchmark, real, tmp_path, no_statistics):
    work = photographs(real, ("none", *FIVE))
    ratio(benchmark, harness(work, tmp_path), bare(work), of=OF, rounds=3, stricter=bare(work, shared=True))


@pytest.mark.real
@pytest.mark.timeout(7200)
# The larger the network, the fewer photographs it takes to be far above what an evaluation costs once, a second or two.
@pytest.mark.parametrize(("blocks", "features", "images"), [(1, 8, 500), (2, 32, 500), (8, 64, 150)])
def test_harness_over_bare_loop_around_esrgan(benchmark, real, tmp_path, no_statistics, blocks, features, images):
    work = photographs(real, ("esrgan",), save_esrgan(tmp_path, blocks, features), limit=images)
    ratio(benchmark, harness(work, tmp_path / "out"), bare(work), of=OF, rounds=2)


@pytest.mark.real
@pytest.mark.timeout(7200)
# What an evaluation of 19 cells does once takes a second: 2 ms an image on 500 photographs, 6 on these, 23 on 40.
@pytest.mark.parametrize("images", [160])
def test_six_input_sizes_over_one_restoration_and_six_classifications(benchmark, real, tmp_path, no_statistics, images):
    work = photographs(real, ("esrgan",), save_esrgan(tmp_path, 2, 32), limit=images)
    work = dataclasses.replace(work, sizes=(96, 128, 160, 192, 224))
    of = "one pass over 6 input sizes / bare restoring, classifying and metrics; strictly without metrics"
    ratio(
        benchmark, harness(work, tmp_path / "out"), bare(work), of=of, rounds=2, stricter=bare(work, metrics_too=False)
    )
    assert benchmark.extra_info["strict_cpu_ratio"] <= 1.10


@pytest.mark.timeout(1800)
def test_one_pass_over_five_methods_in_one_process(benchmark, tmp_path, monkeypatch, no_statistics):
    card = str(make_classifier(tmp_path, side=64))
    data = f"folder:{make_images(tmp_path / 'photos', 32, side=64)}"
    protocol = tmp_path / "half.toml"
    protocol.write_text("[lr]\nscale = 0.5\n")
    calls: list[int] = []

    def evaluate(methods: Sequence[str]):
        calls.append(1)
        cold = tmp_path / str(len(calls))  # nothing of an earlier call
        monkeypatch.setenv("SRBENCH_CACHE", str(cold / "cache"))
        options = {"protocol": str(protocol), "device": "cpu", "measure": False, "progress": False}
        result = srbench.evaluate(methods, data=data, classifiers=[card], out=cold / "out", **options)
        assert result.counters.decoded == 96 and result.counters.hr_classified == {"dummy": 96}

    ratio(
        benchmark,
        lambda: evaluate(FIVE),
        lambda: [evaluate([method]) for method in FIVE],
        of="one pass over 5 methods / 5 passes",
        rounds=5,
    )


@pytest.mark.real
@pytest.mark.timeout(3600)
def test_one_command_over_five_methods_on_100_photographs(benchmark, real, tmp_path, monkeypatch):
    """Whole commands on cold caches, start-up included; each decodes every image once, and classifies its HR once."""
    shared = f"--data folder:{real / 'photos'} --classifier {real / 'weights' / 'mobilenetv2_tfquant.toml'} --limit 100"
    calls: list[int] = []

    def command(methods: Sequence[str]):
        calls.append(1)
        cold = tmp_path / str(len(calls))
        monkeypatch.setenv("SRBENCH_CACHE", str(cold / "cache"))
        words = [
            sys.executable,
            "-m",
            "srbench.cli",
            "eval",
            *methods,
            *shlex.split(shared),
            "--out",
            str(cold / "out"),
        ]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        assert "decoded 100 images, classified 100 of them at HR" in done.stderr

    def separately():
        for method in FIVE:
            command([method])

    below: list[float] = []

    def denominator_first():
        start = time.perf_counter()
        separately()
        below.append(time.perf_counter() - start)

    benchmark.pedantic(command, args=(FIVE,), setup=denominator_first, rounds=1)
    found = benchmark.stats.stats.data[0] / below[0]
    benchmark.extra_info |= {"ratio": found, "ratio_of": "one command over 5 methods / 5 commands", "ratios": [found]}
