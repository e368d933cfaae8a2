"""Drives the server's page in headless Chromium, with a file and with a microphone.

    python browser.py BASE_URL AUDIO_DIR [SCREENSHOT_FOLDER]

The server serves `demo` and `demo-realtime`. Chromium is the system's; its microphone is a file.
"""

import pathlib
import sys

from playwright.sync_api import expect, sync_playwright

BASE, AUDIO = sys.argv[1], pathlib.Path(sys.argv[2])
SHOTS = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
ENGLISH = "three one four one five nine"


def shot(page, name):
    if SHOTS:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png")


def file(page, model, name):
    page.goto(BASE)
    page.select_option("#model", model)
    page.set_input_files("#file", AUDIO / "digits-en.wav")
    expect(page.locator("#text")).to_have_text(ENGLISH, timeout=30_000)
    expect(page.locator("#srt")).to_be_enabled()
    with page.expect_download() as download:
        page.click("#srt")
    assert download.value.suggested_filename == "digits-en.srt"
    subtitles = pathlib.Path(download.value.path()).read_text()
    assert subtitles.startswith("1\n00:00:00,2"), subtitles
    assert subtitles.endswith(f"{ENGLISH}\n"), subtitles
    shot(page, name)


def no_audio(page):
    page.goto(BASE)
    page.set_input_files("#file", files=[{"name": "x.wav", "mimeType": "audio/wav", "buffer": b"no sound"}])
    expect(page.locator("#state")).to_have_class("error")
    expect(page.locator("#state")).to_contain_text("not audio")
    shot(page, "error")


def microphone(page):
    page.goto(BASE)
    page.click("#mic")
    expect(page.locator("#text")).to_contain_text("seven two nine", timeout=30_000)
    shot(page, "microphone")
    page.click("#mic")
    expect(page.locator("#srt")).to_be_enabled(timeout=30_000)
    expect(page.locator("#mic")).to_have_text("Speak into the microphone")


def main():
    microphone_file = (AUDIO / "digits-stream-en.wav").resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone_file}%noloop",
            ],
        )
        page = browser.new_page(viewport={"width": 900, "height": 620})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        file(page, "demo", "file")
        file(page, "demo-realtime", "file-realtime")
        no_audio(page)
        if "--no-microphone" not in sys.argv:
            microphone(page)
        assert not errors, errors
        browser.close()
    print("the page works")


main()
