"""Checks the pages that rustdoc has generated for a crate: documentation.py FOLDER CRATE [marks].

FOLDER contains the folder CRATE with the pages. Every link must have a target, rustdoc must have
resolved every reference, and the pages of some types must begin with a given method. With `marks`,
an item that says that only some systems have it must have rustdoc's mark of these systems. Prints
the complaints and exits with status 1, or prints the number of pages.
"""

import html
import os
import re
import sys
from urllib.parse import unquote

folder, crate, *options = sys.argv[1:]

# The number of unresolved references that a page may have. They are in the documentation of methods
# of futures-lite's types.
FOREIGN = {"io/struct.Cursor.html": 2, "io/struct.Take.html": 1}

# The first method on the page of a type.
FIRST = {
    "net/struct.Dialer.html": "new",
    "net/struct.ListenConfig.html": "new",
    "net/struct.Pipe.html": "read",
    "net/struct.TcpListener.html": "bind",
    "net/struct.TcpStream.html": "connect",
    "net/struct.UdpSocket.html": "bind",
    "os/unix/net/struct.UnixDatagram.html": "bind",
    "os/unix/net/struct.UnixListener.html": "bind",
    "os/unix/net/struct.UnixSeqpacket.html": "bind",
    "os/unix/net/struct.UnixSeqpacketListener.html": "bind",
    "os/unix/net/struct.UnixStream.html": "connect",
    "io/struct.AsyncFd.html": "new",
}

pages = {}


def page(path):
    """Returns the text of a page and its anchors."""
    if path not in pages:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        pages[path] = text, {html.unescape(name) for name in re.findall(r'\bid="([^"]*)"', text)}
    return pages[path]


def has_no_target(path, link):
    """Returns whether a relative link of the page at `path` has no target."""
    if re.match(r"[a-z]+:", link) or "${" in link:
        return False
    file, _, anchor = link.partition("#")
    target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(file))) if file else path
    if os.path.isdir(target):
        target = os.path.join(target, "index.html")
    if not os.path.exists(target):
        return True
    if not anchor or not target.endswith(".html") or re.fullmatch(r"\d+(-\d+)?", anchor):
        return False
    anchors = page(target)[1]
    return anchor not in anchors and unquote(anchor) not in anchors


# The text of an item that only some systems have, as a pattern, and rustdoc's mark of such an item,
# which follows from its cfg.
SYSTEMS = {
    r"<p>Linux only\.|(?<!</strong> only)\sLinux only\.": "Available on <strong>Linux</strong> only.",
    r"\sNot on macOS\.|<p>Not on macOS\.": "Available on <strong>non-macOS</strong> only.",
}

complaints = []
count = marks = 0
root = os.path.join(folder, crate)
for where, _, names in os.walk(root):
    for name in sorted(names):
        if not name.endswith(".html"):
            continue
        count += 1
        path = os.path.join(where, name)
        short = os.path.relpath(path, root)
        # Implementations of other crates' traits have the documentation of those crates.
        own = page(path)[0].split('id="trait-implementations"')[0]
        if "marks" in options and not short.startswith("guide"):
            for text, mark in SYSTEMS.items():
                says, has = len(re.findall(text, own)), own.count(mark)
                marks += has
                if says != has:
                    complaints.append(f"{short}: {says} items say that only some systems have them, {has} have the mark: {mark}")
        # rustdoc leaves the brackets of a reference that it could not resolve.
        raw = re.findall(r"\[<code>([^\]]*)</code>\]", own)
        if len(raw) > FOREIGN.get(short, 0):
            complaints.append(f"{short}: unresolved: {raw[0]}")
        for link in sorted({html.unescape(link) for link in re.findall(r'href="([^"]*)"', own)}):
            if has_no_target(path, link):
                complaints.append(f"{short}: no target: {link}")

for short, wanted in FIRST.items():
    text = page(os.path.join(root, short))[0]
    first = re.search(r'<section id="method\.([^"]*)" class="method"', text)
    if first is None or first.group(1) != wanted:
        complaints.append(f"{short}: begins with {first and first.group(1)}, not with {wanted}")

if "marks" in options and not marks:
    complaints.append("no page has a mark")
if complaints:
    sys.exit("\n".join(complaints))
print(f"{count} pages" + (f", {marks} marks of systems" if marks else ""))
