"""What monitoring specifiers have to deliver in the end, calculated from the whole series at once.

Written from the design text alone, in exact arithmetic and without any of the collector's code. Reads
{"specifiers", "events", "until_us"} as JSON from standard input, and writes {specifier id: {data point: [...]}}:

  at once    [time_us, value, predicate state], or [time_us, value, count, skipped, predicate state] if processed
  windows    raw: [time_us, value], ordered by time; processed: [start_ms, value, count, skipped, predicate state]

An event is ["row", data point, time_us, kind, text] or ["watermark", time_us], in the order of arrival.
"""

import copy
import json
import sys
from fractions import Fraction
from itertools import groupby

SAFE = 2**53 - 1


def value_of(kind, text):
    return {"integer": int, "float": float, "text": str, "null": lambda _: None}[kind](text)


def is_number(value):
    return isinstance(value, (int, float))


def to_json(value):
    if isinstance(value, int) and abs(value) > SAFE:
        return {"integer": str(value)}
    return value


class Threshold:
    """below, above, outside: strict to enter, hysteresis to leave, minimum duration between two rows."""

    def __init__(self, predicate):
        self.predicate, self.newest, self.inside, self.since = predicate, None, False, None

    def meets(self, value, slack):
        name, predicate = self.predicate["condition"], self.predicate
        if name == "below":
            return value < predicate["threshold"] + slack
        if name == "above":
            return value > predicate["threshold"] - slack
        return value < predicate["lower"] + slack or value > predicate["upper"] - slack

    def step(self, value, time_us):
        predicate = self.predicate
        is_level = predicate.get("kind", "level") == "level"
        if not is_number(value):
            return None
        if self.newest is not None and time_us < self.newest:
            return "inside" if is_level and self.meets(value, 0) else None
        is_first, was_inside, self.newest = self.newest is None, self.inside, time_us
        if self.meets(value, predicate.get("hysteresis", 0) if was_inside else 0):
            self.since = time_us if self.since is None else self.since
            held_us = time_us - self.since
            self.inside = was_inside or held_us >= predicate.get("minimumDurationMs", 0) * 1000
        else:
            self.since, self.inside = None, False
        if is_level:
            return ("inside" if was_inside else "entering") if self.inside else None
        if is_first:
            return "initial"
        if was_inside == self.inside:
            return None
        edge = "entering" if self.inside else "leaving"
        return edge if predicate.get("edges", "both") in ("both", edge) else None


class Change:
    """changed-by: the first value, then each that differs enough from the last delivered one."""

    def __init__(self, predicate):
        self.predicate, self.newest, self.reference = predicate, None, None

    def step(self, value, time_us):
        if self.newest is not None and time_us < self.newest:
            return None
        is_first, self.newest = self.newest is None, time_us
        if is_first:
            self.reference = value
            return "initial"
        if is_number(value) and is_number(self.reference):
            distance = abs(Fraction(value) - Fraction(self.reference))
            if distance == 0 or distance < Fraction(self.predicate["delta"]):
                return None
        elif value == self.reference:
            return None
        self.reference = value
        return "entering"


def judge_of(specifier):
    predicate = specifier["predicate"]
    return (Change if predicate["condition"] == "changed-by" else Threshold)(predicate)


def calculate(form, values):
    """The function over the numbers of a window: value, count, skipped."""
    numbers = sorted(value for value in values if is_number(value))
    skipped = len(values) - len(numbers)
    if not numbers:
        return None, 0, skipped
    middle = len(numbers) // 2
    if form == "min":
        result = numbers[0]
    elif form == "max":
        result = numbers[-1]
    elif form == "mean":
        result = sum(map(Fraction, numbers)) / len(numbers)
    elif len(numbers) % 2 == 1:
        result = numbers[middle]
    else:
        result = (Fraction(numbers[middle - 1]) + Fraction(numbers[middle])) / 2
    return float(result), len(numbers), skipped


