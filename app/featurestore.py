"""Looks up the features of an entity in Feast's online store, if it is enabled.

An instance may have the key `entity`, such as `{"entity": {"driver_id": 1001}}`. The features that it leaves out are asked of
Feast's feature server, and put into the request before anything else sees it. So checks, explanations and the prediction
log treat them like features that a client sends.

No request waits longer than the time limit, and the number of connections is bounded. Without an answer in time the client
gets a 503.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, NoReturn
from urllib.parse import SplitResult, urlsplit

import orjson
from prometheus_client import CollectorRegistry
from pydantic_core import from_json

from app.contract import DatetimeFeature, Feature, Manifest
from app.errors import Detail, RequestError, invalid
from app.httpclient import AnswerError, Client
from app.metrics import FeatureStoreMetrics
from app.schema import ENTITY
from app.settings import PREFIX, KeyType, Settings, SettingsError

SOURCE = "feast:"
"""Before the name of the feature service in the bundle's `data.source`."""
MAX_ENTITIES = 1000
"""Of a request."""
MAX_KEY_LENGTH = 256

_INLINE_BYTES = 16 * 1024
"""Larger bodies are read and written in a thread."""
_REPORT_SECONDS = 60
_MENTIONED = b'"%b"' % ENTITY.encode()
_ESCAPED = b"\\"
"""A key may be written with escapes."""
_NO_TIME = -(2**63)
"""What Feast sends for a time that is missing."""

_log = logging.getLogger("app.featurestore")

Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Value:
    """What the store has of a feature of an entity."""

    value: Any
    why_missing: Literal["not_found", "expired"] | None = None


