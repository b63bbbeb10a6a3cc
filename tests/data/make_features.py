#!/usr/bin/env python3
"""Writes features.json: filterbanks, cepstra, deltas and normalised features of another implementation.

The values were made with kaldi-native-fbank 1.23.0 (k2-fsa, Apache 2.0), which is Kaldi's own feature code without
the rest of Kaldi. The tests read the committed file and need no Python; run this by hand (pip install numpy
kaldi-native-fbank==1.23.0) to make it again.
"""
import json
import pathlib

import kaldi_native_fbank as knf
import numpy as np

HERE = pathlib.Path(__file__).parent

# Names of ours -> where kaldi-native-fbank keeps them.
FRAME = {
    "rate": "samp_freq",
    "frame_length_ms": "frame_length_ms",
    "frame_shift_ms": "frame_shift_ms",
    "preemphasis": "preemph_coeff",
    "remove_dc": "remove_dc_offset",
    "window": "window_type",
    "blackman_coeff": "blackman_coeff",
    "round_to_power_of_two": "round_to_power_of_two",
    "snip_edges": "snip_edges",
}
MEL = {"bins": "num_bins", "low_freq": "low_freq", "high_freq": "high_freq"}

CASES = {
    "Kaldi's filterbank": {"bins": 23},
    "80 bins up to 400 Hz below Nyquist, frames centred": {"bins": 80, "high_freq": -400, "snip_edges": False},
    "Hamming, energy of the windowed frame": {
        "window": "hamming", "use_energy": True, "raw_energy": False, "bins": 20},
    "raw energy with a floor, last column": {
        "use_energy": True, "energy_floor": 1e9, "htk_compat": True, "bins": 20},
    "Blackman, 50 Hz to 7 kHz, no pre-emphasis": {
        "window": "blackman", "blackman_coeff": 0.4, "low_freq": 50, "high_freq": 7000, "preemphasis": 0, "bins": 20},
    "Hann, magnitudes": {"window": "hanning", "use_power": False, "bins": 20},
    "rectangular, no logarithm, mean kept": {
        "window": "rectangular", "use_log_fbank": False, "remove_dc": False, "bins": 20},
    "sine window, FFT of 400 samples": {"window": "sine", "round_to_power_of_two": False, "bins": 20},
    "8 kHz, 20 ms every 5 ms": {"rate": 8000, "frame_length_ms": 20, "frame_shift_ms": 5, "bins": 15},
    "11,025 Hz, frames centred": {"rate": 11025, "snip_edges": False, "bins": 23},
    "Kaldi's cepstra": {"type": "mfcc", "bins": 23, "use_energy": True},
    "cepstra with C0": {"type": "mfcc", "bins": 23},
    "40 cepstra of 40 bins (hires)": {"type": "mfcc", "bins": 40, "num_ceps": 40, "high_freq": -400},
    "HTK order with C0, no lifter": {"type": "mfcc", "bins": 26, "htk_compat": True, "cepstral_lifter": 0},
    "HTK order with energy of the windowed frame": {
        "type": "mfcc", "bins": 26, "htk_compat": True, "use_energy": True, "raw_energy": False,
        "cepstral_lifter": 12, "num_ceps": 10, "window": "hamming"},
    "cepstra, energy floor, frames centred": {
        "type": "mfcc", "bins": 23, "use_energy": True, "energy_floor": 5e8, "snip_edges": False},
}


def sound(samples):
    """16-bit samples that any language can compute: noise through a leaky sum, louder and softer."""
    state, low, out = 12345, 0, []
    for i in range(samples):
        state = (state * 1664525 + 1013904223) % 2**32
        low = low - (low >> 2) + (((state >> 16) - 32768) >> 3)
        out.append((low * (64 + i % 512)) >> 9)
    return out


def options(case):
    opts = knf.MfccOptions() if case.get("type") == "mfcc" else knf.FbankOptions()
    opts.frame_opts.dither = 0
    opts.use_energy = False
    for key, value in case.items():
        if key in FRAME:
            setattr(opts.frame_opts, FRAME[key], value)
        elif key in MEL:
            setattr(opts.mel_opts, MEL[key], value)
        elif key != "type":
            setattr(opts, key, value)
    return opts


def compute(case, samples):
    computer = (knf.OnlineMfcc if case.get("type") == "mfcc" else knf.OnlineFbank)(options(case))
    computer.accept_waveform(case.get("rate", 16000), [float(x) for x in sound(samples)])
    computer.input_finished()
    return np.stack([computer.get_frame(t) for t in range(computer.num_frames_ready)])


def numbers(rows):
    return [float(f"{x:.7g}") for x in np.asarray(rows, np.float64).ravel()]


def main():
    samples = 1000
    features = [
        {"name": name, "options": case, "frames": len(rows), "values": numbers(rows)}
        for name, case in CASES.items()
        for rows in [compute(case, samples)]
    ]
    few = compute(CASES["Kaldi's cepstra"], 2000)[:, :4]
    deltas = []
    for order, window in ((1, 2), (2, 2), (2, 3), (3, 1)):
        rows = knf.compute_deltas(knf.DeltaOptions(order=order, window=window), few)
        deltas.append({"order": order, "window": window, "values": numbers(rows)})
    stats = knf.compute_cmvn_stats(few)
    cmvn = [
        {"variance": v, "values": numbers(knf.apply_cmvn(stats, knf.CmvnOptions(norm_vars=v), few))} for v in (False, True)
    ]
    result = {
        "made_with": f"kaldi-native-fbank {knf.__version__}",
        "samples": samples,
        "features": features,
        "small": {"columns": 4, "values": numbers(few), "deltas": deltas, "cmvn": cmvn},
    }
    (HERE / "features.json").write_text(json.dumps(result, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
