"""Python source that is made from a schema and compiled once: what a hand would write for that one record.

An interpreter of schemas asks at every field what it is; source has the answer built in. Only the types of this
repository's schemas are known: records, enums, arrays, nullable fields and the plain types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self


class Source:
    """Lines of Python under way, the constants that they name, and a function for each named type."""

    def __init__(self, constants: Mapping[str, Any]) -> None:
        self._lines: list[str] = []
        self._indent = 0
        self._numbers = 0
        self.scope: dict[str, Any] = dict(constants)
        self.functions: dict[str, str] = {}  # full name of an Avro type -> name of its function

    def line(self, text: str) -> None:
        """Add a line at the present indentation."""
        self._lines.append("    " * self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """`head` and, indented, what is added inside."""
        self.line(head)
        self._indent += 1
        yield
        self._indent -= 1

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """A function at the outermost level, also while another one is being written."""
        outer, indent = self._lines, self._indent
        self._lines, self._indent = [], 0
        with self.block(head):
            yield
        self._lines, self._indent = [*self._lines, *outer], indent

    def name(self, kind: str) -> str:
        """A new name that begins with `kind`."""
        self._numbers += 1
        return f"{kind}_{self._numbers}"

    def function_of(self, schema: Any, make: Callable[[Self, Any], str]) -> str:
        """The name of the function of a record or enum, which its first mention makes and later ones only name."""
        return self.functions[schema] if isinstance(schema, str) else make(self, schema)

    def has_function(self, schema: Any) -> bool:
        """Whether it is a record or enum, in full or by its name: `function_of` knows its function."""
        return isinstance(schema, dict) or schema in self.functions

    def constant(self, kind: str, value: Any) -> str:
        """The name under which the source finds `value`."""
        name = self.name(kind)
        self.scope[name] = value
        return name

    def compile(self, function: str, title: str) -> Callable[..., Any]:
        """The function of this name. `title` is what tracebacks show in place of a file."""
        # What is compiled is made of a schema's field names, which Avro limits to letters, digits and underscores.
        exec(compile("\n".join(self._lines), f"<avro {title}>", "exec"), self.scope)  # noqa: S102
        compiled: Callable[..., Any] = self.scope[function]
        return compiled
