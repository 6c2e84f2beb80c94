"""How the trained models behave: what must not change an answer, what must, and what none may get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.predictor import Classifier
from tests.training.project import Project
from training.data.dataset import TEST_FILE, TRAIN_FILE, Profile, Split, read_profile, read_split
from training.results import report

NAMES = ("logistic_regression", "decision_tree", "random_forest", "svm", "xgboost")


@pytest.fixture
def profile(trained: Project) -> Profile:
    return read_profile()


@pytest.fixture
def test_rows(profile: Profile) -> Split:
    return read_split(TEST_FILE, profile)


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, trained: Project, profile: Profile) -> Classifier:
    path = report.directory(request.param) / "model.onnx"
    return Classifier(path.read_bytes(), profile.layout)


class TestInvariance:
    def test_an_answer_does_not_depend_on_its_neighbours(self, model: Classifier, test_rows: Split) -> None:
        together = model.predict(test_rows.numbers)[1]
        order = np.random.default_rng(0).permutation(len(test_rows))
        assert model.predict(test_rows.numbers[order])[1] == pytest.approx(together[order], abs=1e-6)
        for row in range(len(test_rows)):
            alone = model.predict(test_rows.numbers[row : row + 1])[1]
            assert alone[0] == pytest.approx(together[row], abs=1e-6)

    def test_probabilities_are_shares_and_the_label_is_the_largest(
        self, model: Classifier, test_rows: Split
    ) -> None:
        label, probabilities = model.predict(test_rows.numbers)
        assert (probabilities >= 0).all()
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(test_rows)), abs=1e-5)
        assert (label == probabilities.argmax(axis=1)).all()

    def test_reading_a_ruler_a_hair_off_changes_few_answers(
        self, model: Classifier, test_rows: Split
    ) -> None:
        noise = np.random.default_rng(0).uniform(-0.04, 0.04, test_rows.numbers.shape)
        exact, near = model.predict(test_rows.numbers)[0], model.predict(test_rows.numbers + noise)[0]
        assert (exact != near).mean() <= 0.1


class TestDirection:
    def test_larger_petals_speak_for_virginica(self, model: Classifier, profile: Profile) -> None:
        """From a typical versicolor on, with petals growing: virginica gains and setosa does not."""
        values = _centre(profile, "versicolor")
        petals = [profile.layout.numbers.index(each) for each in ("petal_length", "petal_width")]
        steps = np.tile(values, (12, 1))
        steps[:, petals] += np.linspace(0, 1, 12)[:, None] * np.array([1.6, 0.8])
        probabilities = model.predict(steps)[1]
        virginica = probabilities[:, profile.classes.index("virginica")]
        setosa = probabilities[:, profile.classes.index("setosa")]
        assert virginica[-1] > virginica[0] + 0.5
        assert setosa[-1] <= setosa[0] + 0.05


class TestMinimumFunction:
    def test_a_typical_flower_of_each_species_is_known(self, model: Classifier, profile: Profile) -> None:
        for index, name in enumerate(profile.classes):
            label, probabilities = model.predict(_centre(profile, name)[None, :])
            assert label[0] == index
            assert probabilities[0, index] > 0.6

    def test_setosa_is_never_missed(self, model: Classifier, profile: Profile, test_rows: Split) -> None:
        """Its petals are far from the others': a model that misses one is broken."""
        setosa = profile.classes.index("setosa")
        label = model.predict(test_rows.numbers)[0]
        assert ((label == setosa) == (test_rows.target == setosa)).all()


def _centre(profile: Profile, name: str) -> NDArray[np.float64]:
    train = read_split(TRAIN_FILE, profile)
    median: NDArray[np.float64] = np.median(
        train.numbers[train.target == profile.classes.index(name)], axis=0
    )
    return median
