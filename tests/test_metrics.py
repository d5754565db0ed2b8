"""Metrics against scikit-image, scikit-learn, torchmetrics and hand-made values, and the measured traps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, roc_auc_score

from srbench import metrics
from srbench.errors import ContractError, UsageError

seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=25, deadline=None, derandomize=True)


def pair(seed: int = 0, *, count: int = 2, height: int = 48, width: int = 61) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth hr and a noisy, blurred sr, both (N, 3, H, W), float32, [0, 1], multiples of 1/255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 6 + 2, width // 6 + 2, generator=generator)
    hr = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(hr, 3, stride=1, padding=1, count_include_pad=False)
    sr = (blurred + 0.03 * torch.randn(hr.shape, generator=generator)).clamp(0, 1)
    return sr.mul(255).round().div(255), hr.mul(255).round().div(255)


def skimage_ssim(sr: torch.Tensor, hr: torch.Tensor) -> float:
    """SSIM of one image (C, H, W) by scikit-image, in float64."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            hr.double().numpy(),
            sr.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


class TestLuma:
    def test_is_the_matlab_conversion(self):
        from skimage.color import rgb2ycbcr

        _, hr = pair()
        expected = rgb2ycbcr(hr.permute(0, 2, 3, 1).double().numpy())[..., 0] / 255
        assert np.abs(metrics.to_y(hr)[:, 0].numpy() - expected).max() < 1e-6

    def test_limits(self):
        black_white = torch.stack((torch.zeros(3, 2, 2), torch.ones(3, 2, 2)))
        low, high = metrics.to_y(black_white).flatten(1).mean(1).tolist()
        assert low == pytest.approx(16 / 255, abs=1e-7)
        assert high == pytest.approx(235 / 255, abs=1e-6)

    def test_needs_three_channels(self):
        with pytest.raises(ContractError, match="repeat grey images"):
            metrics.to_y(torch.zeros(1, 1, 4, 4))


