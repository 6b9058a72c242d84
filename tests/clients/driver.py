"""PyPI's `mattermostdriver` through a proxy: log in, lists, a picture up and down, files, events, log out.

    python driver.py PORT        a proxy that listens on 127.0.0.1:PORT, before the stand-in (`avatar-proxy demo`)
"""

import asyncio
import hashlib
import json
import logging
import struct
import sys
import threading
import time
import zlib

from mattermostdriver import Driver
from mattermostdriver.exceptions import NoAccessTokenProvided, ResourceNotFound

PATIENCE = 20


def png(red, green, blue, edge=128):
    """A picture of one colour."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes((red, green, blue)) * edge) * edge
    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def told(what):
    print(f"driver.py: {what}", flush=True)


def listen(driver, events, greeted):
    """Hears events in a thread of its own; the driver's own loop runs until it is told to stop."""

    async def heed(message):
        event = json.loads(message)
        events.append(event)
        if event.get("event") == "hello":
            greeted.set()

    asyncio.set_event_loop(asyncio.new_event_loop())
    driver.init_websocket(heed)


def main(port):
    logging.disable(logging.CRITICAL)  # It logs every refusal, and two are asked for.
    options = {"scheme": "http", "url": "127.0.0.1", "port": port, "timeout": 1}
    driver = Driver({**options, "login_id": "alice", "password": "avatar-proxy"})
    me = driver.login()
    assert me["username"] == "alice", me
    told("logged in")

    users = driver.users.get_users({"per_page": 200})
    assert len(users) > 10 and me["id"] in [user["id"] for user in users]
    named = driver.users.get_users_by_usernames(["bob", "alice"])
    assert sorted(user["username"] for user in named) == ["alice", "bob"]
    found = driver.users.search_users({"term": "bob"})
    assert [user["username"] for user in found] == ["bob"], found
    told(f"{len(users)} users listed, two by name, one found")

    events, greeted = [], threading.Event()
    listener = threading.Thread(target=listen, args=(driver, events, greeted), daemon=True)
    listener.start()
    assert greeted.wait(PATIENCE), "no hello"
    told("listening")

    before = driver.users.get_user_profile_image(me["id"])
    assert before.headers["Content-Type"].startswith("image/"), before.headers
    for colour in [(200, 30, 30), (30, 30, 200)]:
        heard = len(events)
        picture = png(*colour)
        answer = driver.users.set_user_profile_image(me["id"], {"image": ("me.png", picture, "image/png")})
        assert answer["status"] == "OK", answer
        # Twice: asked of upstream, then from memory. The driver sends a body with its GETs.
        shown = [driver.users.get_user_profile_image(me["id"]) for _ in range(2)]
        assert shown[0].content == shown[1].content != before.content
        before = shown[0]
        until = time.monotonic() + PATIENCE
        while not any(event.get("event") == "user_updated" for event in events[heard:]):
            assert time.monotonic() < until, f"no event of the new picture: {events}"
            time.sleep(0.02)
    told(f"two pictures uploaded, each seen at once and heard of; {len(events)} messages in all")

    body = hashlib.sha512(b"seed").digest() * 32768
    stored = driver.files.upload_file("c" * 26, {"files": ("two mebibytes.bin", body)})
    stored = stored["file_infos"][0]
    assert driver.files.get_file(stored["id"]).content == body
    told(f"a file of {len(body)} bytes up and down")

    try:
        driver.posts.get_posts_for_channel("c" * 26)
        raise AssertionError("the stand-in has no posts")
    except ResourceNotFound:
        told("a refusal of upstream's arrived as one")

    driver.disconnect()
    listener.join(PATIENCE)
    driver.logout()
    try:
        driver.users.get_user("me")
        raise AssertionError("still logged in")
    except NoAccessTokenProvided:
        told("logged out")


if __name__ == "__main__":
    main(int(sys.argv[1]))
