"""What an OpenLineage event must be, as JSON schemas made from the pinned client's classes.

Its authors generate them from the specification: fields, types, which are required, enumerations. The specification's
own files are part of no package; `spec_errors` takes them from a folder.
"""

import enum
import importlib
import json
import pkgutil
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any

import attr
import jsonschema
from openlineage.client import generated
from openlineage.client.generated import base

SCHEMAS = Path(__file__).resolve().parent.parent / "docs/schemas"
_FORMATS = {"eventTime": "date-time", "producer": "uri", "_producer": "uri", "_schemaURL": "uri", "runId": "uuid"}
_CHECKER = jsonschema.FormatChecker()


def errors_of(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event and with each of its facets, standard or ours; [] = nothing."""
    found = _errors(event, _schema(base.RunEvent))
    for facet in facets_of(event):
        url = facet["_schemaURL"]
        own = SCHEMAS / f"{url.rpartition('/')[2]}.json"
        if url.startswith("urn:inbetween:"):
            whole = json.loads(own.read_text())
            assert url.startswith(whole["$id"] + "#/$defs/")
            found += _errors(facet, whole["$defs"][own.stem] | {"$defs": whole["$defs"]})
        elif url in _classes():
            found += _errors(facet, _schema(_classes()[url]))
        else:
            found.append(f"{url}: no such schema")
    return found


def spec_errors(event: dict[str, Any], folder: Path) -> list[str]:
    """The same by the specification's own files: OpenLineage.json and facets/ in a folder."""
    from referencing import Registry, Resource

    files = {json.loads(path.read_text())["$id"]: json.loads(path.read_text()) for path in folder.rglob("*.json")}
    registry: Any = Registry().with_resources((id_, Resource.from_contents(file)) for id_, file in files.items())
    names = {id_.rpartition("/")[2]: id_ for id_ in files}  # a client may be a patch release ahead or behind
    wanted = [({"$ref": f"{names['OpenLineage.json']}#/$defs/RunEvent"}, event)]
    for facet in facets_of(event):
        name = facet["_schemaURL"].partition("#")[0].rpartition("/")[2]
        if name not in names:
            assert facet["_schemaURL"].startswith("urn:inbetween:"), f"{name} is not in {folder}"
        else:
            wanted.append(({"$ref": names[name] + "#" + facet["_schemaURL"].partition("#")[2]}, facet))
    found = []
    for schema, value in wanted:
        validator = jsonschema.Draft202012Validator(schema, registry=registry, format_checker=_CHECKER)
        found += [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    return found


def facets_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    holders = [event["run"], event["job"], *event.get("inputs", []), *event.get("outputs", [])]
    kinds = ("facets", "inputFacets", "outputFacets")
    return [facet for holder in holders for kind in kinds for facet in holder.get(kind, {}).values()]


def _errors(value: Any, schema: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema, format_checker=_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@cache
def _classes() -> dict[str, type]:
    """Address of a facet's schema -> its class."""
    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for value in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, base.BaseFacet):
                found[value._get_schema()] = value
    return found


@cache
def _schema(class_: type) -> dict[str, Any]:
    hints = typing.get_type_hints(class_)
    properties, required = {}, []
    for field in attr.fields(class_):
        properties[field.name] = _type(hints[field.name], class_)
        if form := _FORMATS.get(field.name):
            properties[field.name] |= {"format": form}
        if field.default is attr.NOTHING or field.name in ("producer", "schemaURL", "_producer", "_schemaURL"):
            required.append(field.name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _type(hint: Any, outer: type | None) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type(arg, outer) for arg in args if arg is not type(None)]}
    if origin is list:
        return {"type": "array", "items": _type(args[0], outer)}
    if origin is dict:
        is_facets = isinstance(args[1], type) and issubclass(
            args[1], base.BaseFacet
        )  # each is held against its own class
        return {"type": "object", "additionalProperties": {"type": "object"} if is_facets else _type(args[1], outer)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if attr.has(hint):
        if hint is outer:  # a column of a column
            return {"type": "object", "required": ["name"]}
        return _schema(hint)
    return {
        str: {"type": "string"},
        int: {"type": "integer"},
        float: {"type": "number"},
        bool: {"type": "boolean"},
    }.get(hint, {})
