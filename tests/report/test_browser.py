"""The report and the documentation as a person sees them: opened, paged and sorted in a real browser."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pandas as pd
import pytest
from playwright.sync_api import Page, Request, sync_playwright

from safemed.report.pages.tables import tables
from support.paths import ROOT
from support.settings import SMALLEST

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HERE = ("file:", "data:", "blob:", "http://127.0.0.1:")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium; --no-sandbox, since tests may run as root."""
    if not CHROMIUM:
        pytest.skip("no chromium on this machine: install it, or run pytest without -m browser")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=SIZES)
def page(browser, request) -> Iterator[Page]:
    """A page of a size; a test fails with what its console says, and with what it asks of other machines."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    context.route(lambda url: not url.startswith(HERE), lambda route: route.abort())
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(f"{error}"))
    opened.on("requestfailed", lambda failed: said.extend(not_loaded(failed)))
    yield opened
    context.close()
    assert said == []


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[list[str]]:
    """The addresses of the documentation's pages, served from here: its search does not run from files."""
    out = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    subprocess.run(line, cwd=ROOT, check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(out))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield [f"http://127.0.0.1:{server.server_port}/{path.name}" for path in sorted(out.glob("*.html"))]
        server.shutdown()


def not_loaded(request: Request) -> list[str]:
    """What a page asked for in vain; what it no longer wanted when it was left is none."""
    return [] if request.failure == "net::ERR_ABORTED" else [f"not loaded: {request.url[:80]}"]


def broken_images(page: Page) -> list[str]:
    """The images of a page that a person does not see."""
    page.wait_for_load_state("load")
    return page.evaluate(
        "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src.slice(0, 80))"
    )


def wider_than_the_window(page: Page) -> int:
    """By how many pixels a page has to be moved sideways."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_the_documentation_shows_all_images_and_fits_the_window(page, site):
    assert len(site) > 10
    for address in site:
        page.goto(address)
        assert not broken_images(page), address
        assert wider_than_the_window(page) <= 0, address


def test_adversarial_images_are_paged_by_question(page, report):
    page.goto((report / "pages" / "adversarial_examples.html").as_uri())
    assert not broken_images(page) and wider_than_the_window(page) <= 0
    n = page.locator("option").count()
    assert n > 1 and page.locator("section:visible").count() == 1
    first = page.locator("section:visible").inner_text()
    assert "before: B, right" in first and "after: A, wrong" in first
    names = page.locator("section:visible figcaption").all_inner_texts()
    assert names[:3] == ["clean", "difference × 8", "adversarial"]
    page.click("#on")
    second = page.locator("section:visible").inner_text()
    page.keyboard.press("ArrowLeft")
    assert second != first == page.locator("section:visible").inner_text()
    page.click("#back")  # before the first stands the last
    assert page.locator("select").evaluate("chosen => chosen.selectedIndex") == n - 1
    page.select_option("select", index=1)
    assert page.locator("section:visible").inner_text() == second


def test_a_click_on_a_column_sorts_a_table_as_numbers_and_again_the_other_way_round(page, tmp_path):
    values = [2.0, 16.0, -1.0, float("nan"), 0.00012, 0.12345, 0.12341]
    made = tables(sweep=pd.DataFrame({"model": list("abcdefg"), "eps": values}))
    (tmp_path / "tables.html").write_text(made)
    page.goto((tmp_path / "tables.html").as_uri())
    for order, models in (("ascending", "cegfabd"), ("descending", "bafgecd")):  # what is missing stands last
        page.locator("th button").nth(1).click()
        assert "".join(page.locator("tbody td:nth-child(1)").all_inner_texts()) == models
        assert page.locator("th").nth(1).get_attribute("aria-sort") == order


def test_all_tables_of_a_study_are_on_one_page_that_fits_the_window(page, report):
    page.goto((report / "pages" / "tables.html").as_uri())
    assert wider_than_the_window(page) <= 0 and "robustness" in page.locator("h2").all_inner_texts()


def test_the_whole_report_opens_and_shows_its_figures(page, finished_study):
    page.goto((finished_study / "results" / SMALLEST["study"] / "report.html").as_uri())
    page.get_by_text("Figures").first.click()
    assert not broken_images(page)
    assert page.get_by_text("accuracy_vs_eps").count()
