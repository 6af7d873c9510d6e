"""What is watched of a model is what its runtime does with those samples."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tiedexport import observation
from tiedexport.errors import RuntimeFailedError
from tiedexport.report import images
from tiedexport.session import open_session

LABELS = (4, 4, 7, 4, 1, 1, 2, 0, 9, 9)


@pytest.fixture(scope="module")
def samples(dense_bundle):
    (shape,) = dense_bundle.manifest.stage("autoencoder").inputs[0].element_shape
    return np.random.default_rng(0).random((len(LABELS), shape), np.float32)


@pytest.fixture(scope="module")
def asked():
    return []


@pytest.fixture(scope="module")
def seen(dense_bundle, samples, asked):
    def of(_, most):
        asked.append(most)
        return samples, LABELS, "ten samples"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "_samples", of)
        patch.setattr(observation, "_BATCH", 3)
        return observation.observe(dense_bundle, "reference")


def reconstructed(bundle, samples):
    with open_session(bundle, runtime="reference") as session:
        return session.reconstruct(samples)


def test_a_slow_runtime_is_asked_for_few_samples(seen, asked):
    assert asked == [64]
    assert seen.samples == "ten samples"


def test_every_sample_has_its_error_and_the_worst_are_in_order(dense_bundle, samples, seen):
    difference = reconstructed(dense_bundle, samples) - samples
    expected = np.sqrt(np.mean(difference**2, axis=1))
    np.testing.assert_allclose(seen.errors, expected, rtol=1e-5)
    worst = images.as_images(samples[np.argsort(-expected)[:8]], dense_bundle.manifest.sample_shape)
    np.testing.assert_allclose(images.from_record(seen.worst), worst, atol=0.6 / 255)
    assert list(seen.worst_errors) == sorted(seen.errors, reverse=True)[:8]


def test_interpolation_leads_from_the_first_sample_to_the_first_of_another_label(
    dense_bundle, samples, seen
):
    made = reconstructed(dense_bundle, samples[[0, 2]])
    ends = images.as_images(made, dense_bundle.manifest.sample_shape)
    shown = images.from_record(seen.interpolation)
    np.testing.assert_allclose(shown[[0, -1]], ends, atol=1 / 255)
    assert np.abs(ends[0] - ends[1]).max() > 2 / 255


def test_the_bundles_own_samples_serve_where_its_test_set_cannot_be_had(dense_bundle):
    found, labels, whence = observation._samples(dense_bundle, 64)
    assert labels == ()
    assert "reference inputs" in whence
    stage = dense_bundle.manifest.stage("autoencoder")
    np.testing.assert_array_equal(found, dense_bundle.golden[stage.inputs[0].name])


def test_codes_are_projected_on_the_axes_of_most_variance_whatever_their_shape():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(200, 2, 3)) * [[5.0, 0.1, 0.1], [0.1, 3.0, 0.1]]
    found = observation._projection(codes, (1,) * 200)
    points = np.array(found.points)
    assert abs(np.corrcoef(points[:, 0], codes[:, 0, 0])[0, 1]) > 0.99
    assert abs(np.corrcoef(points[:, 1], codes[:, 1, 1])[0, 1]) > 0.99
    assert found.explained[0] > found.explained[1] > 0.2
    assert sum(found.explained) > 0.99


def test_codes_of_one_number_and_codes_that_are_all_the_same_have_a_projection():
    line = observation._projection(np.arange(5.0)[:, np.newaxis], ())
    assert np.ptp(np.array(line.points)[:, 0]) == pytest.approx(4)
    assert not np.array(line.points)[:, 1].any()
    still = observation._projection(np.ones((4, 3)), ())
    assert still.explained == (0.0, 0.0)


@pytest.mark.parametrize(("labels", "other"), [((4, 4, 7, 4), 2), ((4, 4), 1), ((), 1)])
def test_the_way_leads_to_the_first_sample_with_another_label(labels, other):
    assert observation._other(labels) == other


def test_a_reconstruction_that_is_not_finite_is_an_error(dense_bundle, monkeypatch):
    class Broken(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    broken = Broken(
        runtime="reference", encode=lambda x: x, reconstruct=lambda x: np.full_like(x, np.nan)
    )
    monkeypatch.setattr(observation, "open_session", lambda *_, **__: broken)
    with pytest.raises(RuntimeFailedError, match="not finite"):
        observation.observe(dense_bundle)
