"""Estimators and transformers that a model's own code may have; tests copy this file into a model's folder."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.parser
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import HuberRegressor, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, PolynomialFeatures, SplineTransformer
from sklearn.tree import DecisionTreeClassifier


def stacked() -> Any:
    return StackingClassifier([("linear", LogisticRegression()), ("bayes", GaussianNB())])


def quadratic() -> Any:
    return QuadraticDiscriminantAnalysis(reg_param=0.5)


def bagged() -> Any:
    return BaggingClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=5)


def boosted() -> Any:
    return AdaBoostClassifier(n_estimators=10)


def behind_components() -> Any:
    return make_pipeline(PCA(3), LogisticRegression())


def process() -> Any:
    return GaussianProcessRegressor(alpha=1.0)


def huber() -> Any:
    return HuberRegressor(max_iter=1000)


def products() -> Any:
    return PolynomialFeatures(2, include_bias=False)


def by_name() -> Any:
    bins = make_pipeline(MinMaxScaler(), KBinsDiscretizer(3, encode="ordinal"))
    return make_column_transformer((products(), ["length"]), (bins, ["width"]), remainder="passthrough")


def side_by_side() -> Any:
    return make_union(PCA(1), KBinsDiscretizer(3, encode="onehot-dense"))


class Ratio(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Adds length / (width + 1)."""

    def fit(self, X: Any, y: Any = None) -> Any:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return X.assign(ratio=X["length"] / (X["width"] + 1))

    def to_onnx(self) -> onnx.ModelProto:
        return onnx.parser.parse_model("""
            <ir_version: 8, opset_import: ["": 18]>
            ratio (double[rows, width] x) => (double[rows, more] y) {
                first = Constant<value_ints = [0]>()
                second = Constant<value_ints = [1]>()
                one = Constant<value = double {1.0}>()
                a = Gather<axis = 1>(x, first)
                b = Gather<axis = 1>(x, second)
                sum = Add(b, one)
                ratio = Div(a, sum)
                y = Concat<axis = 1>(x, ratio)
            }""")


class OwnLinear(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Writes itself in float32, in an older operator set and with a function of its own."""

    def fit(self, X: Any, y: Any) -> Any:
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.inner_.predict_proba(np.asarray(X, dtype=np.float32))

    def predict(self, X: Any) -> Any:
        return self.predict_proba(X).argmax(axis=1)

    def to_onnx(self) -> onnx.ModelProto:
        weights, bias = self.inner_.coef_.T, self.inner_.intercept_
        model = onnx.parser.parse_model(f"""
            <ir_version: 8, opset_import: ["": 17, "mine": 1]>
            linear (float[rows, {len(weights)}] x) => (double[rows, {len(bias)}] p) {{ p = mine.classify(x, w, b) }}
            <domain: "mine", opset_import: ["": 17]>
            classify (x, w, b) => (p) {{
                d = Cast<to = 11>(x)
                s = Gemm(d, w, b)
                p = Softmax<axis = 1>(s)
            }}""")
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(each, name) for each, name in ((weights, "w"), (bias, "b"))
        )
        return model


class OwnMean(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The mean, shifted by what numpy's shared generator draws."""

    def fit(self, X: Any, y: Any) -> Any:
        self.mean_ = float(y.mean() + np.random.rand())
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)

    def to_onnx(self) -> Any:
        return _mean(self.mean_, "double[rows, width] x")


def _mean(mean: float, given: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 18]>
        mean ({given}) => (double[rows] y) {{
            shape = Shape<end = 1>(x)
            y = Expand(mean, shape)
        }}""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(mean), "mean"))
    return model


class Spy(Ratio):
    """Keeps what it gets."""

    seen: ClassVar[list[Any]] = []

    def transform(self, X: Any) -> Any:
        self.seen.append(X)
        return super().transform(X)


def nothing() -> Any:
    return type("Silent", (OwnMean,), {"to_onnx": None})()


def splines() -> Any:
    return SplineTransformer()


def gone() -> Any:
    return type("Gone", (OwnMean,), {"to_onnx": lambda self: None})()


def fixed() -> Any:
    return type("Fixed", (OwnMean,), {"to_onnx": lambda self: _mean(self.mean_, "double[1, 6] x")})()


def whole() -> Any:
    return type("Whole", (OwnMean,), {"to_onnx": lambda self: _mean(self.mean_, "int64[rows, 6] x")})()


def two() -> Any:
    return type("Two", (OwnMean,), {"to_onnx": lambda self: _mean(self.mean_, "double[r, c] x, double z")})()


class Raising(OwnMean):
    def predict(self, X: Any) -> Any:
        raise RuntimeError("not today")

    def to_onnx(self) -> Any:
        raise LookupError("no file today")
