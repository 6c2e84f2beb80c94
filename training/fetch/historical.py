"""Joins the features of Feast to an entity frame: run by `training.fetch.feature_store` with the Python that has Feast.

A task is read from standard input as JSON: `repository`, `service`, `entities` and `output` (Parquet files), `full_names` and
`as_known`. The output has the rows of the entities in their order, and the features alone. A task that cannot be done
ends with the status `REFUSED` and one line on standard error.

Nothing of the project is imported, because the environment has Feast and what Feast needs.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

TIME = "event_timestamp"
REFUSED = 3
_ROW = "espalier_row"
_NO_ENTITY = "__dummy_id"


def main() -> None:
    task = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    import pyarrow.parquet as pq

    store = _opened(task["repository"])
    asked = _asked(store, task["service"])
    asked.check_names(full_names=task["full_names"])
    requests = requests_of(pq.read_table(task["entities"]), asked)
    # Feast takes rows with the same keys at the same time for one, and keeps no order.
    numbers = requests.groupby(list(requests.columns), sort=False, dropna=False).ngroup().to_numpy()
    distinct = requests.drop_duplicates(ignore_index=True)
    distinct[_ROW] = range(len(distinct))
    options = {"full_feature_names": task["full_names"], "filter_by_created_timestamp": task["as_known"]}
    joined = [_joined(store, distinct, call, options) for call in asked.calls]
    if not asked.by_view and len(joined[0]) < len(distinct):
        _refuse(
            f"Feast drops {len(distinct) - len(joined[0]):,} of {len(distinct):,} rows, in which a value is older than the ttl "
            "of its view: in a service with an on-demand view or an alias, give the views ttl=timedelta(0)"
        )
    table = _typed(joined, asked, len(distinct), full_names=task["full_names"])
    pq.write_table(table.take(numbers), task["output"])


@dataclass
class Asked:
    """What a feature service needs and gives.

    Attributes:
        keys: the columns that join, with Feast's types.
        inputs: the columns of a request that on-demand views compute from.
        features: view, name and Feast's type of each.
        calls: what is asked of Feast, one after the other: the features of a view, or the whole service.
        by_view: whether the calls are by view. Feast's file store drops a row if the value of one view is older than its ttl;
            asked by view, it loses the values of that view alone.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    features: list[tuple[str, str, Any]] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    by_view: bool = True

    def add(self, projection: Any, views: Mapping[str, Any]) -> None:
        """Add a view as the service has it."""
        view, name = views[projection.name], projection.name_to_use()
        self.features += [(name, each.name, each.dtype) for each in projection.features]
        self.calls.append([f"{name}:{each.name}" for each in projection.features])
        sources = getattr(view, "source_feature_view_projections", None)
        if sources is not None or name != projection.name or projection.join_key_map:
            self.by_view = False
        if sources is None:
            self._add_keys(view, projection)
            return
        for source in sources.values():
            self._add_keys(views[source.name], source)
        for each in view.source_request_sources.values():
            self.inputs += [one.name for one in each.schema if one.name not in self.inputs]

    def _add_keys(self, view: Any, projection: Any) -> None:
        for each in view.entity_columns:
            if each.name != _NO_ENTITY:
                self.keys[projection.join_key_map.get(each.name, each.name)] = each.dtype

    def check_names(self, *, full_names: bool) -> None:
        by_name: dict[str, list[str]] = {}
        for view, name, _ in self.features:
            by_name.setdefault(f"{view}__{name}" if full_names else name, []).append(view)
        for name, views in by_name.items():
            if len(views) > 1:
                _refuse(
                    f"feature {name!r} is in the views {' and '.join(views)} of the service: set data.feast.full_names: true, "
                    f"which makes {views[0]}__{name} of it"
                )


def _opened(repository: str) -> Any:
    from feast import FeatureStore

    try:
        return FeatureStore(repo_path=repository)
    except Exception as error:  # Feast's families of errors have no common class
        _refuse(f"cannot open the Feast repository {repository}: {_line(error)}")


