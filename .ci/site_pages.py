"""A hook of MkDocs: makes pages of docstrings, examples and linked files, and repairs links.

Pages in `docs/` link to files as a plain view of the repository needs it (`../examples/ddpg.py`).
The site has a page for each public name, each example and each file that a page links to.
"""

import ast
import functools
import json
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
NAMESPACES = (
    "keras_dqn",
    "keras_dqn.layers",
    "keras_dqn.losses",
    "keras_dqn.networks",
    "keras_dqn.ops",
    "keras_dqn.integrations.minari",
    "keras_dqn.integrations.ray",
    "keras_dqn.integrations.tf_agents",
)
GROUPS = {
    "models": "Agent",
    "soft_update": "Target network",
    "replay": "Replay",
    "acting": "Acting",
    "schedules": "Schedules",
    "callbacks": "Callbacks",
    "layers": "Layers",
    "losses": "Losses",
    "networks": "Networks",
    "ops": "Formulas",
    "integrations": "Other libraries",
}
WIDE = "---\nhide: [toc]\n---\n\n"  # room for lines of 100 characters
PAGES = {
    "keras_dqn/__init__.py": "api/index.md",
    "README.md": "index.md",
    "examples": "examples.md",
    "docs": "index.md",
}


def on_config(config):
    """Puts the generated pages into the navigation."""
    for entry in config["nav"]:
        if "API" in entry:
            groups = {}
            for name, module, _ in public_names():
                groups.setdefault(group_of(module), []).append({name.split(".")[-1]: page_of(name)})
            order = list(GROUPS.values())
            names = [{title: groups[title]} for title in sorted(groups, key=order.index)]
            entry["API"] = ["api/index.md", *names]
        if "Examples" in entry:
            pages = [site_page(path) for path in examples()]
            entry["Examples"] = [{"All examples": "examples.md"}, *pages]
    return config


def on_files(files, config):
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    pages = {"api/index.md": api_index()}
    pages |= {page_of(name): api_page(name, module) for name, module, _ in public_names()}
    linked = {*examples(), "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    for path in sorted((ROOT / "docs").glob("*.md")):
        linked |= set(linked_files(path.read_text(encoding="utf-8"), f"docs/{path.name}"))
    pages |= {site_page(path): page_of_file(path) for path in sorted(linked)}
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown, page, **kwargs):
    """Turns links between files into links between pages."""
    uri = page.file.src_uri
    at = {site_page(path): path for path in (*examples(), *map(str, root_pages()))}
    path = at.get(uri, f"docs/{uri}") if not uri.startswith("files/") else uri[6:-3]

    def replaced(match):
        target, anchor = repository_path(match[0], path)
        if target is None:
            return match[0]
        return posixpath.relpath(site_page(target), posixpath.dirname(uri) or ".") + anchor

    return outside_of_code(markdown, lambda text: with_lists(LINK.sub(replaced, text)))


def examples():
    """Returns the paths of the examples, scripts and notebooks."""
    paths = (ROOT / "examples").iterdir()
    return sorted(f"examples/{path.name}" for path in paths if path.suffix in (".py", ".ipynb"))


def root_pages():
    """Returns the Markdown files beside README.md."""
    return sorted(path.name for path in ROOT.glob("*.md") if path.name != "README.md")


