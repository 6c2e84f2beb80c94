"""Connects to a Dask cluster, or starts one for this process, and runs tasks on it.

A task whose worker dies runs again on another one; everything that had been computed stays.
"""

from __future__ import annotations

import io
import logging
import operator
import os
import pickle
import queue
import secrets
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from training.base import config
from training.base.errors import ClusterError, ConfigError
from training.custom import sources
from training.data.dataset import PROFILE_FILE, TEST_FILE, TRAIN_FILE

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = "ESPALIER_DASK_WORKERS"
SECONDS_TO_CONNECT = 10
SECONDS_FOR_WORKERS = 300
"""A new machine may have to start."""
SHARE_OF_MEMORY = 0.8
"""Of the machine's, for the workers of a local cluster together; this process holds the data, too."""
CODE = ("app", "common", "training")
_PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "onnx", "onnxruntime", "skl2onnx"),
    *("xgboost", "xgboost-cpu", "lightgbm", "catboost"),
)
"""Whose versions change what a model computes, beside those that Dask compares itself."""
_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
)
"""What importing `training` sets for the numeric libraries, before they are loaded."""
_alone = threading.Lock()


class Cluster:
    """Runs functions on workers.

    Attributes:
        client: of Dask.
        where: the scheduler, for messages.
    """

    def __init__(self, client: Any, where: str) -> None:
        self.client = client
        self.where = where
        self._pending: set[Any] = set()

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[int, Result]]:
        listed = list(items)
        if not listed:
            return
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # A task of its own carries the function, so that a worker gets it once and the scheduler can make it again.
        carried = self.carry(_OneAtATime(function))
        carried.add_done_callback(done.put)
        # The scheduler reads graphs side by side, and refuses one whose dependency it does not know yet.
        if self._next(done).status != "finished":
            self.result(carried)
        sent = [_pickled(each) for each in listed]
        futures = self.client.map(operator.call, [carried] * len(sent), sent, pure=False)
        places = {future: place for place, future in enumerate(futures)}
        self._pending |= {*futures}
        try:
            for future in futures:
                future.add_done_callback(done.put)
            for _ in futures:
                future = self._next(done)
                result = self.result(future)
                # Otherwise the scheduler would have it computed again, should the worker that keeps it die.
                future.release()
                yield places[future], result
        finally:
            self._pending -= {*futures}
            with suppress(Exception):
                if left := [each for each in futures if each.status == "pending"]:
                    self.client.cancel(left)

    def together(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        listed = list(items)
        with ThreadPoolExecutor(len(listed)) as pool:
            running = [pool.submit(function, each) for each in listed]
            try:
                return [each.result() for each in running]
            except BaseException:
                # The others wait for tasks, which end now.
                with suppress(Exception):
                    self.client.cancel([*self._pending])
                raise

    def carry(self, value: Any, **options: Any) -> Any:
        """A task whose result is a value.

        The scheduler unpickles what it is sent, and has neither the code nor the data: so it gets bytes, and functions of
        Python's own.
        """
        return self.client.submit(pickle.loads, _pickled(value), pure=False, **options)

    def result(self, future: Any) -> Any:
        """The result of a task. Raises what its function raised, or ClusterError."""
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise ClusterError(
                f"{error.allowed_failures + 1} workers of {self.where} died one after another of the same task, most often for "
                "lack of memory: give them more, or use fewer"
            ) from None
        except (CancelledError, CommClosedError, TimeoutError) as error:
            raise self._lost() from error

    def _next(self, done: queue.SimpleQueue[Any]) -> Any:
        waited = 0
        while True:
            try:
                return done.get(timeout=5)
            except queue.Empty:
                if self.client.status != "running":
                    raise self._lost() from None
                waited = 0 if self.workers() else waited + 5
                if waited >= SECONDS_FOR_WORKERS:
                    raise self._too_few() from None

    def _lost(self) -> ClusterError:
        return ClusterError(
            f"the connection to {self.where} was lost: run this again, and a search goes on where it was"
        )

    def wait_for_workers(self, count: int = 1) -> None:
        """Wait until there are so many workers. Raises ClusterError after five minutes."""
        if (found := len(self.workers())) >= count:
            return
        log.info("%s has %d of %d workers: waiting for more", self.where, found, count)
        try:
            self.client.wait_for_workers(count, timeout=SECONDS_FOR_WORKERS)
        except TimeoutError:
            raise self._too_few(count) from None

    def _too_few(self, count: int = 1) -> ClusterError:
        return ClusterError(
            f"{self.where} has had fewer than {count} workers for {SECONDS_FOR_WORKERS} seconds: start more with "
            "`python -m training.worker ADDRESS`, and run this again"
        )

    def workers(self) -> dict[str, Any]:
        """What the scheduler says of each worker, by address in the order of their names."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        return dict(sorted(found.items(), key=lambda each: (str(each[1]["name"]).zfill(9), each[0])))


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """The cluster with this scheduler, or one on this machine until the end.

    Raises:
        ConfigError: Dask is not installed, the scheduler does not answer, or its workers have other packages.
    """
    try:
        import distributed
    except ImportError:
        raise ConfigError(
            "train.engine is dask, and Dask is not installed: run `uv sync --inexact --group dask`"
        ) from None
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with ExitStack() as stack:
        if address:
            where, client = f"the Dask scheduler at {address}", stack.enter_context(_client(address))
        else:
            where, local = "the local Dask cluster", stack.enter_context(_local())
            client = stack.enter_context(distributed.Client(local))
        cluster = Cluster(client, where)
        cluster.wait_for_workers()
        if found := list(_differences(client)):
            raise ConfigError(
                f"{where} has workers that would compute other models than this process: {'; '.join(found)}. Start them from "
                "the same uv.lock with `python -m training.worker ADDRESS`"
            )
        lock = distributed.Lock("espalier")
        if not lock.acquire(timeout=1):
            log.info("waiting for another stage that uses %s", where)
            lock.acquire()
        stack.callback(_quietly, lock.release)
        _share_folder(client, stack)
        client.forward_logging("training", level=logging.WARNING)
        yield cluster


@contextmanager
def _client(address: str) -> Iterator[Any]:
    import distributed

    # Dask itself waits without end for a server that takes the connection and says nothing.
    trying: Future[Any] = Future()
    threading.Thread(target=_settle, args=(trying, partial(distributed.Client, address)), daemon=True).start()
    try:
        client = trying.result(SECONDS_TO_CONNECT)
    except (OSError, TimeoutError):
        why = f"it does not answer within {SECONDS_TO_CONNECT} seconds"
    except Exception as error:
        # Dask takes what another server answers for lengths and messages of its own, and fails in many ways.
        why = f"it is no address of one, or another server answers there ({type(error).__name__})"
    else:
        why = ""
    if why:
        raise ConfigError(
            f"cannot use the Dask scheduler at {address}: {why}; check ESPALIER_DASK, or unset it for a cluster on this machine"
        )
    with client:
        yield client


@contextmanager
def _local() -> Iterator[Any]:
    import distributed
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    given = os.environ.get(WORKERS, str(CPU_COUNT))
    if not given.isdigit() or not int(given):
        raise ConfigError(f"{WORKERS} is {given!r}: write how many workers the local cluster shall have")
    count = int(given)
    with distributed.LocalCluster(
        n_workers=count,
        # Sums of more threads differ, and estimators seed a generator that the whole process shares.
        threads_per_worker=1,
        memory_limit=int(SHARE_OF_MEMORY * MEMORY_LIMIT / count),
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


def _differences(client: Any) -> Iterator[str]:
    """What packages and variables differ, each with both values."""
    from training.train import workspace

    versions = client.get_versions(packages=list(_PACKAGES))
    own = versions["client"]["packages"]
    others: dict[str, Mapping[str, Any]] = {
        name: each["packages"] for name, each in versions["workers"].items()
    }
    yield from _different(own, others)
    with _by_value(workspace):
        found = client.run(workspace.environment, _VARIABLES)
    yield from _different(workspace.environment(_VARIABLES), found)


def _different(own: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, here in own.items():
        there: dict[Any, int] = {}
        for each in others.values():
            there[each.get(name)] = there.get(each.get(name), 0) + 1
        there.pop(here, None)
        for value, count in there.items():
            yield f"{name} is {value or 'missing'} on {count} of {len(others)}, and {here or 'missing'} here"


def _share_folder(client: Any, stack: ExitStack) -> None:
    """Have all workers work in the model's folder, or in a copy of what they need of it."""
    from training.train import workspace

    root, folder = Path(__file__).resolve().parents[2], Path.cwd().resolve()
    inside = folder.is_relative_to(root)
    own = sources.of_model(config.read())
    tops = {each.parts[0].partition(".")[0] for each in own.files}
    marker = folder / "build" / f"dask-{os.getpid()}"
    token = secrets.token_hex()
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(token, encoding="utf-8")
    with _by_value(workspace):
        try:
            seen = all(client.run(workspace.sees, marker, token).values())
        finally:
            marker.unlink()
        if seen:
            plugin = workspace.Workspace(root, folder, (*CODE, *tops))
        else:
            place = folder.relative_to(root) if inside else Path("model")
            content = _zipped(root, folder, place, own.files)
            log.info(
                "the workers do not see %s: they get %.1f MB of data and code", folder, len(content) / 1e6
            )
            plugin = workspace.Workspace(root, place, (*CODE, *tops), content)
        client.register_plugin(plugin)
    stack.callback(_quietly, partial(client.unregister_worker_plugin, workspace.NAME))


def _zipped(root: Path, folder: Path, place: Path, own: Iterable[Path]) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_STORED) as file:
        for top in CODE:
            for path in sorted((root / top).rglob("*")):
                if path.suffix in (".py", ".yaml"):
                    file.write(path, path.relative_to(root))
        for each in (config.PARAMS_FILE, PROFILE_FILE, TRAIN_FILE, TEST_FILE, *own):
            if (folder / each).is_file():
                file.write(folder / each, place / each)
    return found.getvalue()


@contextmanager
def _by_value(module: Any) -> Iterator[None]:
    """Send a module's functions and classes, and not their names."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)


def _quietly(function: Callable[[], Any]) -> None:
    """Clean up on a cluster that may be gone."""
    with suppress(Exception):
        function()


def _pickled(value: Any) -> bytes:
    import cloudpickle

    found: bytes = cloudpickle.dumps(value)
    return found


class _OneAtATime:
    """Calls a function on a worker; one with several threads would run several that seed the generators of the process."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, item: bytes) -> Any:
        with _alone:
            return self.function(pickle.loads(item))  # noqa: S301 - from the client
