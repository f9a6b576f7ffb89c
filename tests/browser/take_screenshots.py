"""Screenshots for the README, of a reading room that is running on synthetic scans:

python tests/browser/take_screenshots.py http://127.0.0.1:8470 reader FOLDER < file-with-password
"""

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
LAPTOP = {"width": 1366, "height": 768}


def main(address: str, name: str, folder: Path) -> None:
    password = sys.stdin.readline().strip()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport=LAPTOP, base_url=address).new_page()
        page.goto("/")
        page.fill("#name", name)
        page.fill("#password", password)
        page.press("#password", "Enter")
        page.wait_for_selector("h1:has-text('Worklist')")
        take(page, folder / "worklist.png")
        page.locator("a.row").first.click()
        page.wait_for_selector(".sized")
        take(page, folder / "scan.png")
        page.goto("/batches")
        take(page, folder / "batches.png")
        page.locator("a.row").first.click()
        take(page, folder / "batch.png")
        browser.close()


def take(page: Page, file: Path) -> None:
    page.wait_for_timeout(500)
    page.screenshot(path=file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