def measured(rows, interval_ms):
    """Of each interval (T-n, T] the newest row; of two with one time the one that came last."""
    if interval_ms == 0:
        return rows
    newest = {}
    for row in rows:
        tick = -(-row["time"] // (interval_ms * 1000))
        if tick not in newest or row["time"] >= newest[tick]["time"]:
            newest[tick] = row
    return [newest[tick] for tick in sorted(newest)]


def at_once(specifier, rows):
    judge = judge_of(specifier) if "predicate" in specifier else None
    answer = []
    for row in measured(rows, specifier.get("monitoringIntervalMs", 0)):
        state = judge.step(row["value"], row["time"]) if judge else None
        if judge and state is None:
            continue
        if specifier.get("format", "raw") == "raw":
            answer.append([row["time"], to_json(row["value"]), state])
        else:
            number = is_number(row["value"])
            value = float(row["value"]) if number else None
            answer.append([row["time"], value, int(number), int(not number), state])
    return answer


def windows_of(rows, width_us):
    by_window = {}
    for row in rows:
        by_window.setdefault(row["time"] // width_us, []).append(row)
    return by_window


def windows(specifier, rows, until_us):
    width_us = specifier["deliveryIntervalMs"] * 1000
    rows = measured(rows, specifier.get("monitoringIntervalMs", 0))
    by_window = windows_of(rows, width_us)
    first, end = min(by_window), until_us // width_us
    form = specifier.get("format", "raw")
    if form == "raw":
        inside = sorted((row for row in rows if row["time"] // width_us < end), key=lambda row: row["time"])
        return [[row["time"], to_json(row["value"])] for row in inside]
    answer = []
    for index in range(first, end):
        values = [row["value"] for row in by_window.get(index, [])]
        answer.append([index * width_us // 1000, *calculate(form, values), None])
    return answer


def judged_windows(specifier, rows, watermarks, until_us):
    """A window is judged at its close from what has come, and again, from the same state, with each batch of late rows."""
    width_us = specifier["deliveryIntervalMs"] * 1000
    form = specifier.get("format", "raw")
    by_window, judge, answer = windows_of(rows, width_us), judge_of(specifier), []
    for index in sorted(by_window):
        end_us = (index + 1) * width_us
        if end_us > until_us:
            break
        closed_at = next(at for at, time_us in watermarks if time_us >= end_us)
        batch_of = lambda row: next(
            at for at, time_us in watermarks if at > row["arrival"] and at >= closed_at
        )
        batches = sorted({closed_at, *map(batch_of, by_window[index])})
        before, delivered, is_first = copy.copy(judge), None, True
        for batch in batches:
            present = [row for row in by_window[index] if row["arrival"] < batch]
            state_machine = judge if is_first else copy.copy(before)
            is_first = False
            if form == "raw":
                ordered = sorted(present, key=lambda row: row["time"])
                delivered = [row for row in ordered if state_machine.step(row["value"], row["time"])]
                continue
            value, count, skipped = calculate(form, [row["value"] for row in present])
            state = None if value is None else state_machine.step(value, end_us)
            if state is not None or delivered is not None:
                delivered = [index * width_us // 1000, value, count, skipped, state]
        if form == "raw":
            answer.extend([row["time"], to_json(row["value"])] for row in delivered)
        elif delivered is not None:
            answer.append(delivered)
    return answer


def main():
    task = json.load(sys.stdin)
    rows, watermarks = [], []
    for arrival, event in enumerate(task["events"]):
        if event[0] == "watermark":
            watermarks.append((arrival, event[1]))
        else:
            _, point, time_us, kind, text = event
            rows.append({"point": point, "time": time_us, "value": value_of(kind, text), "arrival": arrival})
    by_point = lambda row: row["point"]
    answer = {}
    for specifier in task["specifiers"]:
        own = answer[specifier["id"]] = {}
        for point, group in groupby(sorted(rows, key=by_point), key=by_point):
            if specifier["dataPoints"] not in ("kpi/**", point):
                continue
            series = sorted(group, key=lambda row: row["arrival"])
            if specifier.get("deliveryIntervalMs", 0) == 0:
                own[point] = at_once(specifier, series)
            elif "predicate" in specifier:
                own[point] = judged_windows(specifier, series, watermarks, task["until_us"])
            else:
                own[point] = windows(specifier, series, task["until_us"])
    json.dump(answer, sys.stdout)


main()
