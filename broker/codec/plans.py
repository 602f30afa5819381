"""One `Plan` per document class, made at its first use: everything about the class that decoding a body needs to know.

Two ways lead to documents. `Plan.read` runs pydantic over all rows in one call, for bodies of clients. `Plan.construct` trusts the values
and only gives them their classes, for bodies that a worker wrote from a class with the same `fingerprint`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, get_origin

from docarray import DocList
from docarray.base_doc import AnyDoc
from docarray.base_doc.doc import BaseDocWithoutId
from pydantic import AliasChoices, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import ValidationError

from ..errors import InvalidInput
from ..limits import check_depth
from .cast import Cast, cast_of
from .fixes import Fixes, Misfit, fix_of, fix_row
from .kinds import Kind, Tag, kind_of

_set = object.__setattr__
_new = object.__new__


class Plan:
    """How documents of one class are read and made.

    `names`: the fields; `known`: with their aliases; `nested`: those that hold documents; `deep`: those whose values may nest without
    bound; `casts`: see `cast_of`, or None when the class has a field that only validation can make.
    """

    def __init__(self, doc_type: Any) -> None:
        config = doc_type.model_config
        self.doc_type: type[BaseDocWithoutId] = doc_type
        self.fields: dict[str, FieldInfo] = dict(doc_type.model_fields)
        self.kinds = {name: kind_of(field.annotation) for name, field in self.fields.items()}
        self.names = frozenset(self.fields)
        self.open = issubclass(doc_type, AnyDoc)  # takes every field
        self.keeps_unknown = self.open or config.get("extra", "ignore") != "ignore"
        self.nested = {name: kind.tag for name, kind in self.kinds.items() if kind.tag in (Tag.DOC, Tag.DOCS)}
        self.deep = tuple(name for name, kind in self.kinds.items() if kind.deep)
        self.aliases = () if config.get("populate_by_name") else tuple(_aliases(self.fields))
        self.known = self.names.union(alias for _, alias in _aliases(self.fields))
        self.fingerprint = sha256(repr(describe(doc_type, ())).encode()).digest()[:8]
        self.casts = _casts(self.kinds)
        self._list_class = get_origin(DocList[doc_type]) or DocList[doc_type]
        self._validate = TypeAdapter(list[doc_type]).validator.validate_python
        self._allows_extra = config.get("extra") == "allow"
        caches = any(isinstance(value, functools.cached_property) for base in doc_type.__mro__ for value in vars(base).values())
        self.stores_fields_only = not caches and not self._allows_extra  # a document's __dict__ is its row
        self.flat = self.stores_fields_only and not self.nested
        self._post_init = bool(doc_type.__pydantic_post_init__)

    def doc_list(self, docs: Sequence[Any]) -> Any:
        """`DocList[doc_type]` of documents that are known to be of the class."""
        made = list.__new__(self._list_class)
        list.__init__(made, docs)
        return made

    def construct(self, row: dict[str, Any]) -> Any:
        """A document around `row` itself, which has exactly the fields of the class, with values as validation leaves them."""
        doc = _new(self.doc_type)
        _set(doc, "__dict__", row)
        _set(doc, "__pydantic_fields_set__", set(row))
        _set(doc, "__pydantic_extra__", {} if self._allows_extra else None)
        _set(doc, "__pydantic_private__", None)
        if self._post_init:
            doc.model_post_init(None)
        return doc

    def read(self, rows: list[Any], *, shallow: bool = False, refuse: type = type(None)) -> tuple[Any, dict[str, list[Any]] | None]:
        """`DocList` of rows from anywhere, and the columns that the class has no field for. The rows are used up.

        Raises `InvalidInput` naming the first row and field that do not fit. `shallow`: nothing in the rows nests beyond the limit;
        `refuse`: see `check_depth`.
        """
        unknown = self._take_unknown(rows)
        if not shallow:
            check_depth(unknown, "data", refuse=refuse)
            self._check_depth(rows, refuse)
        if self.fixes or self.aliases:
            self._prepare(rows)
        return self._validated(rows), unknown

    @functools.cached_property
    def fixes(self) -> Fixes:
        """What each field needs before pydantic sees it, under its name and its aliases."""
        made = {name: fix for name, kind in self.kinds.items() if (fix := fix_of(kind, lambda inner: plan_of(inner).fixes)) is not None}
        return made | {alias: made[name] for name, alias in _aliases(self.fields) if name in made}

    def _check_depth(self, rows: list[Any], refuse: type) -> None:
        for index, row in enumerate(rows) if self.deep else ():
            for name in self.deep if isinstance(row, dict) else ():
                check_depth(row.get(name), f"data[{index}].{name}", refuse=refuse)

    def _prepare(self, rows: list[Any]) -> None:
        for index, row in enumerate(rows):
            try:
                fix_row(row, self.fixes)
            except Misfit as error:
                raise InvalidInput(f"data[{index}]{error.path}: {error}") from error
            self._use_aliases(row)

    def _validated(self, rows: list[Any]) -> Any:
        try:
            return self.doc_list(self._validate(rows))
        except ValidationError as error:
            raise InvalidInput(_sentence(error)) from error
        except Exception as error:  # validators are user code and docarray's own raise TypeError
            raise InvalidInput(self._first_failure(rows, error)) from error

    def _take_unknown(self, rows: list[Any]) -> dict[str, list[Any]] | None:
        """Remove from `rows` what the class has no field for; returns it by column (None in rows that lack it), or None."""
        known = self.known
        if self.keeps_unknown or all(row.keys() <= known for row in rows if isinstance(row, dict)):
            return None
        columns: dict[str, list[Any]] = {}
        for index, row in enumerate(rows):
            for name in [name for name in row if name not in known] if isinstance(row, dict) else ():
                columns.setdefault(name, [None] * len(rows))[index] = row.pop(name)
        return columns

    def _use_aliases(self, row: Any) -> None:
        """Our own forms use field names; pydantic wants the alias."""
        if isinstance(row, dict):
            for name, alias in self.aliases:
                if name in row and alias not in row:
                    row[alias] = row.pop(name)

    def _first_failure(self, rows: list[Any], error: Exception) -> str:
        for index, row in enumerate(rows):
            try:
                self._validate([row])
            except Exception as found:
                return f"data[{index}]: {type(found).__name__}: {found}"
        return f"data: {type(error).__name__}: {error}"


# The plan of a document class. Annotated, since lru_cache types its arguments as Hashable and mypy says that document classes are not.
plan_of: Callable[[Any], Plan] = functools.lru_cache(maxsize=1024)(Plan)


def rows_of(docs: Sequence[Any]) -> list[dict[str, Any]]:
    """The fields of each document by name, as stored: to be read, not changed. Cached properties and private state are left out."""
    rows = [doc.__dict__ for doc in docs]
    kinds = {(type(doc), type(row)) for doc, row in zip(docs, rows, strict=True)}
    if all(row_type is dict and plan_of(doc_type).stores_fields_only for doc_type, row_type in kinds):
        return rows  # the ordinary case: no copy
    return [_row_of(doc) for doc in docs]


def _row_of(doc: Any) -> dict[str, Any]:
    row: Any = doc.__dict__
    plan = plan_of(type(doc))
    if type(row) is not dict:  # a document of a DocVec keeps its values in columns
        row = row.to_dict()
    if plan.open:
        return dict(row)
    return {name: value for name, value in row.items() if name in plan.names} | (doc.__pydantic_extra__ or {})


def describe(doc_type: type[BaseDocWithoutId], outer: tuple[type, ...]) -> list[Any]:
    """All that decides which values a class accepts, comparable between processes. Own validators bind it to the class by name."""
    if doc_type in outer:
        return [doc_type.__qualname__]
    decorators = doc_type.__pydantic_decorators__
    own = sorted({**decorators.validators, **decorators.field_validators, **decorators.root_validators, **decorators.model_validators})
    named = [doc_type.__module__, doc_type.__qualname__, *own] if own else []
    inner = (*outer, doc_type)
    fields = [
        (name, _describe_kind(kind_of(field.annotation), inner), repr(field.metadata)) for name, field in doc_type.model_fields.items()
    ]
    return [*named, str(doc_type.model_config.get("extra")), *fields]


def _describe_kind(kind: Kind, outer: tuple[type, ...]) -> Any:
    if kind.tag is Tag.DOC:
        return [kind.tag.value, describe(kind.annotation, outer)]
    if kind.tag is Tag.DOCS:
        return [kind.tag.value, describe(kind.annotation.doc_type, outer)]
    if kind.tag is Tag.ENUM:
        return [kind.tag.value, [(member.name, member.value) for member in kind.annotation]]
    if kind.tag is Tag.TENSOR:
        return [kind.tag.value, kind.annotation.__module__, kind.annotation.__name__]
    if kind.items:
        return [kind.tag.value, str(get_origin(kind.annotation)), [_describe_kind(item, outer) for item in kind.items]]
    return [kind.tag.value, str(kind.annotation)]


def _casts(kinds: dict[str, Kind]) -> dict[str, Cast] | None:
    try:
        made = {name: cast_of(kind) for name, kind in kinds.items() if kind.tag not in (Tag.DOC, Tag.DOCS)}
    except PydanticUserError:  # a type that pydantic knows only in this class, by its own configuration
        return None
    return {name: cast for name, cast in made.items() if cast is not None}


def _aliases(fields: dict[str, FieldInfo]) -> list[tuple[str, str]]:
    found = []
    for name, field in fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        found += [(name, choice) for choice in choices if isinstance(choice, str) and choice != name]
    return found


def _sentence(error: ValidationError) -> str:
    """`data[3].price: Input should be a valid number`, and how many more.

    Of a failed union the branch that went deepest is the one meant.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = [problem for problem in problems if problem["loc"][:2] == problems[0]["loc"][:2]]
    chosen = max(first, key=lambda problem: len(problem["loc"]))
    more = len({problem["loc"][:2] for problem in problems}) - 1
    return f"{_path(chosen['loc'])}: {chosen['msg']}" + (f" (and {more} more)" if more else "")


def _path(loc: tuple[int | str, ...]) -> str:
    # pydantic puts the names of union branches and validators into the location: `is-instance[DocList]`, `function-after[..]`
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if isinstance(part, int) or "[" not in part)
    return "data" + "".join(parts)
