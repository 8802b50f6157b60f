"""The chapters' MyST Markdown as the Markdown that any renderer shows: JupyterLab, Colab, VS Code, a code host.

Directives become HTML that all of them keep, with Markdown inside; roles become what they stand for. What is not known here is
an error, so that no reader meets a raw `:::` or role.
"""

import re
from collections.abc import Callable

ROLE = re.compile(r"\{(?P<name>[a-z][\w:-]*)\}`(?P<text>[^`]+)`")
_DIRECTIVE = re.compile(r"^(?P<mark>:{3,}|`{3,})\{(?P<name>[\w:-]+)\}\s*(?P<title>.*?)\s*$")
_CODE = re.compile(r"^(?P<mark>`{3,}|~{3,})")
_OPTION = re.compile(r"^:(?P<name>[\w-]+):\s*(?P<value>.*?)\s*$")
_TARGET = re.compile(r"^\([\w.-]+\)=\s*$")
_INLINE_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")

# an `align*` stands for itself in a notebook; a renderer that knows only $$ shows it as text
_BARE_MATH = re.compile(r"(?<!\$\$\n)(\\begin\{(align\*?)\}.*?\\end\{\2\})", re.DOTALL)


class Renderer:
    """Turns the Markdown cells of one chapter, in their order.

    Args:
        chapter: its number, such as "05", or "" for a guide: exercises are counted in it.
        roles: for each role, what makes Markdown of its text.
        dollars: whether to wrap bare `align` environments into $$.
        links: rewrites the links of a piece of text.
        quiz: what stands for the directive {quiz}.
        figures: the number of each figure by its name, or by its file where it has none.
    """

    def __init__(
        self,
        chapter: str,
        roles: dict[str, Callable[[str], str]],
        *,
        dollars: bool = False,
        links: Callable[[str], str] = str,
        quiz: Callable[[], list[str]] = list,
        figures: dict[str, str] | None = None,
    ) -> None:
        self.chapter, self.roles, self.dollars, self.links, self.quiz = chapter, roles, dollars, links, quiz
        self.figures = figures or {}
        self.exercises = 0

    def render(self, text: str) -> str:
        """One cell's text.

        Raises:
            ValueError: a directive or a role that is not known, or one that is not closed.
        """
        return "\n".join(self._blocks(text.split("\n")))

    def _blocks(self, lines: list[str]) -> list[str]:
        done: list[str] = []
        prose: list[str] = []
        lines = list(lines)
        while lines:
            line = lines.pop(0)
            directive, code = _DIRECTIVE.match(line), _CODE.match(line)
            if not directive and not code:
                # an anchor of MyST; headings have anchors of their own everywhere
                if not _TARGET.match(line):
                    prose.append(line)
                continue
            done += self._prose(prose)
            prose = []
            body = _until((directive or code)["mark"], lines, line)
            if directive:
                done += self._directive(directive["name"], directive["title"], body)
            else:
                done += [line, *body, code["mark"]]
        return done + self._prose(prose)

    def _prose(self, lines: list[str]) -> list[str]:
        text = self._inline("\n".join(lines))
        if self.dollars:
            text = _BARE_MATH.sub(r"$$\n\1\n$$", text)
        return text.split("\n") if lines else []

    def _inline(self, text: str) -> str:
        # the roles first: some become links
        return self.links(ROLE.sub(self._role, text))

    def _role(self, match: re.Match) -> str:
        if match["name"] not in self.roles:
            raise ValueError(f"no plain form is known for the role {match[0]}; add it to book/_ext/roles.py")
        return self.roles[match["name"]](match["text"])

    def _directive(self, name: str, title: str, body: list[str]) -> list[str]:
        options = {}
        while body and (option := _OPTION.match(body[0])):
            options[option["name"]] = option["value"]
            body = body[1:]
        if name == "figure":
            body = _stripped(body)
            if number := self.figures.get(options.get("name", title)):
                body[0] = f"*Figure {number}.* {body[0]}"
            return [f"![{options.get('alt', '')}]({title})", "", *self._blocks(body)]
        if name == "quiz":
            return self._blocks(self.quiz())
        inside = self._blocks(_stripped(body))
        if name == "exercise":
            self.exercises += 1
            number = f"{int(self.chapter)}.{self.exercises}" if self.chapter else str(self.exercises)
            return [f"### Exercise {number}: {title}", "", *inside]
        title = self._inline(title)
        if name.startswith("prf:"):
            kind = name.removeprefix("prf:").capitalize()
            return _box(f"**{kind}** ({title})" if title else f"**{kind}**", inside)
        if name in ("admonition", "note", "tip", "warning"):
            if "dropdown" in options.get("class", ""):
                return ["<details>", f"<summary>{_as_html(title)}</summary>", "", *inside, "", "</details>"]
            return _box(f"**{title or name.capitalize()}**", inside)
        raise ValueError(f"no plain form is known for the directive {{{name}}}; add it to book/_ext/plain_markdown.py")


def _until(mark: str, lines: list[str], opening: str) -> list[str]:
    """The lines up to the one that closes `mark`; they and it are taken from `lines`."""
    for number, line in enumerate(lines):
        if line.rstrip() == mark:
            body = lines[:number]
            del lines[: number + 1]
            return body
    raise ValueError(f"{opening!r} is not closed by a line {mark!r}")


def _stripped(lines: list[str]) -> list[str]:
    return "\n".join(lines).strip("\n").split("\n")


def _box(heading: str, inside: list[str]) -> list[str]:
    # no blockquote: JupyterLab takes formulas out before it reads Markdown, and would show the > of their lines
    return ['<div class="alert alert-block alert-info">', "", heading, "", *inside, "", "</div>"]


def _as_html(title: str) -> str:
    """A title inside a tag, where Markdown is not read."""
    return _INLINE_CODE.sub(lambda match: f"<code>{match[0].strip('`')}</code>", title)
