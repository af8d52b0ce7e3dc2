"""Hooks of MkDocs: pages from the repository's root, links to its files, formulas as MathML."""

import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    'README.md': 'index.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
}
LINK = re.compile(r'(?<=\]\()[^):#\s]+')
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
DISPLAY = {'span': 'inline', 'div': 'block'}
ROLE = re.compile(r':(attr|class|func|meth|mod):(?=<code>)')  # in docstrings, as MMDetection writes


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the repository's root, and the files outside docs/ that pages link to."""
    for page in files.documentation_pages():
        page.content_string = _relink(page.content_string, ROOT / 'docs')
    for source, page in ROOT_PAGES.items():
        content = _relink((ROOT / source).read_text(), ROOT)
        files.append(File.generated(config, page, content=content))
    for page in files.documentation_pages():
        for target in LINK.findall(page.content_string):
            if target not in files.src_uris and (ROOT / target).is_file():
                path = str(ROOT / target)
                files.append(File.generated(config, target, abs_src_path=path))
    return files


def on_page_content(html: str, **_: object) -> str:
    """Replace formulas by MathML, which browsers show without JavaScript; drop Sphinx's roles."""
    return FORMULA.sub(
        lambda match: convert(unescape(match[2]), display=DISPLAY[match[1]]), ROLE.sub('', html)
    )


def _relink(markdown: str, folder: Path) -> str:
    """Turn links relative to ``folder`` into links relative to the site, whose root is docs/."""

    def relink(match: re.Match) -> str:
        path = (folder / match[0]).resolve()
        if not path.is_relative_to(ROOT):
            return match[0]
        target = path.relative_to(ROOT).as_posix()
        return ROOT_PAGES.get(target, target.removeprefix('docs/'))

    return LINK.sub(relink, markdown)
