"""Scores the parts of an input that have no result yet, several at a time, and reports what became of them.

A part has one result below `OUTPUT/VERSION/`, at the same path as in the input. When it is complete, a record is written below
`_done/`. Its name has a digest of all that the result depends on, so one listing of the output tells which parts are done. If a
run is killed between the two, a later one scores the part again and writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.batch.errors import BatchError, PartError
from app.batch.places import File, Place, Range, Source, first_line, matcher, place_of, split_pattern
from app.batch.scoring import PartScorer, Scorer

BATCH_ROWS = 16_384
"""Rows that are scored at once. The bytes of a result depend on it."""
GROUP_ROWS = 8 * BATCH_ROWS
"""Rows of a row group of a result, which are in memory until it is written."""
AHEAD_BYTES = 64 * 2**20
"""Row groups up to this size are fetched from a bucket as a whole. Of larger ones the columns are read piece by piece."""
READ_BYTES = 2**18
"""The smallest piece, of each column."""
DONE = "_done"
FORMAT = 1
"""Of results: with another number, all parts are scored again."""

_RECORD = re.compile(rf"{DONE}/(?P<result>.+)\.(?P<input>[0-9a-f]{{8}})\.[0-9a-f]{{16}}\.json", re.DOTALL)
_MOST_ERRORS = 20

_log = logging.getLogger("app.batch")


@dataclass(frozen=True)
class Part:
    """A file of the input.

    Attributes:
        record: the name of its record.
        stale: records of the same path that are not true any more.
    """

    place: Place
    file: File
    record: str
    stale: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place.name}/{self.file.path}"


@dataclass
class Summary:
    """What became of parts and rows.

    Attributes:
        parts: in the input.
        replaced: of the scored ones, had a result of a former content or of other options.
        errors: rejected rows by what is wrong with them.
    """

    parts: int = 0
    scored: int = 0
    skipped: int = 0
    replaced: int = 0
    failed: int = 0
    rows: int = 0
    rejected: int = 0
    seconds: float = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rows_per_second(self) -> int:
        return round(self.rows / self.seconds) if self.seconds else 0


class Batch:
    """The parts of an input, and which of them are done.

    Args:
        scorer: the model.
        inputs: files, folders and patterns, in folders or buckets.
        output: a folder or a prefix of a bucket.

    Raises:
        BatchError: a place is invalid or cannot be reached, there are no parts, or the results would be in the way of others.
    """

    def __init__(self, scorer: Scorer, inputs: Sequence[str], output: str) -> None:
        self._scorer = scorer
        self._output = place_of(f"{output.rstrip('/')}/{scorer.manifest.version}", "--output")
        with _named(f"--output {output}"):
            self._output.clean()
            there = {each.path for each in self._output.files()}
        records: dict[str, list[re.Match[str]]] = defaultdict(list)
        for path in there:
            if found := _RECORD.fullmatch(path):
                records[found["result"]].append(found)
        self.parts: list[Part] = []
        self.todo: list[Part] = []
        seen: dict[str, Part] = {}
        for place, file in _find(inputs, self._output):
            part = self._part(place, file, records[file.path])
            if other := seen.get(file.path):
                raise BatchError(f"{part} and {other} would have the same result; give each --input a run")
            seen[file.path] = part
            self.parts.append(part)
            if not {file.path, part.record} <= there:
                self.todo.append(part)
        self.summary = Summary(len(self.parts), skipped=len(self.parts) - len(self.todo))
        self._lock = threading.Lock()

    def run(self, workers: int, report_seconds: float) -> Summary:
        """Score so many parts at the same time, and report the progress each time that so many seconds are over."""
        start = time.monotonic()
        pa.set_cpu_count(workers)
        self._report("starting")
        with ThreadPoolExecutor(workers, "part") as threads:
            waiting = {threads.submit(self._try, each) for each in self.todo}
            while waiting:
                waiting = wait(waiting, report_seconds).not_done
                self.summary.seconds = time.monotonic() - start
                if waiting:
                    self._report("scoring")
        self._report("finished")
        return self.summary

    def _part(self, place: Place, file: File, records: Sequence[re.Match[str]]) -> Part:
        scorer = self._scorer
        source = _digest(place.address, file.path)[:8]
        content = _digest(FORMAT, file.size, file.tag, scorer.manifest.digest, asdict(scorer.options))[:16]
        record = f"{DONE}/{file.path}.{source}.{content}.json"
        if any(each["input"] != source for each in records):
            raise BatchError(
                f"--output {self._output.name}/{file.path} is the result of another input than "
                f"{place.name}/{file.path}; choose another --output, or an --input that begins further up"
            )
        return Part(place, file, record, tuple(each[0] for each in records if each[0] != record))

    def _try(self, part: Part) -> None:
        try:
            self._score(part)
        except Exception as error:
            with self._lock:
                self.summary.failed += 1
            expected = isinstance(error, PartError | pa.ArrowException | OSError) or _of_store(error)
            reason = first_line(error) if expected else repr(error)
            fields = {"part": str(part), "reason": reason}
            _log.error("failed %s: %s", part, reason, extra={"fields": fields}, exc_info=not expected)

    def _score(self, part: Part) -> None:
        with part.place.open(part.file) as source:
            metadata = pq.read_metadata(source.stream)
            scorer = self._scorer.part(metadata.schema.to_arrow_schema())
            groups = _Groups(source, metadata, scorer.reads)
            for each in part.stale:
                self._output.delete(each)
            with self._output.writing(part.file.path) as sink:
                self._write(part, scorer, groups, sink)
                if part.place.file(part.file.path) != part.file:
                    raise PartError("it changed while it was scored; the next run scores it again")
        rejected = sum(scorer.refused.values())
        manifest = self._scorer.manifest
        content = {
            "input": {"name": f"{part.place.address}/{part.file.path}", **asdict(part.file)},
            "model": {"name": manifest.name, "version": manifest.version, "digest": manifest.digest},
            "options": asdict(self._scorer.options),
            "rows": metadata.num_rows,
            "rejected": rejected,
            "errors": dict(scorer.refused.most_common()),
        }
        with self._output.writing(part.record) as sink:
            sink.write(json.dumps(content, indent=1, ensure_ascii=False).encode())
        with self._lock:
            self.summary.scored += 1
            self.summary.replaced += bool(part.stale)
            self.summary.rejected += rejected
            self.summary.errors += scorer.refused

    def _write(self, part: Part, scorer: PartScorer, groups: _Groups, sink: Any) -> None:
        manifest = self._scorer.manifest
        about = {
            "espalier.model": manifest.name,
            "espalier.version": manifest.version,
            "espalier.digest": manifest.digest,
            "espalier.input": str(part),
        }
        schema = scorer.schema.with_metadata(about)
        texts = [each.name for each in schema if not pa.types.is_primitive(each.type)]
        with pq.ParquetWriter(sink, schema, use_dictionary=texts) as writer:
            results: list[Any] = []
            for batch in groups.batches():
                results.append(scorer.score(batch))
                with self._lock:
                    self.summary.rows += batch.num_rows
                if sum(each.num_rows for each in results) >= GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(results, schema))
                    results = []
            if results:
                writer.write_table(pa.Table.from_batches(results, schema))

    def _report(self, what: str) -> None:
        now = self.summary
        fields = {name: value for name, value in asdict(now).items() if name != "errors"}
        fields |= {"seconds": round(now.seconds, 1), "rows_per_second": now.rows_per_second}
        if what == "finished" and now.errors:
            fields["errors"] = dict(now.errors.most_common(_MOST_ERRORS))
        if what == "starting":
            manifest = self._scorer.manifest
            fields = {"parts": now.parts, "skipped": now.skipped, "output": self._output.name}
            fields |= {"model": manifest.name, "version": manifest.version, "digest": manifest.digest}
        text = ", ".join(f"{name} {value}" for name, value in fields.items())
        _log.info(f"{what} %s", text, extra={"fields": fields})


class _Groups:
    """Reads a part row group by row group."""

    def __init__(self, source: Source, metadata: Any, columns: Sequence[str]) -> None:
        self._source = source
        self._columns = list(columns)
        wanted = set(columns)
        self._ranges = [_ranges(metadata.row_group(each), wanted) for each in range(metadata.num_row_groups)]
        largest = max((sum(end - start for start, end in each) for each in self._ranges), default=0)
        self._whole = largest <= AHEAD_BYTES
        piece = READ_BYTES
        if source.ranges is not None and not self._whole:
            piece = max(piece, AHEAD_BYTES // max(1, len(columns)))
        self._file = pq.ParquetFile(source.stream, metadata=metadata, buffer_size=piece, pre_buffer=False)

    def batches(self) -> Iterator[Any]:
        """The batches; while one is scored, another thread reads the next."""
        read = self._read()
        with ThreadPoolExecutor(1, "read") as thread:
            following = thread.submit(next, read, None)
            while (batch := following.result()) is not None:
                following = thread.submit(next, read, None)
                yield batch

    def _read(self) -> Iterator[Any]:
        for group, ranges in enumerate(self._ranges):
            if self._source.ranges is not None and self._whole and ranges:
                self._source.ranges.fetch(ranges)
            yield from self._file.iter_batches(BATCH_ROWS, [group], self._columns)


def _ranges(group: Any, wanted: set[str]) -> list[Range]:
    """Where the values of the columns are in the file."""
    found = []
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema.partition(".")[0] in wanted or column.path_in_schema in wanted:
            start = column.dictionary_page_offset or column.data_page_offset
            start = min(start, column.data_page_offset)
            found.append((start, start + column.total_compressed_size))
    return found


def _find(inputs: Sequence[str], output: Place) -> Iterator[tuple[Place, File]]:
    for given in inputs:
        name, pattern = split_pattern(given)
        place, meant = place_of(name, "--input"), matcher(pattern)
        with _named(f"--input {given}"):
            files = sorted(
                (each for each in place.files() if meant.fullmatch(each.path)), key=lambda each: each.path
            )
        if not files:
            raise BatchError(f"--input {given}: there is no such file")
        below = output.address.removeprefix(f"{place.address}/")
        if below != output.address and any(meant.fullmatch(f"{below}/{each.path}") for each in files):
            raise BatchError(
                f"--output {output.name}: the next run would take the results for parts of --input {given}"
            )
        for each in files:
            yield place, each


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Turns the errors of a place into one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or _of_store(error):
            raise BatchError(f"{option}: {first_line(error)}") from None
        raise


def _of_store(error: Exception) -> bool:
    from obstore.exceptions import BaseError

    return isinstance(error, BaseError)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
