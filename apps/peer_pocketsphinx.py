#!/usr/bin/env python3
"""PocketSphinx on the utterances of a manifest: writes its transcripts, lines `id text`.

Acoustic model, dictionary and language model are those of the Debian package pocketsphinx-en-us.
They are made for 16 kHz. With --g722 FOLDER the sounds FOLDER/ID.g722 are decoded (by ffmpeg), else
the manifest's own are resampled.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time


def convert(source, raw):
    """One sound -> 16 kHz, 16 bits, without a header."""
    os.makedirs(os.path.dirname(raw), exist_ok=True)
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-ar", "16000", "-ac", "1", "-f", "s16le", raw],
                   check=True, stdin=subprocess.DEVNULL)


def recognise(ids, work, model):
    """The transcripts of work/raw/ID.raw."""
    control, found = os.path.join(work, "ids"), os.path.join(work, "found")
    with open(control, "w", encoding="utf-8") as out:
        out.write("".join(i + "\n" for i in ids))
    subprocess.run(["pocketsphinx_batch", "-adcin", "yes", "-cepdir", os.path.join(work, "raw"),
                    "-cepext", ".raw", "-ctl", control, "-hyp", found, "-logfn", os.devnull,
                    "-hmm", model + "/en-us", "-lm", model + "/en-us.lm.bin",
                    "-dict", model + "/cmudict-en-us.dict"], check=True, stdout=subprocess.DEVNULL)
    texts = {}
    with open(found, encoding="utf-8") as lines:
        for line in lines:
            text, name = re.fullmatch(r"(.*?) ?\((\S+)(?: -?\d+)?\)", line.strip()).groups()
            texts[name] = text
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", help="JSON lines with id and audio, as asr prepare writes them")
    parser.add_argument("out", help="file for the transcripts")
    parser.add_argument("--g722", default="", help="folder of the sounds as G.722")
    parser.add_argument("--model", default="/usr/share/pocketsphinx/model/en-us", help="its models")
    parser.add_argument("--threads", default="1", help="for report run; PocketSphinx uses one")
    arguments = parser.parse_args()
    with open(arguments.manifest, encoding="utf-8") as lines:
        utterances = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as work:
        for u in utterances:
            source = os.path.join(os.path.dirname(arguments.manifest), u["audio"])
            if arguments.g722:
                source = os.path.join(arguments.g722, u["id"] + ".g722")
            convert(source, os.path.join(work, "raw", u["id"] + ".raw"))
        begin = time.monotonic()
        texts = recognise([u["id"] for u in utterances], work, arguments.model)
        seconds = time.monotonic() - begin
    missing = [u["id"] for u in utterances if u["id"] not in texts]
    if missing:
        sys.exit("error: PocketSphinx gave no transcript of " + ", ".join(missing))
    with open(arguments.out + ".tmp", "w", encoding="utf-8") as out:
        out.write("".join(u["id"] + " " + texts[u["id"]] + "\n" for u in utterances))
    os.replace(arguments.out + ".tmp", arguments.out)
    print(json.dumps({"utterances": len(utterances), "seconds_taken": seconds}))


if __name__ == "__main__":
    main()
