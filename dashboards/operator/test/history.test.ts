import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { columns, missing, rates, span } from "../src/chart";
import { runs, saying, together } from "../src/sayings";
import type { Point, TimelineItem } from "../src/types";

const load = [{ label: "Load", unit: String, values: (points: readonly Point[]) => points.map((p) => p.load_1m) }];
const point = (at: number, load_1m: number): Point => ({ at, load_1m, memory_used_bytes: 0 });

test("the chart draws nothing across a time without samples", () => {
  const drawn = columns([point(90_000, 4), point(10_000, 1), point(20_000, 2), point(30_000, 3)], load, 10_000);
  expect(drawn).toEqual([[10, 20, 30, 30.001, 90], [1, 2, 3, null, 4]]);
});

test("samples are missing only where three more should have come", () => {
  const after = (times: number[], longest: number) => missing(times, longest).flatMap((is, i) => (is ? [i] : []));
  expect(after([0, 10, 20, 50, 60], 10)).toEqual([]);
  expect(after([0, 10, 20, 51, 60], 10)).toEqual([2]);
  // The box was told to report more often, and nothing is missing from before.
  expect(after([0, 60, 120, 180, 182, 184], 20)).toEqual([]);
  // One sample alone between two silences.
  expect(after([0, 2, 4, 100, 200, 202, 204], 2)).toEqual([2, 3]);
  expect([missing([], 10), missing([5], 10)]).toEqual([[], [false]]);
});

test("the chart ends now, also when the box is silent, and shows five minutes at least", () => {
  expect(span(1000, 4000, 5_000_000)).toEqual([1000, 5000]);
  expect(span(4990, 5001, 5_000_000)).toEqual([4701, 5001]);
  expect(span(null, null, 5_000_000)).toEqual([4700, 5000]);
});

test("a counter that began anew has no rate there", () => {
  const of = (at: number, sent: number | null): Point => ({ ...point(at, 0), network_sent_bytes: sent });
  const counted = [of(0, 100), of(1000, 300), of(3000, 700), of(4000, 5), of(5000, null), of(6000, 9)];
  expect(rates(counted, (p) => p.network_sent_bytes)).toEqual([null, 200, 200, null, null, null]);
});

interface Batch {
  body: { epoch: string; entries: { number: number; at: number; fact: { kind: string } & Record<string, unknown> }[] };
}

test("every golden fact of a box's journal is said in words", () => {
  const batch = JSON.parse(readFileSync(join(import.meta.dirname, "../../../protocol/tests/wire/journal-batch.json"), "utf8")) as Batch;
  const said = batch.body.entries
    .filter(({ fact }) => fact.kind !== "telemetry")
    .map(({ number, at, fact }) => {
      const item: TimelineItem = { id: "e-1", number, at, received: at, kind: fact.kind, source: "journal", detail: fact };
      const { kind, what, more } = saying(item, new Map([["c-1", "identify"]]));
      return [kind, what, more.replace(/^until .*/, "until")].join(" | ");
    });
  expect(said).toEqual([
    "degraded | agent 0.1.0 started | the one before it ended without saying so",
    "failed | address fails: LH-201 | eth0",
    "ok | has a new certificate | until",
    "done | identify: done | blinked 5",
    "failed | command: failed | no light",
    "rolled_back | update to 0.2.0: rolled back | health check failed",
    "ok | line 7/ä.seg is safe on the box | 3 B for survey-2026",
    "ok | signed the receipts of what it took | ",
    "offline | line 7/ä.seg was deleted by its owner | survey-2026",
    " | encrypted its vault's key for the depot | ",
    "aborted | survey was erased on the box | 12 objects",
    "verified | line 7/ä.seg is safe in the cloud | survey-2026",
    "failed | line 7/ä.seg cannot be delivered | the bucket refuses this name",
    "failed | vault failed | frame 3 of segment 9 is damaged",
    ' | names: something odd | the name "a" differs from "A" in upper and lower case alone',
  ]);
});

test("what many objects do one after another is one line", () => {
  const item = (kind: string, number: number): TimelineItem => ({ id: "e", number, at: 0, received: 0, kind, source: "journal", detail: {} });
  const kinds = ["delivered", "delivered", "failure", "failure", "delivered", "stored", "stored"];
  const found = runs(kinds.map(item));
  expect(found.map((run) => run.map(({ number }) => number))).toEqual([[0, 1], [2], [3], [4], [5, 6]]);
  expect(together(found[4] ?? []).what).toBe("2 objects are safe on the box");

  const rungs = [item("rung", 0), item("rung", 1), { ...item("rung", 2), detail: { code: "LH-201" } }, item("rung", 3)];
  expect(runs(rungs).map((run) => run.length)).toEqual([2, 1, 1]);
  expect(together(rungs.slice(0, 2)).what).toBe("2 rungs hold");

  const step = (version: string, step: string): TimelineItem => ({ ...item("update", 0), detail: { version, step } });
  const updates = runs([step("2", "rolled_back"), step("2", "trial"), step("1", "committed"), step("1", "trial")]);
  expect(updates.map((run) => together(run).what)).toEqual(["update to 2: rolled back", "update to 1: committed"]);
});

test("a fact that nobody knows yet, or that is nonsense, is shown as it is", () => {
  const item: TimelineItem = { id: "e", number: 1, at: 0, received: 0, kind: "sung_a_song", source: "journal", detail: { loud: true } };
  expect(saying(item)).toEqual({ kind: "", what: "sung a song", more: "loud true" });
  for (const kind of ["stored", "rung", "birth", "command_result", "certificate", "identify"]) {
    for (const source of ["journal", "command"]) {
      expect(typeof saying({ ...item, kind, source, detail: null as unknown as Record<string, unknown> }).what).toBe("string");
    }
  }
});
