#!/usr/bin/env python3
"""Makes sclite_ref.trn, sclite_hyp.trn and sclite_counts.txt: random transcripts over small
alphabets, where alignments have many ties, and what `sctk sclite` counts for each.

    tests/data/make_sclite.py [seed [pairs]]      (needs Debian's sctk; writes into this folder)
"""
import os
import random
import re
import subprocess
import sys

folder = os.path.dirname(os.path.abspath(__file__))
seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 400
rng = random.Random(seed)
ref, hyp = (os.path.join(folder, name) for name in ("sclite_ref.trn", "sclite_hyp.trn"))
with open(ref, "w") as r, open(hyp, "w") as h:
    for i in range(pairs):
        letters = "abcdefgh"[: rng.choice([1, 2, 2, 3, 4, 6])]
        for out, least in ((r, 1), (h, 0)):
            words = [rng.choice(letters) for _ in range(rng.randint(least, 14))]
            print(*words, f"(s{i % 5}-{i:04d})", file=out)
report = subprocess.run(
    ["sctk", "sclite", "-r", ref, "trn", "-h", hyp, "trn", "-i", "spu_id", "-o", "pralign", "stdout"],
    check=True, capture_output=True, text=True).stdout
found = re.findall(r"^id: \((.*?)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", report, re.M)
assert len(found) == pairs, len(found)
with open(os.path.join(folder, "sclite_counts.txt"), "w") as out:
    for line in sorted(found):
        print(*line, file=out)
