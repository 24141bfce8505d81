"""Reading a Dockerfile and its .dockerignore, for tests of what an image would be built from without an engine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: `RUN`, its text with continuations joined, and the line on which it begins."""

    name: str
    text: str
    line: int

    def flags(self) -> dict[str, str]:
        """Options such as `--from=build`."""
        return dict(re.findall(r"--([a-z]+)=(\S+)", re.match(r"(?:--\S+\s+)*", self.text)[0]))

    def words(self) -> list[str]:
        """The words behind the options, in the JSON form or the plain one."""
        rest = re.sub(r"^(?:--\S+\s+)*", "", self.text)
        return json.loads(rest) if rest.startswith("[") else shlex.split(rest)

    def line_to_run(self) -> str:
        """The shell's line of a RUN, behind its options."""
        return re.sub(r"^(?:--\S+\s+)*", "", self.text)

    def pairs(self) -> dict[str, str]:
        """`NAME=value` pairs, of ENV and LABEL."""
        return dict(word.split("=", 1) for word in self.words())

    def command(self) -> list[str]:
        """The command of CMD, ENTRYPOINT or HEALTHCHECK, in the JSON form, which no shell is between."""
        return json.loads(self.text[self.text.index("[") :])


@dataclass
class Stage:
    """What follows one FROM: an image or the name of an earlier stage, a name, instructions."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def named(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def environment(self) -> dict[str, str]:
        """All variables that ENV sets, unexpanded."""
        return {key: value for each in self.named("ENV") for key, value in each.pairs().items()}


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile: comments left out (within an instruction too), continued lines joined.

    Raises:
        ValueError: a line is no instruction.
    """
    found: list[Instruction] = []
    open_lines: list[str] = []
    began = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        began = began if open_lines else number
        continued = line.rstrip().endswith("\\")
        open_lines.append(line.rstrip()[:-1] if continued else line)
        if continued:
            continue
        match = re.match(r"\s*([A-Z]+)\s+(.*)", "".join(open_lines), re.DOTALL)
        if match is None:
            raise ValueError(f"line {began}: not an instruction: {open_lines[0]}")
        found.append(Instruction(match[1], match[2].strip(), began))
        open_lines = []
    if open_lines:
        raise ValueError(f"line {began}: goes on beyond the end of the file")
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fill in `$NAME` and `${NAME}`; one that is not set is empty, as in a build."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables.get(match[1] or match[2], ""), text)


def stages(text: str, arguments: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages in order; the base of each with the build arguments, or their defaults, filled in."""
    arguments = arguments or {}
    shared: dict[str, str] = {}
    found: list[Stage] = []
    for instruction in parse(text):
        if instruction.name == "FROM":
            base, _, name = expand(instruction.text, shared).partition(" AS ")
            found.append(Stage(base.strip(), name.strip()))
        elif found:
            found[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            shared |= argument(instruction, arguments)
        else:
            raise ValueError(f"line {instruction.line}: {instruction.name} before FROM")
    return found


def argument(instruction: Instruction, arguments: Mapping[str, str]) -> dict[str, str]:
    """Name and value of an ARG: what the build was given, else the default, else nothing."""
    name, _, default = instruction.text.partition("=")
    return {name: arguments.get(name, default)}


def sent(ignore: str, names: Iterable[str]) -> list[str]:
    """Which files a build gets to see.

    Args:
        ignore: text of .dockerignore; a later pattern wins over an earlier one.
        names: paths of files relative to the context.
    """
    patterns = [line.strip() for line in ignore.splitlines() if line.strip() and not line.startswith("#")]
    rules = [(not pattern.startswith("!"), _regex(pattern.lstrip("!"))) for pattern in patterns]

    def ignored(name: str) -> bool:
        places = [name, *(str(parent) for parent in Path(name).parents if str(parent) != ".")]
        verdict = False
        for ignoring, regex in rules:
            if any(regex.fullmatch(place) for place in places):
                verdict = ignoring
        return verdict

    return [name for name in names if not ignored(name)]


def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meant.get(part, re.escape(part)) for part in parts))
