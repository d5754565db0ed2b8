"""Statistics against scipy, brute force and hand-made values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from srbench.errors import UsageError
from srbench.metrics import stats

examples = settings(max_examples=50, deadline=None, derandomize=True)


class TestCounts:
    def test_every_draw_has_n_samples(self):
        counts = np.concatenate(list(stats.resample_counts(37, 50, seed=1)))
        assert counts.shape == (50, 37)
        assert (counts.sum(axis=1) == 37).all()
        assert (counts == counts.round()).all() and counts.min() >= 0

    def test_follow_the_multinomial(self):
        counts = np.concatenate(list(stats.resample_counts(20, 4000, seed=2)))
        # Variance n p (1 - p) and covariance -n p^2 of a multinomial with p = 1/n.
        covariance = np.cov(counts.T)
        assert counts.mean(axis=0) == pytest.approx(np.ones(20), abs=0.08)
        assert np.diag(covariance) == pytest.approx(np.full(20, 0.95), abs=0.12)
        assert covariance[~np.eye(20, dtype=bool)].mean() == pytest.approx(-0.05, abs=0.01)

    def test_one_seed_gives_the_same_rows_in_blocks_of_any_size(self):
        whole = list(stats.resample_counts(30, 100, seed=3))
        parts = list(stats.resample_counts(30, 100, seed=3, values_per_draw=2**18))
        assert len(whole) == 1 and len(parts) == 25
        assert np.array_equal(np.concatenate(whole), np.concatenate(parts))
        assert not np.array_equal(whole[0], next(stats.resample_counts(30, 100, seed=4)))

    def test_are_those_of_64_bit_indices(self):
        rng = np.random.default_rng(6)
        expected = [np.bincount(rng.integers(0, 41, size=41), minlength=41) for _ in range(9)]
        assert np.array_equal(np.concatenate(list(stats.resample_counts(41, 9, seed=6))), expected)

    def test_blocks_stay_small(self):
        block = next(stats.resample_counts(50_000, seed=0))
        assert block.nbytes < 10e6 and block.shape[1] == 50_000

    @pytest.mark.parametrize(("n", "draws"), [(0, 10), (10, 0)])
    def test_nothing_to_draw(self, n, draws):
        with pytest.raises(UsageError, match="at least one sample and one draw"):
            stats.resample_counts(n, draws, seed=0)


class TestMeans:
    def test_equal_resampling_by_index(self):
        values = np.random.default_rng(0).normal(size=(40, 3))
        counts = np.concatenate(list(stats.resample_counts(40, 25, seed=5)))
        expected = [np.repeat(values, row.astype(int), axis=0).mean(axis=0) for row in counts]
        assert stats.bootstrap_means(values, draws=25, seed=5) == pytest.approx(np.array(expected))

    def test_interval_equals_scipys_percentile_bootstrap(self):
        values = np.random.default_rng(1).gamma(2.0, size=200)
        expected = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        draws = stats.bootstrap_means(values[:, None], draws=20_000, seed=7)[:, 0]
        width = expected.high - expected.low
        assert stats.interval(draws) == pytest.approx((expected.low, expected.high), abs=0.03 * width)

    def test_interval_of_an_accuracy_covers_what_it_should(self):
        rng = np.random.default_rng(2)
        covered = 0
        for trial in range(200):
            hits = rng.random((150, 1)) < 0.6
            low, high = stats.interval(stats.bootstrap_means(hits.astype(float), draws=400, seed=trial)[:, 0])
            covered += low <= 0.6 <= high
        # 95 % nominal; four standard errors of 200 trials are 6 points.
        assert 175 <= covered <= 199

    def test_are_paired(self):
        hits = (np.random.default_rng(3).random(500) < 0.5).astype(float)
        draws = stats.bootstrap_means(np.column_stack((hits, hits, 1 - hits)), draws=200, seed=0)
        assert np.array_equal(draws[:, 0], draws[:, 1])
        assert draws[:, 0] + draws[:, 2] == pytest.approx(np.ones(200))
        assert draws[:, 0].std() > 0.01

    def test_same_seed_same_draws_in_another_call(self):
        values = np.random.default_rng(4).normal(size=(50, 2))
        both = stats.bootstrap_means(values, draws=20, seed=9)
        alone = stats.bootstrap_means(values[:, 1:], draws=20, seed=9)
        assert both[:, 1] == pytest.approx(alone[:, 0])

    def test_infinite_values_are_left_out_of_their_column_alone(self):
        values = np.random.default_rng(5).normal(30, 2, size=(20, 2))
        values[3, 0] = math.inf
        counts = np.concatenate(list(stats.resample_counts(20, 30, seed=1)))
        finite = np.arange(20) != 3
        expected = (counts[:, finite] @ values[finite, 0]) / counts[:, finite].sum(axis=1)
        draws = stats.bootstrap_means(values, draws=30, seed=1)
        assert draws[:, 0] == pytest.approx(expected)
        assert draws[:, 1] == pytest.approx(counts @ values[:, 1] / 20)

    def test_columns_without_finite_values(self):
        values = np.column_stack((np.full(5, math.inf), np.full(5, math.nan), np.ones(5)))
        draws = stats.bootstrap_means(values, draws=10, seed=0)
        assert np.isposinf(draws[:, 0]).all() and np.isnan(draws[:, 1]).all() and (draws[:, 2] == 1).all()

    def test_shape(self):
        with pytest.raises(UsageError, match="samples, columns"):
            stats.bootstrap_means(np.ones(5), seed=0)


class TestInterval:
    def test_percentiles(self):
        assert stats.interval(np.arange(1001)) == pytest.approx((25, 975))
        assert stats.interval(np.arange(1001), 0.5) == pytest.approx((250, 750))

    def test_leaves_out_what_is_not_finite(self):
        assert stats.interval(np.array([1.0, math.inf, math.nan, 1.0])) == (1.0, 1.0)
        assert all(math.isnan(end) for end in stats.interval(np.array([math.nan])))

    @pytest.mark.parametrize("level", [0.0, 1.0, 95])
    def test_level(self, level):
        with pytest.raises(UsageError, match="between 0 and 1"):
            stats.interval(np.ones(3), level)


class TestF1:
    def sample(self, *, n: int = 120, classes: int = 4, methods: int = 3) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, classes, n)
        right = rng.random((n, methods)) < np.linspace(0.9, 0.4, methods)
        return labels, np.where(right, labels[:, None], rng.integers(0, classes + 2, (n, methods)))

    def brute_force(self, labels: np.ndarray, predictions: np.ndarray, draws: int, seed: int) -> np.ndarray:
        """Per-class F1 (draws, methods, classes) by scikit-learn on resampled rows."""
        counts = np.concatenate(list(stats.resample_counts(len(labels), draws, seed=seed)))
        present = np.unique(labels)
        scores = np.empty((draws, predictions.shape[1], len(present)))
        for draw, row in enumerate(counts.astype(int)):
            truth = np.repeat(labels, row)
            for method in range(predictions.shape[1]):
                guess = np.repeat(predictions[:, method], row)
                scores[draw, method] = f1_score(truth, guess, labels=present, average=None, zero_division=0)
            scores[draw][:, ~np.isin(present, truth)] = math.nan
        return scores

    def test_equals_scikit_learn_on_resampled_rows(self):
        labels, predictions = self.sample()
        labels = labels * 2  # class indices with holes; a few predictions fall on none of them
        predictions = predictions * 2
        scores = self.brute_force(labels, predictions, 40, 11)
        result = stats.bootstrap_f1(labels, predictions, references=(0, 2), draws=40, seed=11)
        assert result.classes.tolist() == [0, 2, 4, 6]
        assert result.macro == pytest.approx(scores.mean(axis=2), abs=1e-6)
        for column in (0, 2):
            low, high = np.quantile(scores - scores[:, [column]], (0.025, 0.975), axis=0)
            assert result.delta_low[column] == pytest.approx(low, abs=1e-6)
            assert result.delta_high[column] == pytest.approx(high, abs=1e-6)
            assert (result.delta_low[column][column] == 0).all() and (result.delta_high[column][column] == 0).all()

    def test_a_class_missing_from_a_draw_is_left_out_of_it(self):
        labels, predictions = self.sample(n=12)
        labels[:] = [0, 1] + [2] * 10
        scores = self.brute_force(labels, predictions, 60, 3)
        assert np.isnan(scores).any()
        result = stats.bootstrap_f1(labels, predictions, references=(0,), draws=60, seed=3)
        assert result.macro == pytest.approx(np.nanmean(scores, axis=2), abs=1e-6)
        low, high = np.nanquantile(scores - scores[:, [0]], (0.025, 0.975), axis=0)
        assert result.delta_low[0] == pytest.approx(low, abs=1e-6)
        assert result.delta_high[0] == pytest.approx(high, abs=1e-6)

    def test_does_not_depend_on_how_the_methods_are_grouped(self, monkeypatch):
        labels, predictions = self.sample(methods=5)
        whole = stats.bootstrap_f1(labels, predictions, references=(1,), draws=20, seed=0)
        monkeypatch.setattr(stats.f1, "_F1_VALUES", 20 * 4 * 2)
        monkeypatch.setattr(stats.bootstrap, "_BLOCK_VALUES", 120 * 7)
        parts = stats.bootstrap_f1(labels, predictions, references=(1,), draws=20, seed=0)
        assert np.array_equal(whole.macro, parts.macro)
        assert np.array_equal(whole.delta_low[1], parts.delta_low[1])

    def test_values_of_the_first_version(self):
        # Leaderboards must not change with the way in which these are computed. Class 5 has one label.
        labels = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, *[0, 1, 2, 3, 4, 0] * 4, 0, 1, 2, 3])
        predictions = np.column_stack([(labels + (np.arange(40) % every == 0)) % 7 for every in (3, 5, 2)])
        result = stats.bootstrap_f1(labels, predictions, references=(1,), draws=200, seed=8)
        assert result.macro[:2] == pytest.approx(
            np.array(
                [
                    [0.7275176445643107, 0.6346362034479777, 0.46613571296135586],
                    [0.5816498349110285, 0.6272554695606232, 0.3364807566006978],
                ]
            ),
            rel=1e-12,
        )
        assert result.macro.sum() == pytest.approx(344.8789427553614, rel=1e-12)
        low = [-0.6233766078948975, -0.3555786833167076, -1.0, -0.4738956585526466, -1.0, 0.1818181872367859]
        high = [0.0, 0.1337878704071046, -0.5325000271201131, 0.08583386689424517, -0.4444444477558136]
        assert result.delta_low[1][2] == pytest.approx(np.array(low), rel=1e-12)
        assert result.delta_high[1][2] == pytest.approx(np.array([*high, 0.6666666865348816]), rel=1e-12)

    def test_intervals_equal_numpy_s_quantiles_of_what_is_not_missing(self):
        rows = np.random.default_rng(7).normal(size=(6, 90)).astype(np.float32)
        rows[1, :7], rows[2, ::2], rows[3, 1:], rows[4] = math.nan, math.nan, math.nan, math.nan
        rows[5] = rows[5].round()
        kept = (~np.isnan(rows)).sum(axis=1)
        expected = [
            np.quantile(row[~np.isnan(row)], (0.05, 0.95)) if n else (math.nan,) * 2
            for row, n in zip(rows, kept, strict=True)
        ]
        found = stats.f1._row_quantiles(rows.copy(), kept, (0.05, 0.95)).T
        assert found == pytest.approx(np.array(expected), rel=1e-6, nan_ok=True)
        assert np.isnan(found[4]).all() and found[3, 0] == found[3, 1]

    def test_perfect_predictions_are_one_in_every_draw(self):
        labels, _ = self.sample()
        result = stats.bootstrap_f1(labels, labels[:, None], draws=30, seed=0)
        assert (result.macro == 1.0).all()
        assert dict(result.delta_low) == {}

    def test_shapes_and_references(self):
        labels, predictions = self.sample()
        with pytest.raises(UsageError, match="shapes"):
            stats.bootstrap_f1(labels[:-1], predictions, seed=0)
        with pytest.raises(UsageError, match=r"0 to 2, got \[3\]"):
            stats.bootstrap_f1(labels, predictions, references=(0, 3), seed=0)


class TestMcNemar:
    @examples
    @given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
    def test_equals_scipys_binomial_test(self, only_a, only_b, both):
        a = np.array([True] * only_a + [False] * only_b + [True] * both, dtype=bool)
        b = np.array([False] * only_a + [True] * only_b + [True] * both, dtype=bool)
        expected = scipy.stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
        assert stats.mcnemar_exact(a, b) == pytest.approx(expected, rel=1e-9)
        assert stats.mcnemar_exact(b, a) == stats.mcnemar_exact(a, b)

    def test_hand_made(self):
        # Five discordant pairs, all for one side: 2 x (1/2)^5.
        assert stats.mcnemar_exact(np.ones(5, dtype=bool), np.zeros(5, dtype=bool)) == pytest.approx(1 / 16)
        assert stats.mcnemar_exact(np.ones(5, dtype=bool), np.ones(5, dtype=bool)) == 1.0

    def test_large_counts_on_random_data(self):
        rng = np.random.default_rng(0)
        a, b = rng.random(50_000) < 0.55, rng.random(50_000) < 0.54
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        expected = scipy.stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert stats.mcnemar_exact(a, b) == pytest.approx(expected, rel=1e-9)

    def test_lengths(self):
        with pytest.raises(UsageError, match="same samples"):
            stats.mcnemar_exact(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


class TestHolm:
    def test_hand_made(self):
        # Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2 (raised to 0.06), 0.04 x 1 (raised to 0.06).
        assert stats.holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])

    def test_equals_rejecting_step_by_step(self):
        rng = np.random.default_rng(0)
        p = rng.beta(0.5, 3, size=9)
        adjusted = np.array(stats.holm(p.tolist()))
        for alpha in (0.01, 0.05, 0.2):
            rejected = set()
            for rank, position in enumerate(np.argsort(p)):
                if p[position] > alpha / (9 - rank):
                    break
                rejected.add(int(position))
            assert set(np.flatnonzero(adjusted <= alpha).tolist()) == rejected

    @examples
    @given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
    def test_is_monotone_at_least_p_and_passes_none_through(self, p_values):
        adjusted = stats.holm(p_values)
        assert [p is None for p in p_values] == [p is None for p in adjusted]
        pairs = sorted((p, q) for p, q in zip(p_values, adjusted, strict=True) if p is not None)
        assert all(p <= q <= 1.0 for p, q in pairs)
        assert all(left[1] <= right[1] for left, right in itertools.pairwise(pairs))

    def test_of_no_probability(self):
        with pytest.raises(UsageError, match="between 0 and 1"):
            stats.holm([0.5, 1.5])
        with pytest.raises(UsageError, match="between 0 and 1"):
            stats.holm([math.nan])


class TestRecoveredGap:
    def draws(self, *accuracies: float, n: int = 1000) -> tuple[np.ndarray, ...]:
        """Nested correctness with the given accuracies, resampled together."""
        hits = np.column_stack([np.arange(n) < round(a * n) for a in accuracies]).astype(float)
        return tuple(stats.bootstrap_means(hits, draws=500, seed=0).T)

    @pytest.mark.parametrize(("acc", "expected"), [(0.6063, 0.277), (0.7275, 0.820)])
    def test_published_values(self, acc, expected):
        # The published original, bilinear, and the two methods between them.
        assert stats.recovered_gap(acc, 0.5446, 0.7676) == pytest.approx(expected, abs=5e-4)

    def test_interval_holds_the_value_and_is_paired(self):
        own, bilinear, hr = self.draws(0.7, 0.5, 0.8)
        gap = stats.gap_interval(0.7, 0.5, 0.8, draws=own, draws_bilinear=bilinear, draws_hr=hr)
        assert gap.value == pytest.approx(2 / 3) and gap.reason is None
        shares = (own - bilinear) / (hr - bilinear)
        assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(shares, (0.025, 0.975))))
        assert gap.low < gap.value < gap.high
        assert gap.high - gap.low < 0.15

    def test_bilinear_recovers_nothing_and_the_original_everything(self):
        bilinear, hr = self.draws(0.5, 0.8)
        none = stats.gap_interval(0.5, 0.5, 0.8, draws=bilinear, draws_bilinear=bilinear, draws_hr=hr)
        everything = stats.gap_interval(0.8, 0.5, 0.8, draws=hr, draws_bilinear=bilinear, draws_hr=hr)
        assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)
        assert (everything.value, everything.low, everything.high) == (1.0, 1.0, 1.0)

    def test_draws_without_a_gap_are_left_out(self):
        # In one draw of 100 the original falls to bilinear, in another below it: shares of -infinity and of -4.
        hr, bilinear, own = np.full(100, 0.8), np.full(100, 0.5), np.linspace(0.6, 0.7, 100)
        hr[0], hr[1] = 0.5, 0.475
        gap = stats.gap_interval(0.65, 0.5, 0.8, draws=own, draws_bilinear=bilinear, draws_hr=hr)
        kept = (own[2:] - 0.5) / 0.3
        assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(kept, (0.025, 0.975))))

    @pytest.mark.parametrize("hr", [0.519, 0.5, 0.4])
    def test_is_null_where_the_gap_is_small(self, hr):
        draws = self.draws(0.5, 0.5, hr, n=10_000)
        gap = stats.gap_interval(0.5, 0.5, hr, draws=draws[0], draws_bilinear=draws[1], draws_hr=draws[2])
        assert (gap.value, gap.low, gap.high) == (None, None, None)
        assert gap.reason is not None and "above bilinear" in gap.reason

    def test_a_gap_of_exactly_the_minimum_is_kept(self):
        draws = self.draws(0.29, 0.28, 0.30, n=10_000)
        gap = stats.gap_interval(0.29, 0.28, 0.30, draws=draws[0], draws_bilinear=draws[1], draws_hr=draws[2])
        assert gap.value == pytest.approx(0.5)

    def test_is_null_where_the_interval_touches_zero(self):
        rng = np.random.default_rng(0)
        hits = (rng.random((60, 3)) < 0.6).astype(float)
        draws = stats.bootstrap_means(hits, draws=500, seed=0)
        gap = stats.gap_interval(0.6, 0.55, 0.65, draws=draws[:, 0], draws_bilinear=draws[:, 1], draws_hr=draws[:, 2])
        assert gap.value is None
        assert gap.reason is not None and "touches 0" in gap.reason

    def test_no_gap_and_unequal_draws(self):
        with pytest.raises(UsageError, match="no gap"):
            stats.recovered_gap(0.5, 0.6, 0.6)
        with pytest.raises(UsageError, match="paired"):
            stats.gap_interval(0.7, 0.5, 0.8, draws=np.ones(3), draws_bilinear=np.ones(4), draws_hr=np.ones(4))