class TestPsnr:
    def test_hand_made(self):
        hr = torch.zeros(2, 3, 4, 4)
        sr = torch.stack((torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)))
        mse = metrics.mse_per_image(sr, hr)
        assert mse.tolist() == pytest.approx([1e-2, 1e-4], rel=1e-6)
        assert metrics.psnr_from_mse(mse).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)

    @pytest.mark.parametrize("crop_border", [0, 4])
    def test_equals_scikit_image_on_rgb(self, crop_border):
        from skimage.metrics import peak_signal_noise_ratio

        sr, hr = pair()
        inner = (Ellipsis, slice(crop_border, 48 - crop_border), slice(crop_border, 61 - crop_border))
        values = metrics.psnr_from_mse(metrics.mse_per_image(sr, hr, crop_border=crop_border))
        for value, a, b in zip(values.tolist(), sr[inner], hr[inner], strict=True):
            expected = peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=1.0)
            assert value == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("crop_border", [0, 4])
    def test_equals_scikit_image_on_luma(self, crop_border):
        from skimage.color import rgb2ycbcr
        from skimage.metrics import peak_signal_noise_ratio

        sr, hr = pair()
        inner = (slice(crop_border, 48 - crop_border), slice(crop_border, 61 - crop_border))
        values = metrics.psnr_from_mse(metrics.mse_per_image(sr, hr, channels="y", crop_border=crop_border))
        for value, a, b in zip(values.tolist(), sr, hr, strict=True):
            y_sr, y_hr = (rgb2ycbcr(x.permute(1, 2, 0).double().numpy())[..., 0][inner] for x in (a, b))
            assert value == pytest.approx(peak_signal_noise_ratio(y_hr, y_sr, data_range=255), abs=1e-4)

    def test_full_range_luma_would_be_off_by_more_than_a_decibel(self):
        sr, hr = pair()
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        full_range = ((sr - hr) * weights).sum(1).square().mean(dim=(1, 2))
        limited = metrics.mse_per_image(sr, hr, channels="y")
        gap = metrics.psnr_from_mse(limited) - metrics.psnr_from_mse(full_range)
        assert gap.tolist() == pytest.approx([1.32, 1.32], abs=0.01)

    def test_half_precision_is_scored_in_full(self):
        sr, hr = pair()
        coarse = sr.bfloat16()
        expected = metrics.mse_per_image(coarse.float(), hr)
        assert torch.equal(metrics.mse_per_image(coarse, hr.clone()), expected)

    @examples
    @given(seeds)
    def test_of_an_image_with_itself_is_infinite(self, seed):
        _, hr = pair(seed)
        for channels in ("rgb", "y"):
            assert metrics.psnr_from_mse(metrics.mse_per_image(hr, hr, channels=channels)).tolist() == [math.inf] * 2

    def test_of_one_image_does_not_depend_on_its_batch(self):
        sr, hr = pair(count=5)
        together = metrics.mse_per_image(sr, hr)
        alone = torch.cat([metrics.mse_per_image(sr[i : i + 1], hr[i : i + 1]) for i in range(5)])
        assert torch.allclose(together, alone, rtol=1e-6, atol=0)

    def test_is_nan_where_the_border_takes_everything(self):
        sr, hr = pair(height=8, width=30)
        assert metrics.mse_per_image(sr, hr, crop_border=4).isnan().all()
        assert metrics.mse_per_image(sr, hr, crop_border=5).isnan().all()
        assert metrics.mse_per_image(sr, hr, crop_border=3).isfinite().all()

    def test_shapes_must_agree(self):
        with pytest.raises(ContractError, match=r"\(2, 3, 48, 61\).*got \(2, 3, 48, 60\)"):
            metrics.mse_per_image(torch.zeros(2, 3, 48, 60), torch.zeros(2, 3, 48, 61))

    def test_unknown_channels_and_borders(self):
        x = torch.zeros(1, 3, 4, 4)
        with pytest.raises(UsageError, match="'lab'"):
            metrics.mse_per_image(x, x, channels="lab")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="got -1"):
            metrics.mse_per_image(x, x, crop_border=-1)


