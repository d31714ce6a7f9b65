"""Our own OpenLineage facets; docs/schemas/ has their JSON schemas, one file each, named as the classes are."""

from typing import Any

import attr
from openlineage.client.generated.base import DatasetFacet, RunFacet

VERSION = "1-0-0"


def schema_id(name: str) -> str:
    """The `$id` of a facet's schema: a name that is nobody's address."""
    return f"urn:inbetween:schema:{name}:{VERSION}"


def _schema_url(name: str) -> str:
    return f"{schema_id(name)}#/$defs/{name}"


@attr.define
class InbetweenChecksumDatasetFacet(DatasetFacet):
    """By which bytes a dataset is known.

    kind: "file", or "folder": then the value is the md5 of DVC's list of the folder's files.  size: bytes, of all.
    """

    algorithm: str
    value: str
    kind: str
    size: int | None = None
    numFiles: int | None = None

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("InbetweenChecksumDatasetFacet")


@attr.define
class InbetweenLicenceDatasetFacet(DatasetFacet):
    """What a dataset's sources allow. sources: kind, name, licence, verdict, duty, number.  isComplete: all of them."""

    commercialUse: bool
    verdict: str
    isComplete: bool
    sources: list[dict[str, Any]] = attr.field(factory=list)

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("InbetweenLicenceDatasetFacet")


@attr.define
class InbetweenRunFacet(RunFacet):
    """What the record says of a run, and dvc.lock of what it read besides data.

    event: "ran", or "restored": DVC brought the outputs from its cache; then originalRunId is the run that made them,
    where the record has it.  inputsKnown: false = no dvc.lock has these outputs.  code: path -> md5.
    """

    event: str
    inputsKnown: bool
    revision: str | None = None
    isDirty: bool | None = None
    user: str | None = None
    seconds: float | None = None
    command: str | None = None
    originalRunId: str | None = None
    tools: dict[str, str] | None = None
    platform: dict[str, str] | None = None
    code: dict[str, str] | None = None

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("InbetweenRunFacet")