def site_page(path):
    """Returns the page of the site that shows a file of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    names = [name for name, module, _ in public_names() if path == module.replace(".", "/") + ".py"]
    if names:
        return page_of(names[0]) if len(names) == 1 else "api/index.md"
    if path.startswith("examples/"):
        return f"{path}.md" if path.endswith(".ipynb") else path.removesuffix(".py") + ".md"
    return path.lower() if path in root_pages() else f"files/{path}.md"


def repository_path(link, path):
    """Returns the file that a link in `path` means, and the anchor; None for other links."""
    link, sharp, anchor = link.partition("#")
    if not link or ":" in link:
        return None, ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return (target, sharp + anchor) if (ROOT / target).exists() else (None, "")


def linked_files(text, path):
    """Yields the files that a page links to and that have no page otherwise."""
    for link in LINK.findall(text):
        target, _ = repository_path(link, path)
        if target and site_page(target).startswith("files/"):
            yield target


def page_of_file(path):
    """Returns the Markdown of a page that shows a file."""
    text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        return "\n\n".join(
            "".join(cell["source"]) if cell["cell_type"] == "markdown" else fenced(cell["source"])
            for cell in cells
        )
    if path.startswith("examples/"):
        return page_of_example(path, text)
    if (ROOT / path).is_dir():
        names = sorted(item.name for item in (ROOT / path).iterdir() if item.is_file())
        return f"# `{path}/`\n\n" + "\n".join(f"- `{name}`" for name in names)
    language = {".py": "python", ".toml": "toml", ".yml": "yaml"}.get(pathlib.Path(path).suffix, "")
    return f"{WIDE}# `{path}`\n\n{fenced(text, language)}"


def page_of_example(path, text):
    """Returns the Markdown of an example: what its header says, then its code."""
    header = ast.get_docstring(ast.parse(text))
    fields = dict(re.findall(r"^([A-Z][\w ]*): (.*)$", header, re.MULTILINE))
    title = fields.pop("Title", pathlib.Path(path).stem)
    about = fields.pop("Description", header)
    facts = "\n".join(f"- **{name}:** {value}" for name, value in fields.items())
    code = text.split('"""', 2)[2]
    return (
        f"{WIDE}# {title}\n\n{about}\n\n{facts}\n\nRun it from the repository's folder:\n\n"
        f"{fenced(f'python {path}', 'sh')}\n\n## Code\n\n{fenced(code)}\n"
    )


def fenced(source, language="python"):
    """Returns code as a Markdown block."""
    return f"````{language}\n{''.join(source).strip()}\n````"


@functools.cache
def public_names():
    """Returns each public name with the module it is defined in and the docstring it has there."""
    found = []
    for namespace in NAMESPACES:
        tree, module = parsed(namespace)
        if tree is None:
            continue
        origins = {
            alias.name: node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        listed = [node for node in tree.body if ast.unparse(node).startswith("__all__ = ")]
        defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        for name in ast.literal_eval(listed[0].value) if listed else defined:
            origin = origins.get(name, module)
            text = docstring(origin, name)
            if text and not name.startswith("_"):
                found.append((f"{namespace}.{name}", origin, text))
    return found


def parsed(module):
    """Returns the tree of a module; None where there is no such module."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return ast.parse(path.read_text(encoding="utf-8")), module
    return None, module


def docstring(module, name):
    """Returns the docstring of a class or function; None for other names."""
    for node in parsed(module)[0].body:
        if getattr(node, "name", None) == name:
            return ast.get_docstring(node)
    return None


def group_of(module):
    """Returns the title under which the API lists what a module defines."""
    return GROUPS[module.split(".")[1]]


def page_of(name):
    """Returns the page of a public name: `api/DQN.md` for `keras_dqn.DQN`."""
    return f"api/{name.removeprefix('keras_dqn.')}.md"


def api_page(name, module):
    """Returns the Markdown of a public name's page."""
    last = name.rpartition(".")[2]
    return (
        f"---\ntitle: {last}\n---\n\n::: {module}.{last}\n    options:\n"
        f"      heading: {name}\n      toc_label: {last}\n"
    )


def api_index():
    """Returns the Markdown of the table of all public names."""
    rows = {title: [] for title in GROUPS.values()}
    for name, module, text in public_names():
        sentence = re.split(r"(?<=\.)\s", text.split("\n\n")[0].replace("\n", " "), maxsplit=1)[0]
        link = page_of(name).removeprefix("api/")
        rows[group_of(module)].append(f"| [`{name.split('.', 1)[1]}`]({link}) | {sentence} |")
    return "# API\n\nEach public name has a page.\n" + "".join(
        f"\n## {title}\n\n| Name | What it does |\n|---|---|\n" + "\n".join(found) + "\n"
        for title, found in rows.items()
        if found
    )


def outside_of_code(markdown, change):
    """Applies `change` to what stands outside of code blocks."""
    parts = re.split(r"(^ *(`{3,}|~{3,}).*?^ *\2 *$)", markdown, flags=re.MULTILINE | re.DOTALL)
    for index in range(0, len(parts), 3):
        parts[index] = change(parts[index])
    del parts[2::3]
    return "".join(parts)


def with_lists(text):
    """Puts an empty line before each list, which Python-Markdown needs and GitHub does not."""
    item = r"(?:[-*]|\d+\.) "
    return re.sub(rf"^(?!\s*{item}|\s*$|\s{{2,}})(.+)\n(?=\s*{item})", r"\1\n\n", text, flags=re.M)
