"""Calls a model's own functions, and says in one line what is wrong with one."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.contract import Task
from training.base.errors import ConfigError
from training.custom.sources import distributions, files_of, is_standard

OURS = {
    *("app", "benchmarks", "common", "deploy", "monitoring", "tests", "training"),
    *("build", "candidates", "data", "metrics", "model", "models", "reports", "wandb"),
}
"""Folders beside params.yaml that hold something else."""
_loaded: set[str] = set()
"""The packages of functions that were called, by the first part of their name."""


def estimator(where: str, name: str, task: Task) -> Any:
    """Call a function for an estimator of the task.

    Args:
        where: the key, for messages.
        name: as `package.module:function`.
        task: of the model.

    Raises:
        ConfigError: there is no such function, it raises, or it returns something else.
    """
    found = _called(where, name)
    # Some have `predict` only once they are fitted.
    if isinstance(found, type) or not all(
        hasattr(found, each) for each in ("fit", "get_params", "set_params")
    ):
        raise ConfigError(f"{where}: {name} returns {_kind(found)}, which is no estimator of scikit-learn")
    kind, wanted = _type_of(found), {"classification": "classifier", "regression": "regressor"}[task]
    if kind != wanted:
        what = f"a {kind}" if kind else f"no {wanted} (derive it from {wanted.title()}Mixin)"
        raise ConfigError(
            f"{where}: {name} returns {_kind(found)}, which is {what}, and the target is a {task}"
        )
    return found


def transformer(where: str, name: str) -> Any:
    """Call a function for a transformer; as `estimator`."""
    found = _called(where, name)
    if isinstance(found, type) or not all(
        hasattr(found, each) for each in ("fit", "transform", "get_params")
    ):
        raise ConfigError(f"{where}: {name} returns {_kind(found)}, which is no transformer of scikit-learn")
    return found


def place(error: BaseException) -> str:
    """Where in a model's own code an error arose, as ` (custom/net.py:12)`; empty elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_shown(error.filename)}:{error.lineno})"
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _loaded:
            found = f" ({_shown(frame.f_code.co_filename)}:{line})"
    return found


def _called(where: str, name: str) -> Any:
    function = _function(where, name)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ConfigError(f"{where}: {name} is called without arguments: {error}") from None
    except ValueError:
        pass  # written in C
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {name} raises {_said(error)}{place(error)}") from error


def _function(where: str, name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    _check_place(where, module_name)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    _loaded.update({module_name.partition(".")[0]} - {"sklearn"})
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if f"{module_name}.".startswith(f"{absent}."):
            raise ConfigError(f"{where}: there is no module {module_name}{_remedy(module_name)}") from None
        raise ConfigError(
            f"{where}: {module_name} cannot be imported, because the module {absent} is not there{place(error)}: install "
            "the package that has it with `uv add --group train PACKAGE`"
        ) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{where}: {module_name} cannot be imported: {_said(error)}{place(error)}"
        ) from error
    function = getattr(module, attribute, None)
    if function is None:
        guess = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {guess[0]}?" if guess else ""
        raise ConfigError(f"{where}: {module_name} has no function {attribute}{hint}")
    if not callable(function):
        raise ConfigError(f"{where}: {name} is {_kind(function)}, and no function")
    return function  # type: ignore[no-any-return]


def _check_place(where: str, module: str) -> None:
    """Refuse code that DVC would not see change."""
    top = module.partition(".")[0]
    files = files_of(module)
    if not files:
        # Further models find the code of the first one, too, because PYTHONPATH has the repository's top folder.
        if top in OURS or not (distributions(top) or is_standard(top)):
            found = _elsewhere(top)
            if found:
                raise ConfigError(
                    f"{where}: {module} is {found}, outside this model's folder: put the code beside params.yaml, or "
                    "install it as a package"
                )
        return
    if top in OURS:
        raise ConfigError(
            f"{where}: {top}/ is a folder of the project: put the code into another one, such as custom/"
        )
    if is_standard(top) or distributions(top):
        raise ConfigError(
            f"{where}: {top} is also a package that is installed, which this one would hide: give it another name"
        )
    folder = Path.cwd().resolve()
    for each in files:
        if not each.resolve().is_relative_to(folder):
            raise ConfigError(
                f"{where}: {each} leads to {each.resolve()}, outside this model's folder: put the file itself there"
            )


def _elsewhere(top: str) -> Path | None:
    """Where Python would find a module that neither the folder nor a package has."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = (
        [spec.origin] if spec and spec.origin else [*(spec.submodule_search_locations or ())] if spec else []
    )
    return Path(places[0]) if places else None


def _remedy(module: str) -> str:
    top = module.partition(".")[0]
    if files := files_of(module):
        folder = files[-1].parent
        close = difflib.get_close_matches(
            module.rpartition(".")[2], [each.stem for each in folder.glob("*.py")], n=1
        )
        return f" in {folder.as_posix()}/" + (
            f"; did you mean {'.'.join([*folder.parts, close[0]])}?" if close else ""
        )
    if distributions(top):
        return f" in the package {top}"
    return (
        f": write {'/'.join(module.split('.'))}.py beside params.yaml, or install a package that has it "
        "(`uv add --group train PACKAGE`)"
    )


def _type_of(found: Any) -> str | None:
    try:
        kind: str | None = found.__sklearn_tags__().estimator_type
    except Exception:
        return None
    return kind


def _kind(found: Any) -> str:
    if found is None:
        return "nothing"
    if isinstance(found, type):
        return f"the class {found.__name__} itself"
    name = type(found).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _said(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "msg", None) or error).split())[:400]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(file: str) -> str:
    path, folder = Path(file), Path.cwd()
    if path.is_relative_to(folder) and "site-packages" not in path.parts:
        return path.relative_to(folder).as_posix()
    return Path(*path.parts[-2:]).as_posix()
