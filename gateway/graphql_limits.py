"""How much one GraphQL document may ask for: fragments can make a short text ask for a lot."""

from __future__ import annotations

from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, FragmentSpreadNode, OperationDefinitionNode, SelectionSetNode

from streamflow.broker.errors import InvalidInput

MOST_TOKENS = 10_000  # an inline vector has one for each number
MOST_FIELDS = 500  # with every fragment written out; the usual introspection has about 200
MOST_REQUESTS = 20


def check_size(document: DocumentNode) -> None:
    """Raises `InvalidInput`."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    count = _Count(fragments)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode) and count.of(definition.selection_set) > MOST_FIELDS:
            raise InvalidInput(f"query: at most {MOST_FIELDS} fields, fragments written out")
        if isinstance(definition, OperationDefinitionNode) and count.top(definition.selection_set) > MOST_REQUESTS:
            raise InvalidInput(f"query: at most {MOST_REQUESTS} requests in one document")


class _Count:
    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[tuple[str, bool], int] = {}  # of fragments

    def of(self, selections: SelectionSetNode | None) -> int:
        """Fields of a selection and below."""
        return self._sum(selections, deep=True)

    def top(self, selections: SelectionSetNode) -> int:
        """Fields of a selection itself."""
        return self._sum(selections, deep=False)

    def _sum(self, selections: SelectionSetNode | None, *, deep: bool) -> int:
        total = 0
        for node in selections.selections if selections is not None else ():
            if isinstance(node, FieldNode):
                total += 1 + (self._sum(node.selection_set, deep=True) if deep else 0)
            elif isinstance(node, FragmentSpreadNode):
                total += self._fragment(node.name.value, deep=deep)
            else:
                total += self._sum(getattr(node, "selection_set", None), deep=deep)
        return total

    def _fragment(self, name: str, *, deep: bool) -> int:
        key = (name, deep)
        if key not in self._known:
            self._known[key] = 0  # one that contains itself, which validation refuses
            fragment = self._fragments.get(name)
            self._known[key] = self._sum(fragment.selection_set if fragment else None, deep=deep)
        return self._known[key]
