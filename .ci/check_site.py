"""Opens each page of the built site in headless Chromium at a phone's width, some at a desk's.

Usage: `check_site.py SITE [PICTURES]`; PICTURES is a folder for screenshots.
It needs selenium, Chromium and its driver (on Debian: `chromium chromium-driver`).
"""

import html.parser
import pathlib
import shutil
import sys
import tempfile
import urllib.parse

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

DESK, PHONE = 1280, 390
PICTURED = ("index.html", "api/DQN.html", "cookbook.html", "migration.html")
CHROMIUM = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)
RESULT = ".md-search-result__item a"
# Returns what is wrong on a page.
LOOK = """
const wrong = [];
for (const picture of document.images)
  if (picture.naturalWidth === 0) wrong.push("no picture " + picture.src);
const width = document.documentElement.scrollWidth;
if (width > arguments[0]) wrong.push(`${width} pixels wide on ${arguments[0]}`);
if (document.querySelector("article h1") === null) wrong.push("no title");
return wrong;
"""


class Page(html.parser.HTMLParser):
    """What a page links to, what it loads, and the names of its places."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.places = [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given.get("id"), given.get("name")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" or "src" in given:
            self.loaded.append(given.get("src") or given["href"])


def wrong_links(pages):
    """Yields links that lead nowhere, and what a page would load from elsewhere."""
    for path, page in pages.items():
        for target in page.links + page.loaded:
            url = urllib.parse.urlsplit(target)
            if url.scheme or url.netloc:
                if target in page.loaded and url.scheme != "data":
                    yield path, f"loads {target}"
                continue
            file = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            if not file.is_file():
                yield path, f"no file for the link {target}"
            elif file in pages and urllib.parse.unquote(url.fragment) not in pages[file].places:
                yield path, f"no place for the link {target}"


def open_browser(user_data):
    """Returns a headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    for argument in [*CHROMIUM.split(), f"--user-data-dir={user_data}"]:
        options.add_argument(argument)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def wrong_in_browser(browser, paths, width):
    """Yields what is wrong on each page at a width, and what its scripts complain of."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for path in paths:
        browser.get(path.as_uri())
        yield from ((path, text) for text in browser.execute_script(LOOK, width))
        yield from ((path, entry["message"]) for entry in browser.get_log("browser"))


def check_search(browser, words):
    """Raises a `TimeoutException` unless the site's own search finds something."""
    browser.execute_script("document.querySelector('#__search').click()")
    browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys(words)
    found = expected_conditions.presence_of_element_located((By.CSS_SELECTOR, RESULT))
    WebDriverWait(browser, 10).until(found, f"the search does not find {words}")


def main(folder, pictures=None):
    """Prints what is wrong and returns the exit status."""
    folder = pathlib.Path(folder).resolve()
    paths = sorted(set(folder.rglob("*.html")) - {folder / "404.html"})  # that is for a server
    wrong = list(wrong_links({path: Page(path) for path in paths}))
    with tempfile.TemporaryDirectory() as user_data, open_browser(user_data) as browser:
        for width in (DESK, PHONE):
            pictured = [folder / name for name in PICTURED]
            wrong += wrong_in_browser(browser, paths if width == PHONE else pictured, width)
            for path in pictured if pictures else ():
                browser.get(path.as_uri())
                browser.save_screenshot(f"{pictures}/{path.stem}-{width}.png")
        check_search(browser, "SoftTargetUpdate")
    for path, text in wrong:
        print(f"{path.relative_to(folder)}: {text}")
    print(f"{len(paths)} pages, {len(wrong)} faults")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