def _asked(store: Any, name: str) -> Asked:
    from feast.errors import FeatureServiceNotFoundException

    try:
        service = store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        known = ", ".join(sorted(each.name for each in store.list_feature_services())) or "none"
        _refuse(
            f"Feast has no feature service {name!r}; there is {known}: run `feast apply`, or correct data.source"
        )
    views = {each.name: each for each in store.list_all_feature_views()}
    made = Asked()
    for projection in service.feature_view_projections:
        made.add(projection, views)
    if not made.by_view:
        made.calls = [service]
    return made


def requests_of(entities: Any, asked: Asked) -> Any:
    """The columns that Feast joins by, with the types that it declares."""
    import pandas as pd

    needed = [*asked.keys, TIME, *asked.inputs]
    lacking = [name for name in needed if name not in entities.column_names]
    if lacking:
        _refuse(
            f"the entities have no column {', '.join(map(repr, lacking))}, which Feast joins by; they have "
            f"{', '.join(entities.column_names)}"
        )
    frame = entities.select(list(dict.fromkeys(needed))).to_pandas(integer_object_nulls=True)
    for name in (*asked.keys, TIME):
        empty = frame[name].isna() | (frame[name] == "")
        if empty.any():
            _refuse(f"the entities: {name} is empty in row {int(empty.to_numpy().argmax()) + 1}")
    try:
        frame[TIME] = pd.to_datetime(frame[TIME], utc=True, format="ISO8601").astype("datetime64[ns, UTC]")
    except (ValueError, TypeError) as error:
        _refuse(f"the entities: {TIME} has a value that is no time: {_line(error)}")
    for name, kind in asked.keys.items():
        try:
            frame[name] = _as_key(frame[name], kind)
        except (ValueError, TypeError, OverflowError):
            _refuse(f"the entities: {name} has a value that is no {kind}, as Feast declares the key")
    return frame


def _as_key(column: Any, kind: Any) -> Any:
    """Keys as Feast declares them: those of a CSV file are text."""
    import pandas as pd

    name = str(kind)
    if name in ("Int32", "Int64"):
        # By text, because a float holds no large number.
        return column.map(lambda value: int(value) if isinstance(value, str | int) else _whole(value)).astype(
            "int64"
        )
    return column.astype(str) if name == "String" else pd.Series(column)


def _whole(value: Any) -> int:
    if value != int(value):
        raise ValueError(value)
    return int(value)


def _joined(store: Any, rows: Any, features: Any, options: Mapping[str, bool]) -> Any:
    """The features of the rows that Feast kept, by the number of the row."""
    try:
        table = store.get_historical_features(entity_df=rows.copy(), features=features, **options).to_df()
    except NotImplementedError as error:
        _refuse(f"Feast: {_line(error)}; data.feast.as_known: false does without")
    except Exception as error:  # stores raise what their clients raise
        _refuse(f"Feast cannot join the features: {_line(error)}")
    table = table.set_index(_ROW)
    if table.index.has_duplicates:
        _refuse(
            "Feast returns several rows for one entity and time: its source has duplicates that it cannot tell apart"
        )
    return table


def _typed(joined: Sequence[Any], asked: Asked, rows: int, *, full_names: bool) -> Any:
    """The features of so many rows, as Arrow has Feast's types: pandas makes floats of integers if one is missing."""
    import pyarrow as pa
    from feast.types import from_feast_to_pyarrow_type

    arrays = {}
    for view, feature, kind in asked.features:
        name = f"{view}__{feature}" if full_names else feature
        column = next(each[name] for each in joined if name in each.columns)
        try:
            arrays[name] = pa.Array.from_pandas(column.reindex(range(rows))).cast(
                from_feast_to_pyarrow_type(kind)
            )
        except (pa.ArrowException, ValueError) as error:
            _refuse(f"feature {name!r} does not have the type {kind} that its view declares: {_line(error)}")
    return pa.table(arrays)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _refuse(reason: str) -> NoReturn:
    print(reason, file=sys.stderr)
    raise SystemExit(REFUSED)


if __name__ == "__main__":
    main()
