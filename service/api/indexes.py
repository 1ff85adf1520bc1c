"""`GET /indexes` and `GET /indexes/{index}`: which indexes there are."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.openapi import PROBLEMS
from service.api.requests import RuntimeDep
from service.api.schemas import IndexesOut, IndexOut
from service.index import IndexConflict, IndexView

router = APIRouter(prefix="/indexes", tags=["index"])


@router.get("", responses=PROBLEMS)
async def list_indexes(runtime: RuntimeDep) -> IndexesOut:
    """All indexes, also one that cannot be used with the bundle being served, with the reason."""
    return IndexesOut(indexes=[_describe(runtime.indexes, name) for name in runtime.indexes.names()])


@router.get("/{index}", responses=PROBLEMS)
async def describe_index(index: str, runtime: RuntimeDep) -> IndexOut:
    """One index."""
    return IndexOut(name=index, count=len(runtime.indexes[index]))


def _describe(indexes: IndexView, name: str) -> IndexOut:
    try:
        return IndexOut(name=name, count=len(indexes[name]))
    except IndexConflict as conflict:
        return IndexOut(name=name, count=None, detail=str(conflict))
