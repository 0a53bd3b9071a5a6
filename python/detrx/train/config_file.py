"""Settings as YAML: read strictly, written whole."""

from __future__ import annotations

import dataclasses
import difflib
import math
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from detrx.errors import ConfigError
from detrx.train.config import TrainConfig
from detrx.train.ranges import check_type

_MOST_BYTES = 64 * 1024
T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML without anchors: a few lines of nested aliases can unfold to gigabytes."""

    def compose_node(self, parent: yaml.nodes.Node | None, index: Any) -> yaml.nodes.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise ConfigError("[config] a settings file must not have aliases (*name); write the value out")
        return super().compose_node(parent, index)


def read_config(path: Path, *, base: TrainConfig | None = None) -> TrainConfig:
    """Read a settings file, over the settings ``base``.

    Raises:
        ConfigError: no YAML mapping, an unknown key (the nearest one is named), or a value that does not fit.
    """
    return config_from(read_settings(path), base=base)


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a settings file, checked for being one and nothing more.

    Raises:
        ConfigError: cannot be read, too large, not UTF-8, not YAML, or no mapping.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"[config] {path} must be a settings file: {error.strerror}") from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"[config] {path} must be at most {_MOST_BYTES} bytes, found {len(raw)}")
    try:
        found = yaml.load(raw.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"[config] {path} must be UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"[config] {path} must be YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"[config] {path} must hold keys and values, found {type(found).__name__}")
    return found


def config_from(found: dict[str, Any], *, base: TrainConfig | None = None) -> TrainConfig:
    """Make settings from a mapping, as a file or a checkpoint holds it; what it leaves out is as in ``base``.

    Raises:
        ConfigError: an unknown key or a value that does not fit.
    """
    base = base or TrainConfig()
    if found.get("epochs") is not None or found.get("minutes") is not None:
        base = without_length(base)
    return _build(base, found, where="")


def without_length(config: TrainConfig) -> TrainConfig:
    """The settings without epochs and minutes, of which another one is given."""
    return dataclasses.replace(config, epochs=None, minutes=None)


def _build(base: T, found: Any, *, where: str) -> T:
    if not isinstance(found, dict):
        raise ConfigError(f"[config] {where.rstrip('.')} must hold keys and values, found {found!r}")
    hints = get_type_hints(type(base))
    for key in found:
        if key not in hints:
            raise ConfigError(_unknown(str(key), tuple(hints), where))
    values = {
        key: _value(value, hints[key], getattr(base, key), where=f"{where}{key}")
        for key, value in found.items()
    }
    if where:  # the settings at the top check themselves
        for key, value in values.items():
            _check(f"{where}{key}", value, hints[key])
    try:
        return dataclasses.replace(base, **values)  # type: ignore[type-var]
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[config] {where.rstrip('.') or 'settings'}: {error}") from error


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type than the field's, and a number that is none."""
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, tuple) or len(value) != len(kinds):
            raise ConfigError(f"[config] {name} must be {len(kinds)} values, found {value!r}")
        for one, kind in zip(value, kinds):
            _check(name, one, kind)
    elif hint in (bool, int, float, str):
        check_type(name, value, hint)
        if hint is float and not math.isfinite(value):
            raise ConfigError(f"[config] {name} must be a finite number, found {value!r}")


def _unknown(key: str, valid: tuple[str, ...], where: str) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
    return f"[config] {where}{key} is no setting; the nearest is {where}{near[0]}"


def _value(value: Any, hint: Any, base: Any, *, where: str) -> Any:
    """Bring what YAML can say to what the field holds: lists to tuples, mappings to dataclasses, 1 to 1.0."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(base, value, where=where + ".")
    kinds = [hint, *get_args(hint)]
    if isinstance(value, list) and any(get_origin(kind) is tuple for kind in kinds):
        inside = get_args(next(kind for kind in kinds if get_origin(kind) is tuple))
        return tuple(_number(one) if float in inside else one for one in value)
    if float in kinds:
        return _number(value)
    return value


def _number(value: Any) -> Any:
    """A float, also from 1e-4, which YAML 1.1 takes for text as it has no dot."""
    if isinstance(value, bool) or value is None:
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def to_yaml(config: TrainConfig) -> str:
    """The settings as text that ``read_config`` takes back."""
    return str(yaml.safe_dump(plain(config), sort_keys=False))


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as mappings, lists and scalars."""
    return {f.name: _plain_value(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, tuple):
        return [_plain_value(one) for one in value]
    return value


def differences(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that are not the same in both, as dotted names, each with (old, new)."""
    return _differences(plain(old), plain(new), where="")


def _differences(old: dict[str, Any], new: dict[str, Any], *, where: str) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found.update(_differences(before, value, where=f"{where}{key}."))
        elif before != value:
            found[f"{where}{key}"] = (before, value)
    return found