class FeatureStore:
    """A client of Feast's feature server.

    Args:
        settings: of the service, with `feature_store` set.
        manifest: of the model.
        registry: of the metrics.

    Raises:
        SettingsError: a setting is missing or invalid. The store is not contacted: the service must be able to start while it
            is away.
    """

    def __init__(self, settings: Settings, manifest: Manifest, registry: CollectorRegistry) -> None:
        url = _checked_url(settings.feature_store)
        self._service = _service_of(settings, manifest)
        self.keys = settings.feature_store_keys
        if not self.keys:
            raise SettingsError(
                f"{PREFIX}FEATURE_STORE_KEYS is not set: name the keys of an entity with their types, such as driver_id:int"
            )
        self._features: dict[str, Feature] = {each.name: each for each in manifest.features}
        self._client = Client(url, "/get-online-features", settings.feature_store_connections)
        self._seconds = settings.feature_store_timeout
        self._max_age = settings.feature_store_max_age
        self._metrics = FeatureStoreMetrics(list(self._features), registry)
        self._places: dict[tuple[str, ...], dict[str, int]] = {}
        self._reported = -float(_REPORT_SECONDS)

    @staticmethod
    def is_asked_for(body: bytes | bytearray) -> bool:
        """Whether a body may name an entity."""
        return _MENTIONED in body or _ESCAPED in body

    async def complete(self, body: bytes) -> bytes:
        """The body of a prediction with the features of its entities in their place, or the same body if it names none.

        Features that the client sends count, not those of the store.

        Raises:
            RequestError: 413 for too many entities; 422 that names an invalid key, or a feature of which the store has no value
                and without which the model does not predict; 503 if the store does not answer in time.
        """
        large = len(body) > _INLINE_BYTES
        try:
            document = await asyncio.to_thread(from_json, body) if large else from_json(body)
        except ValueError:
            return body
        instances = self._with_entity(document)
        if not instances:
            return body
        if len(instances) > MAX_ENTITIES:
            raise RequestError(
                413,
                "too_many_rows",
                f"{len(instances)} entities are too many: send at most {MAX_ENTITIES} in a request",
                reason="too_large",
            )
        keys = self._taken_keys(instances)
        if any(not self._features.keys() <= instance.keys() for instance in instances.values()):
            distinct = list(dict.fromkeys(keys))
            places = {key: place for place, key in enumerate(distinct)}
            found = await self._asked(distinct)
            self._put([places[key] for key in keys], instances, found)
        # Unlike orjson it writes NaN and large integers as they were sent, which the schema refuses.
        written = await asyncio.to_thread(json.dumps, document) if large else json.dumps(document)
        return written.encode()

    def _with_entity(self, document: Any) -> dict[str, dict[str, Any]]:
        """The instances with an entity, by their place in the document."""
        if not isinstance(document, dict):
            return {}
        if isinstance(document.get("columns"), dict):
            return {}  # It has no instance.
        several = document.get("instances")
        if isinstance(several, list):
            found = {f"instances.{row}.": each for row, each in enumerate(several)}
        else:
            found = {"": document}
        return {place: each for place, each in found.items() if isinstance(each, dict) and self._names(each)}

    def _names(self, instance: dict[str, Any]) -> bool:
        """Whether an instance names an entity; a feature may be called so, and has no object for a value."""
        return ENTITY in instance and (ENTITY not in self._features or isinstance(instance[ENTITY], dict))

    def _taken_keys(self, instances: Mapping[str, dict[str, Any]]) -> list[Key]:
        """Take the entities out of the instances."""
        faults: list[Detail] = []
        keys = []
        for place, instance in instances.items():
            entity = instance.pop(ENTITY)
            if not isinstance(entity, dict):
                faults.append(Detail(place + ENTITY, f"must be an object with {self._shown}", "wrong_type"))
                continue
            where = f"{place}{ENTITY}."
            for name in entity:
                if name not in self.keys:
                    faults.append(
                        Detail(where + name, f"is unknown: an entity has {self._shown}", "unknown_field")
                    )
                    break
            for name, kind in self.keys.items():
                if name not in entity:
                    faults.append(Detail(where + name, "is required", "missing_field"))
                elif not _is_key(entity[name], kind):
                    faults.append(Detail(where + name, f"must be {_KEYS[kind]}", "wrong_type"))
            keys.append(tuple(entity.get(name) for name in self.keys))
        if faults:
            raise invalid(faults)
        return keys

    @cached_property
    def _shown(self) -> str:
        return ", ".join(self.keys)

    def _put(
        self, rows: Sequence[int], instances: Mapping[str, dict[str, Any]], found: Mapping[str, list[_Value]]
    ) -> None:
        """Put the values of the store into the instances, and count them.

        Raises:
            RequestError: 422, a feature that is needed has no value.
        """
        faults = []
        counts: dict[tuple[str, str], int] = {}
        for row, (place, instance) in zip(rows, instances.items(), strict=True):
            for name, values in found.items():
                if name in instance:
                    continue
                each = values[row]
                outcome = each.why_missing or "found"
                counts[name, outcome] = counts.get((name, outcome), 0) + 1
                if each.why_missing is None:
                    instance[name] = each.value
                elif not self._features[name].missing:
                    faults.append(Detail(place + name, _MISSING[each.why_missing], "missing_field", name))
        self._metrics.count_values(counts)
        if faults:
            raise invalid(faults)

    async def _asked(self, keys: Sequence[Key]) -> dict[str, list[_Value]]:
        """Of each feature that the store has, the values of the entities."""
        question = orjson.dumps(
            {
                "feature_service": self._service,
                "entities": dict(zip(self.keys, map(list, zip(*keys, strict=True)), strict=True)),
                "full_feature_names": True,
            }
        )
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._client.post(question)
            found = self._read(answer, len(keys))
        except TimeoutError:
            self._fail("timeout", f"it did not answer within {self._seconds:g} s", started)
        except (OSError, AnswerError) as error:
            self._fail("failed", str(error) or type(error).__name__, started)
        self._metrics.observe("ok", time.perf_counter() - started)
        return found

    def _fail(self, outcome: Literal["timeout", "failed"], reason: str, started: float) -> NoReturn:
        self._metrics.observe(outcome, time.perf_counter() - started)
        # At most once a minute, because every request may fail.
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._reported = time.monotonic()
            _log.error("the feature store does not help: %s", reason)
        raise RequestError(
            503,
            "feature_store",
            "the feature store does not answer: try again, or send the features themselves",
            reason="feature_store",
            headers=((b"retry-after", b"1"),),
        ) from None

    def _read(self, answer: bytes, rows: int) -> dict[str, list[_Value]]:
        """Values from Feast's answer.

        Raises:
            AnswerError: it is not what Feast answers.
        """
        try:
            document = from_json(answer)
            names = tuple(map(str, document["metadata"]["feature_names"]))
            results = document["results"]
            if len(results) != len(names):
                raise AnswerError(f"it answers {len(results)} results for {len(names)} features")
            return {
                name: self._values(self._features[name], names[place], results[place], rows)
                for name, place in self._places_of(names).items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AnswerError(f"its answer is not Feast's: {type(error).__name__} {error}"[:200]) from None

    def _values(self, feature: Feature, full_name: str, result: Any, rows: int) -> list[_Value]:
        values, statuses, times = result["values"], result["statuses"], result["event_timestamps"]
        if not len(values) == len(statuses) == len(times) == rows:
            raise AnswerError(f"it answers {len(values)} values of {full_name} for {rows} entities")
        age = next(
            (seconds for view, seconds in self._max_age.items() if full_name.startswith(f"{view}__")), None
        )
        oldest = None if age is None else time.time() - age
        return [
            _value(feature, value, status, stamp, oldest)
            for value, status, stamp in zip(values, statuses, times, strict=True)
        ]

    def _places_of(self, names: tuple[str, ...]) -> dict[str, int]:
        """Where the features of the model are in an answer; the store calls one `view__feature`, and the model may, too."""
        known = self._places.get(names)
        if known is None:
            known = {}
            for feature in self._features:
                places = [n for n, name in enumerate(names) if name == feature and "__" in name] or [
                    n for n, name in enumerate(names) if name.endswith(f"__{feature}")
                ]
                if len(places) > 1:
                    raise AnswerError(
                        f"feature {feature!r} is in several views: {', '.join(names[place] for place in places)}"
                    )
                if places:
                    known[feature] = places[0]
            views = [
                view for view in self._max_age if not any(name.startswith(f"{view}__") for name in names)
            ]
            if views:
                _log.warning(
                    "%sFEATURE_STORE_MAX_AGE names %s, of which %s has no feature",
                    PREFIX,
                    ", ".join(views),
                    self._service,
                )
            self._places = {names: known}
        return known


def check(settings: Settings, manifest: Manifest) -> None:
    """Check the settings.

    Raises:
        SettingsError: as `FeatureStore`.
    """
    FeatureStore(settings, manifest, CollectorRegistry())


_KEYS: dict[KeyType, str] = {
    "int": "a whole number of at most 64 bits",
    "string": f"a text of 1 to {MAX_KEY_LENGTH} characters",
}
_MISSING = {
    "not_found": "is required, and the feature store has no value for this entity",
    "expired": "is required, and the value of the feature store is too old",
}


def _is_key(value: object, kind: KeyType) -> bool:
    if kind == "int":
        return type(value) is int and -(2**63) <= value < 2**63
    return isinstance(value, str) and 0 < len(value) <= MAX_KEY_LENGTH


def _value(feature: Feature, value: Any, status: str, stamp: str, oldest: float | None) -> _Value:
    if status != "PRESENT" or value is None or value != value:  # noqa: PLR0124  NaN
        return _Value(None, "not_found")
    if oldest is not None and datetime.fromisoformat(stamp).timestamp() < oldest:
        return _Value(None, "expired")
    if isinstance(feature, DatetimeFeature) and type(value) is int:
        if value == _NO_TIME:
            return _Value(None, "not_found")
        with suppress(ValueError, OverflowError, OSError):
            return _Value(datetime.fromtimestamp(value, UTC).isoformat())
    return _Value(value)


def _checked_url(text: str) -> SplitResult:
    named = f"{PREFIX}FEATURE_STORE={text}"
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable or url.query or url.fragment or url.username or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise SettingsError(
            f"{named}: it must be the address of Feast's feature server, such as http://feast:6566"
        )
    return url


def _service_of(settings: Settings, manifest: Manifest) -> str:
    """The feature service: as set, or that of which the model was trained."""
    source = manifest.data.source
    name = settings.feature_store_service or (
        source.removeprefix(SOURCE).strip() if source.startswith(SOURCE) else ""
    )
    if not name:
        raise SettingsError(
            f"{PREFIX}FEATURE_STORE_SERVICE is not set, and the model was not trained from Feast: name its feature service"
        )
    return name
