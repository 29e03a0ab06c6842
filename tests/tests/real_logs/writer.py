"""Writes numbered, timed lines, each with a digest of all up to it, and keeps them in a file beside: $FOLDER/written.STEP.ATTEMPT."""

import hashlib
import os
import signal
import sys
import time

args = dict(arg.split("=") for arg in sys.argv[1:])
lines = int(args.get("lines", 1 << 60))
rate = float(args.get("rate", 0))  # lines a second; none for as many as go
length = int(args.get("length", 80))
until = args.get("until")  # a file that ends it
last_words = int(args.get("last_words", 0))  # lines after SIGTERM
folder = os.environ["FOLDER"]
name = f"{os.environ['WINDLASS_STEP']}.{os.environ['WINDLASS_ATTEMPT']}"
kept = os.open(f"{folder}/written.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
digest = hashlib.sha256(name.encode()).digest()
number = 0
told = False


def line():
    global digest, number
    text = f"{number} {time.time_ns()} {digest.hex() * (1 + length // 64)}"[:length]
    digest = hashlib.sha256(text.encode() + digest).digest()
    number += 1
    return f"{text} {digest.hex()[:12]}\n".encode()


def write_all(file, data):
    while data:
        data = data[os.write(file, data) :]


def write(count):
    data = b"".join(line() for _ in range(count))
    write_all(kept, data)
    write_all(1, data)


def stop(*_):
    global told
    told = True


signal.signal(signal.SIGTERM, stop)
if "begin" in args:
    open(f"{folder}/waits.{name}", "w").close()
while "begin" in args and not os.path.exists(f"{folder}/{args['begin']}"):
    time.sleep(0.02)
time.sleep(float(args.get("silent", 0)))
begin = time.monotonic()
while number < lines and not told and not (until and os.path.exists(f"{folder}/{until}")):
    write(min(lines - number, max(1, int(rate / 50)) if rate else 500))
    if rate:
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
    if "up" in args:
        open(f"{folder}/{args.pop('up')}", "w").close()
while "then" in args and not told:  # silence, until there is the file, and so many lines more
    if os.path.exists(f"{folder}/{until}"):
        write(int(args.pop("then")))
    time.sleep(0.02)
if told:
    time.sleep(0.2)
    write(last_words)
if "eats" in args:
    eaten = []
    while True:
        eaten.append(os.urandom(1 << 20))
if "fills" in args:
    with open("/tmp/full", "wb") as file:
        file.write(b"x" * int(args["fills"]))
    while not told:
        time.sleep(0.05)
    write(last_words)
sys.exit(int(args.get("exit", 0)))
