"""The files that the tidy rules look at: what the repository holds, without what tools and runs leave behind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "ops", "streams", "tables", "topics")
FOLDERS = (*PACKAGES, "avro", "tests", ".ci")
ROOT_FILES = (
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "docker-compose.yml",
    "pyproject.toml",
)


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository, as paths below its root."""
    found = [ROOT / name for name in ROOT_FILES if (ROOT / name).exists()]
    for folder in FOLDERS:
        found.extend(p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return tuple(sorted(path.relative_to(ROOT) for path in found))


def python_files(*folders: str) -> list[Path]:
    """The Python files in these top-level folders; in all, when none is named."""
    return [path for path in files() if path.suffix == ".py" and (not folders or path.parts[0] in folders)]


def markdown_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path))


def modules(*folders: str) -> list[str]:
    """Dotted names of the modules in these top-level folders."""
    return [
        ".".join(path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts)
        for path in python_files(*folders)
    ]


def functions(module: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Each function with its name as a reader would write it: `function` or `Class.method`."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{child.name}", child
    for child in module.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child.name, child
