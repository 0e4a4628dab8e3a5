#!/usr/bin/env python3
"""Prints the suites cold and fanout of a results file (integration/bench --json FILE) as tables for BENCH-RESULTS.md.

  integration/lib/bench_table.py FILE [SUITE]

A cell is what was measured, and ! behind it where it is over its target."""

import json
import sys


def load(path, suite):
    """{case: {metric: result}}"""
    cases = {}
    for result in json.load(open(path))["results"]:
        if result["suite"] == suite:
            cases.setdefault(result["case"], {})[result["metric"]] = result
    return cases


def shown(result, digits=2, scale=1.0):
    if result is None:
        return ""
    return f"{result['value'] * scale:.{digits}f}" + ("!" if result.get("met") is False else "")


def matrix(cases, links, metric, digits=2, scale=1.0):
    patterns = list(dict.fromkeys(case.split("/")[0] for case in cases))
    lines = ["| | " + " | ".join(link.replace("/", ", ") for link in links) + " |", "|---" * (len(links) + 1) + "|"]
    for pattern in patterns:
        cells = [shown(cases.get(f"{pattern}/{link}", {}).get(metric), digits, scale) for link in links]
        if any(cells):
            lines.append(f"| {pattern} | " + " | ".join(cells) + " |")
    return lines


def limits(cases, links):
    cells = []
    for link in links:
        values = [case["resident_s"]["limit"] for name, case in cases.items() if name.split("/", 1)[1] == link and case.get("resident_s", {}).get("limit")]
        cells.append(f"{values[0]:.2f}" if values else "")
    wires = []
    for link in links:
        values = [case["resident_s"]["control"] for name, case in cases.items() if name.split("/", 1)[1] == link and case.get("resident_s", {}).get("control")]
        wires.append(f"{values[0]:.2f}" if values else "")
    return ["| *limit* | " + " | ".join(cells) + " |", "| *the wire alone* | " + " | ".join(wires) + " |"]


def spread(cases, metric, digits=2):
    values = sorted(case[metric]["value"] for case in cases.values() if metric in case)
    over = sum(case[metric].get("met") is False for case in cases.values() if metric in case)
    if not values:
        return f"{metric}: none"
    return f"{metric}: {values[0]:.{digits}f} - {values[-1]:.{digits}f}, median {values[len(values) // 2]:.{digits}f}, {len(values)} cells, {over} over their limit"


def main(path, suite="cold"):
    cases = load(path, suite)
    links = list(dict.fromkeys(case.split("/", 1)[1] for case in cases))
    plain = [link for link in links if link.count("/") == 1]
    print("\nresident_s\n")
    print("\n".join(matrix(cases, plain, "resident_s") + limits(cases, plain)))
    print("\nfirst byte, ms\n")
    print("\n".join(matrix(cases, plain, "first_byte_s", 1, 1000)))
    print("\nCPU s a GB\n")
    print("\n".join(matrix(cases, plain, "cpu_s_per_gb")))
    print()
    for metric, digits in (("wire_amplification", 3), ("rss_mib", 0), ("machine_busy", 2), ("resident_p2_by_p4", 2), ("cpu_s_per_gb", 2)):
        print(spread(cases, metric, digits))
    others = [link for link in links if link.count("/") == 2]
    print("\n| cell | resident s | first byte ms | amplification | CPU s a GB | RSS MiB |\n|---|---|---|---|---|---|")
    for case, metrics in cases.items():
        if case.split("/", 1)[1] in others:
            print(f"| {case} | {shown(metrics.get('resident_s'))} | {shown(metrics.get('first_byte_s'), 1, 1000)} | {shown(metrics.get('wire_amplification'), 3)} | "
                  f"{shown(metrics.get('cpu_s_per_gb'))} | {shown(metrics.get('rss_mib'), 0)} |")


main(*sys.argv[1:])
