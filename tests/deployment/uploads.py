"""Small models of the tools that deploy: which files each of them uploads, given a project and its .funcignore.

Each follows the source of its tool, which reads .funcignore with a matcher of its own. When they were written, those of
azd and functions-action agreed with the matchers themselves on 400 random files of patterns. Files are paths relative
to the project, with slashes; an upload is a subset of them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pathspec import GitIgnoreSpec

type _Matches = Callable[[str, str, bool], bool]
"""Whether a pattern matches a path, and whether that is a folder."""


def _lines(funcignore: str) -> Iterator[str]:
    lines = (line.strip() for line in funcignore.splitlines())
    return (line for line in lines if line and not line.startswith("#"))


def _with_folders(file: str) -> Iterator[tuple[str, bool]]:
    """The folders that a file is in, the outermost first, then the file; each with whether it is a folder."""
    yield from ((str(folder), True) for folder in reversed(PurePosixPath(file).parents[:-1]))
    yield file, False


def _last_decides(funcignore: str, matches: _Matches) -> Callable[[str, bool], bool]:
    """Whether a path is ignored by itself: the last pattern that matches decides."""
    rules = [(line.removeprefix("!"), not line.startswith("!")) for line in reversed(list(_lines(funcignore)))]
    return lambda path, folder: next((ignores for pattern, ignores in rules if matches(pattern, path, folder)), False)


def _parts_match(path: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match those of a pattern, where `**` stands for any number of parts, or none."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _parts_match(path, pattern[1:]) or (bool(path) and _parts_match(path[1:], pattern))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _parts_match(path[1:], pattern[1:])


def git(files: Iterable[str], funcignore: str) -> set[str]:
    """What pathspec takes a .gitignore of this content to admit, in the manner of git."""
    spec = GitIgnoreSpec.from_lines(funcignore.splitlines())
    return {file for file in files if not spec.match_file(file)}


def azd(files: Iterable[str], funcignore: str) -> set[str]:
    """The Azure Developer CLI since 1.23.13: `createDeployableZip` in pkg/project/project_utils.go.

    It walks the folders from the top and enters none that is ignored, by the matcher denormal/go-gitignore. That one
    matches a pattern with `**` part by part; one that starts with a slash and has no other, with the whole path by a
    `fnmatch` whose `*` matches slashes too; one without a slash, with the last part of the path.
    """

    def matches(pattern: str, path: str, folder: bool) -> bool:
        if pattern.endswith("/") and not folder:
            return False
        parts = pattern.strip("/").split("/")
        if "**" in parts:
            return _parts_match(path.split("/"), parts)
        if len(parts) > 1:
            return len(parts) == path.count("/") + 1 and all(map(fnmatchcase, path.split("/"), parts))
        return fnmatchcase(path if pattern.startswith("/") else path.rpartition("/")[2], parts[0])

    ignored = _last_decides(funcignore, matches)
    names = {".funcignore", "local.settings.json"}
    taken = (file for file in files if PurePosixPath(file).name not in names and ".azure" not in file.split("/")[:-1])
    return {file for file in taken if not any(ignored(*each) for each in _with_folders(file))}


def functions_action(files: Iterable[str], funcignore: str) -> set[str]:
    """Azure/functions-action 1.5.7 with `respect-funcignore: true`: src/utils/funcignore.ts.

    The matcher, kaelzhang/node-ignore, is that of git. But the tool also asks for each folder without the slash at its
    end, so that a pattern that ends in one does not admit it; what is ignored is removed with all that is below.
    """

    def matches(pattern: str, path: str, folder: bool) -> bool:
        if pattern.endswith("/") and not folder:
            return False
        parts = pattern.strip("/").split("/")
        if "/" not in pattern.rstrip("/"):
            parts = ["**", *parts]
        if parts[-1] == "**":
            parts[-1:] = ["*", "**"]
        return _parts_match(path.split("/"), parts)

    ignored = _last_decides(funcignore, matches)

    def removed(path: str, folder: bool) -> bool:
        return ignored(path, folder) or ignored(path, False)

    return {file for file in files if not any(removed(*each) for each in _with_folders(file))}


def core_tools(files: Iterable[str], funcignore: str) -> set[str]:
    """Azure Functions Core Tools 4: `GitIgnoreParser.cs` and `GetLocalFiles` in FileSystemHelpers.cs.

    Each pattern is a regular expression for the start of a path. The order of the lines does not matter: a file is
    taken if an exception matches it, or no other pattern does.
    """

    def expression(pattern: str) -> str:
        escaped = re.sub(r"[-\[\]/{}()+?.\\^$|]", r"\\\g<0>", pattern.removeprefix("/"))
        return escaped.replace("**", "(.+)").replace("*", "([^/]+)")

    def matcher(patterns: list[str]) -> re.Pattern[str]:
        return re.compile(rf"^(({')|('.join(patterns)}))\b" if patterns else "$^", re.ASCII)

    lines = list(_lines(funcignore))
    excepted = matcher([expression(line[1:]) for line in lines if line.startswith("!")])
    denied = matcher([expression(line) for line in lines if not line.startswith("!")])
    names, folders = {".funcignore", ".gitignore", "local.settings.json", "project.lock.json"}, {".git", ".vscode"}
    walked = (PurePosixPath(file) for file in files)
    taken = {str(file) for file in walked if file.name not in names and not folders & {*file.parts[:-1]}}
    return {file for file in taken if excepted.match(file) or not denied.match(file)}