class TestPooledPsnr:
    def test_pools_the_error_before_the_logarithm(self):
        mse = np.array([1e-2, 1e-4])
        per_image = metrics.psnr_from_mse(torch.from_numpy(mse)).mean().item()
        assert per_image == pytest.approx(30.0)
        assert metrics.psnr_pooled(mse, 2).value == pytest.approx(-10 * math.log10(0.00505))

    def test_equals_the_psnr_of_the_whole_batch(self):
        sr, hr = pair(count=6)
        expected = torch.stack([-10 * (sr[i : i + 3] - hr[i : i + 3]).square().mean().log10() for i in (0, 3)]).mean()
        assert metrics.psnr_pooled(metrics.mse_per_image(sr, hr).numpy(), 3).value == pytest.approx(
            expected.item(), abs=1e-5
        )

    def test_leaves_out_the_incomplete_batch(self):
        result = metrics.psnr_pooled(np.array([0.1, 0.1, 0.01, 0.01, 1.0]), 2)
        assert result.value == pytest.approx(15.0)
        assert (result.n, result.n_images, result.n_infinite) == (2, 4, 0)

    def test_counts_batches_without_error(self):
        result = metrics.psnr_pooled(np.array([0.0, 0.0, 0.1, 0.1]), 2)
        assert (result.value, result.n, result.n_infinite) == (pytest.approx((100 + 10) / 2), 2, 1)
        assert metrics.psnr_pooled(np.zeros(2), 2).value == math.inf

    def test_without_a_complete_batch(self):
        with pytest.raises(UsageError, match="at least 60 images, got 59"):
            metrics.psnr_pooled(np.ones(59), 60)

    @examples
    @given(st.lists(st.floats(1e-6, 1.0), min_size=4, max_size=40))
    def test_is_never_above_the_mean_over_images(self, values):
        mse = np.array(values[: len(values) // 4 * 4])
        assert metrics.psnr_pooled(mse, 4).value <= (-10 * np.log10(mse)).mean() + 1e-9


class TestReference:
    @pytest.mark.parametrize("options", [{}, {"channels": "y", "crop_border": 4}])
    def test_serves_several_sr_as_one_each(self, options, monkeypatch):
        _, hr = pair(count=5)
        monkeypatch.setattr(metrics.image, "_SSIM_CHUNK_CPU", 2 * 4 * hr[:1].numel())
        reference = metrics.HrStatistics(hr, **options)
        for seed in range(3):
            sr, _ = pair(seed, count=5)
            assert torch.equal(reference.mse(sr), metrics.mse_per_image(sr, hr, **options))
            assert torch.equal(reference.ssim(sr), metrics.ssim_per_image(sr, hr, **options))

    def test_refuses_another_shape(self):
        reference = metrics.HrStatistics(torch.zeros(2, 3, 20, 20))
        for measure in (reference.mse, reference.ssim):
            with pytest.raises(ContractError, match=r"\(2, 3, 20, 20\), got \(1, 3, 20, 20\)"):
                measure(torch.zeros(1, 3, 20, 20))
        with pytest.raises(ContractError, match=r"expected hr of the shape \(N, C, H, W\), got \(3, 20, 20\)"):
            metrics.HrStatistics(torch.zeros(3, 20, 20))


class TestSsim:
    @pytest.mark.parametrize("size", [(48, 61), (11, 11), (12, 200)])
    def test_equals_scikit_image_on_rgb(self, size):
        sr, hr = pair(height=size[0], width=size[1])
        expected = [skimage_ssim(a, b) for a, b in zip(sr, hr, strict=True)]
        assert metrics.ssim_per_image(sr, hr).tolist() == pytest.approx(expected, abs=1e-5)

    def test_equals_scikit_image_on_luma_and_border(self):
        sr, hr = pair()
        y_sr, y_hr = (metrics.to_y(x)[..., 4:-4, 4:-4] for x in (sr, hr))
        expected = [skimage_ssim(a, b) for a, b in zip(y_sr, y_hr, strict=True)]
        assert metrics.ssim_per_image(sr, hr, channels="y", crop_border=4).tolist() == pytest.approx(expected, abs=1e-5)

    def test_keeps_its_digits_on_a_bright_flat_image(self):
        generator = torch.Generator().manual_seed(3)
        hr = 0.98 + 0.02 * torch.rand(1, 3, 40, 40, generator=generator)
        sr = (hr + 0.002 * torch.randn(hr.shape, generator=generator)).clamp(0, 1)
        assert metrics.ssim_per_image(sr, hr).item() == pytest.approx(skimage_ssim(sr[0], hr[0]), abs=1e-5)

    def test_leaves_out_the_padded_border(self):
        from torchmetrics.functional.image import structural_similarity_index_measure

        sr, hr = pair()
        padded, full = structural_similarity_index_measure(
            sr, hr, data_range=1.0, reduction="none", return_full_image=True
        )
        ours = metrics.ssim_per_image(sr, hr)
        cropped = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)).double()
        assert torch.allclose(ours, cropped, atol=1e-4)
        assert (ours - padded.double()).abs().max() > 1e-3

    def test_does_not_depend_on_how_the_batch_is_cut(self, monkeypatch):
        sr, hr = pair(count=5)
        whole = metrics.ssim_per_image(sr, hr)
        monkeypatch.setattr(metrics.image, "_SSIM_CHUNK_CPU", 2 * 4 * sr[:1].numel())
        assert torch.allclose(metrics.ssim_per_image(sr, hr), whole, atol=1e-6)

    def test_ignores_autocast(self):
        sr, hr = pair()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = metrics.ssim_per_image(sr, hr)
        assert torch.equal(inside, metrics.ssim_per_image(sr, hr))

    @pytest.mark.parametrize("size", [(11, 43), (42, 42), (43, 97), (150, 20)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_products_filter_as_sums_do(self, size, dtype):
        maps = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(4), dtype=dtype) - 0.5
        by_products, by_sums = metrics.image._by_products(maps), metrics.image._by_sums(maps)
        assert by_products.shape == (2, 3, size[0] - 10, size[1] - 10) and by_products.dtype == dtype
        assert torch.allclose(by_products, by_sums, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-15)

    def test_ignores_that_a_process_multiplies_in_less_than_float32(self):
        sr, hr = pair()
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            inside = metrics.ssim_per_image(sr, hr)
        finally:
            torch.set_float32_matmul_precision(before)
        assert torch.allclose(inside, metrics.ssim_per_image(sr, hr), rtol=0, atol=1e-6)

    def test_leaves_its_inputs_alone(self):
        sr, hr = pair()
        before = sr.clone(), hr.clone()
        metrics.ssim_per_image(sr, hr)
        assert torch.equal(sr, before[0]) and torch.equal(hr, before[1])

    def test_is_nan_where_the_window_does_not_fit(self):
        sr, hr = pair(height=10, width=40)
        assert metrics.ssim_per_image(sr, hr).isnan().tolist() == [True, True]
        sr, hr = pair(height=18, width=40)
        assert metrics.ssim_per_image(sr, hr, crop_border=4).isnan().all()
        assert metrics.ssim_per_image(sr, hr, crop_border=3).isfinite().all()

    @examples
    @given(seeds)
    def test_of_an_image_with_itself_is_one(self, seed):
        _, hr = pair(seed)
        assert metrics.ssim_per_image(hr, hr).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)

    @examples
    @given(seeds)
    def test_is_symmetric_and_at_most_one(self, seed):
        sr, hr = pair(seed)
        one, other = metrics.ssim_per_image(sr, hr), metrics.ssim_per_image(hr, sr)
        assert torch.allclose(one, other, atol=1e-6)
        assert (one < 1.0).all()

    @pytest.mark.gpu
    def test_is_the_same_on_a_gpu(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        sr, hr = pair()
        on_gpu = metrics.ssim_per_image(sr.cuda(), hr.cuda()).cpu()
        assert torch.allclose(on_gpu, metrics.ssim_per_image(sr, hr), atol=1e-5)


class TestLogits:
    def logits(self, seed: int = 0, *, count: int = 64, classes: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, classes, generator=generator) * 3, torch.randint(
            0, classes, (count,), generator=generator
        )

    def test_cross_entropy_is_minus_the_log_of_the_probability(self):
        from scipy.special import log_softmax

        logits, labels = self.logits()
        expected = -log_softmax(logits.double().numpy(), axis=1)[np.arange(64), labels.numpy()]
        assert metrics.cross_entropy(logits, labels).numpy() == pytest.approx(expected, abs=1e-5)

    def test_confidence_of_hand_made_scores(self):
        logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
        assert metrics.confidence(logits).tolist() == pytest.approx([0.5, 0.75])

    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_topk_equals_scikit_learn(self, k):
        from sklearn.metrics import top_k_accuracy_score

        logits, labels = self.logits()
        expected = top_k_accuracy_score(labels, logits, k=k, labels=np.arange(12))
        assert metrics.topk_hit(logits, labels, k=k).double().mean().item() == pytest.approx(expected)

    @examples
    @given(seeds, st.integers(2, 8))
    def test_top1_is_argmax_and_at_most_top5_with_ties(self, seed, classes):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randint(0, 3, (50, classes), generator=generator).float()
        labels = torch.randint(0, classes, (50,), generator=generator)
        top1 = metrics.topk_hit(logits, labels, k=1)
        assert torch.equal(top1, logits.argmax(1) == labels)
        assert (top1 <= metrics.topk_hit(logits, labels, k=5)).all()

    def test_topk_is_capped_at_the_number_of_classes(self):
        logits, labels = self.logits(classes=3)
        assert metrics.topk_hit(logits, labels, k=5).all()

    def test_constant_or_broken_logits_are_no_hits_everywhere(self):
        labels = torch.arange(10)
        assert metrics.topk_hit(torch.zeros(10, 10), labels).sum().item() == 5
        assert not metrics.topk_hit(torch.full((10, 10), math.nan), labels).any()

    def test_k_below_one(self):
        logits, labels = self.logits()
        with pytest.raises(UsageError, match="got 0"):
            metrics.topk_hit(logits, labels, k=0)

    def test_logit_mse_hand_made(self):
        a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
        assert metrics.logit_mse(a, b).tolist() == [2.5]

    def test_kl_equals_scipy_and_takes_the_original_first(self):
        from scipy.special import softmax
        from scipy.stats import entropy

        logits, _ = self.logits(1)
        logits_hr, _ = self.logits(2)
        p, p_hr = (softmax(x.double().numpy(), axis=1) for x in (logits, logits_hr))
        assert metrics.kl_to_hr(logits, logits_hr).numpy() == pytest.approx(entropy(p_hr, p, axis=1), rel=1e-4)

    def test_kl_of_equal_scores_is_zero_and_never_negative(self):
        logits, _ = self.logits()
        assert metrics.kl_to_hr(logits, logits).tolist() == [0.0] * 64
        assert (metrics.kl_to_hr(logits, logits + 1e-6 * torch.randn_like(logits)) >= 0).all()

    def test_kl_with_impossible_classes(self):
        masked = torch.tensor([[0.0, 1.0, -math.inf]])
        other = torch.tensor([[1.0, 0.0, -math.inf]])
        assert metrics.kl_to_hr(masked, other).item() == pytest.approx(
            metrics.kl_to_hr(masked[:, :2], other[:, :2]).item()
        )

    def test_half_precision_is_scored_in_full(self):
        logits, labels = self.logits()
        half = logits.bfloat16()
        assert torch.equal(metrics.cross_entropy(half, labels), metrics.cross_entropy(half.float(), labels))
        assert metrics.kl_to_hr(half, logits).dtype == torch.float32

    def test_shapes_must_agree(self):
        with pytest.raises(ContractError, match="logits of the shape"):
            metrics.logit_mse(torch.zeros(2, 3), torch.zeros(2, 4))


class TestCalibration:
    def test_hand_made(self):
        # One bin of width 1/2 holds 0.3 and 0.5, the other 0.9 twice.
        conf = np.array([0.3, 0.5, 0.9, 0.9])
        correct = np.array([True, False, True, False])
        expected = 0.5 * abs(0.5 - 0.4) + 0.5 * abs(0.5 - 0.9)
        assert metrics.expected_calibration_error(conf, correct, bins=2) == pytest.approx(expected)

    def test_equals_torchmetrics(self):
        from torchmetrics.functional.classification import binary_calibration_error

        rng = np.random.default_rng(0)
        conf = rng.uniform(0.01, 0.99, 2000)
        correct = rng.random(2000) < conf**2
        # Its binary form bins the probability of the positive class, here "the prediction is right".
        expected = binary_calibration_error(torch.from_numpy(conf), torch.from_numpy(correct).int(), n_bins=15)
        assert metrics.expected_calibration_error(conf, correct) == pytest.approx(float(expected), abs=1e-6)

    def test_takes_the_ends(self):
        assert metrics.expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0

    def test_empty_or_unequal(self):
        with pytest.raises(UsageError, match="at least one"):
            metrics.expected_calibration_error(np.array([]), np.array([]))
        with pytest.raises(UsageError, match="as many"):
            metrics.expected_calibration_error(np.array([0.5]), np.array([True, False]))


class TestPerClass:
    names = tuple(f"class {i}" for i in range(30))

    def sample(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = rng.choice(np.arange(0, 30, 3), 400)
        return labels, np.where(rng.random(400) < 0.5, labels, rng.integers(0, 30, 400))

    def test_equals_scikit_learn_on_every_present_class(self):
        labels, predictions = self.sample()
        predictions[labels == 6] = 7
        predictions[predictions == 6] = 7
        table = metrics.per_class_table(labels, predictions, self.names)
        present = np.unique(labels)
        precision, recall, f1, support = precision_recall_fscore_support(
            labels, predictions, labels=present, zero_division=0
        )
        assert table["class_index"].tolist() == present.tolist()
        assert table["class"].tolist() == [self.names[i] for i in present]
        assert table["support"].tolist() == support.tolist()
        assert table["predicted"].tolist() == [(predictions == i).sum() for i in present]
        for column, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert table[column].to_numpy() == pytest.approx(expected, abs=1e-12)
        assert table.loc[table["class_index"] == 6, ["precision", "recall", "f1"]].to_numpy().tolist() == [[0, 0, 0]]

    def test_macro_is_scikit_learns_over_the_labels(self):
        labels, predictions = self.sample(1)
        expected = f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0)
        table = metrics.per_class_table(labels, predictions, self.names)
        assert metrics.f1_macro(table) == pytest.approx(expected, abs=1e-12)

    def test_recall_weighted_by_support_is_the_accuracy(self):
        labels, predictions = self.sample(2)
        table = metrics.per_class_table(labels, predictions, self.names)
        assert np.average(table["recall"], weights=table["support"]) == pytest.approx(
            accuracy_score(labels, predictions)
        )

    @examples
    @given(st.lists(st.integers(0, 29), min_size=1, max_size=60))
    def test_of_perfect_predictions_is_one(self, labels):
        table = metrics.per_class_table(np.array(labels), np.array(labels), self.names)
        assert metrics.f1_macro(table) == 1.0
        assert (table[["precision", "recall", "f1"]] == 1.0).all(axis=None)

    def test_predictions_without_a_name_lower_recall(self):
        table = metrics.per_class_table(np.array([0, 0]), np.array([0, 999]), ["a"])
        assert table.loc[0, ["precision", "recall"]].tolist() == [1.0, 0.5]

    def test_labels_without_a_name(self):
        with pytest.raises(UsageError, match=r"from 0 to 29.*0 to 30"):
            metrics.per_class_table(np.array([0, 30]), np.array([0, 0]), self.names)

    def test_macro_of_nothing(self):
        empty = metrics.per_class_table(np.array([], dtype=int), np.array([], dtype=int), self.names)
        with pytest.raises(UsageError, match="at least one labelled"):
            metrics.f1_macro(empty)


class TestRoc:
    def test_equals_scikit_learns_micro_average(self):
        rng = np.random.default_rng(0)
        labels = np.arange(300) % 4
        scores = rng.dirichlet(np.ones(4), 300) + 0.3 * np.eye(4)[labels]
        expected = roc_auc_score(labels, scores / scores.sum(1, keepdims=True), average="micro", multi_class="ovr")
        assert metrics.roc_auc_micro(scores / scores.sum(1, keepdims=True), labels) == pytest.approx(expected)

    def test_of_two_classes_and_perfect_scores(self):
        assert metrics.roc_auc_micro(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])) == 1.0
        assert metrics.roc_auc_micro(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 0])) == 0.0

    def test_a_class_without_labels_is_allowed(self):
        scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
        assert metrics.roc_auc_micro(scores, np.array([0, 1])) == 1.0

    def test_shapes_and_labels(self):
        with pytest.raises(UsageError, match="at least two classes"):
            metrics.roc_auc_micro(np.ones((3, 1)), np.zeros(3, dtype=int))
        with pytest.raises(UsageError, match="all in 0 to 1"):
            metrics.roc_auc_micro(np.ones((2, 2)), np.array([0, 2]))
