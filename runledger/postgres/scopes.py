"""Which tenants a statement may see: the condition, and its parameters."""

from typing import Any

from sqlalchemy import ColumnElement, Text, Uuid, and_, or_

from runledger.core.jobs import Scope
from runledger.postgres.expressions import constant, parameter
from runledger.postgres.statements import Parameters


def in_scope(organization_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a row of this organization lies in the scope that ``scoped`` gives as parameters."""
    kind = parameter("scope_kind", Text)
    return or_(
        kind == constant("any"),
        and_(kind == constant("global"), organization_id.is_(None)),
        and_(kind == constant("organization"), organization_id == parameter("scope_organization_id", Uuid)),
    )


def scoped(scope: Scope) -> Parameters:
    """The parameters of ``in_scope``."""
    return {
        "scope_kind": scope.kind.value,
        "scope_organization_id": None if scope.organization_id is None else str(scope.organization_id),
    }
