import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { UplinkPolicy } from "../src/types";
import { between, free, limitText, policyOf, spans } from "../src/week";

const workdays = [true, true, true, true, true, false, false];

test("hours are set on the chosen days, also past midnight", () => {
  const night = between(free(), workdays, 22, 6, 0);
  expect(spans(night[0] ?? [])).toEqual([
    { from: 0, to: 6, limit: 0 },
    { from: 6, to: 22, limit: null },
    { from: 22, to: 24, limit: 0 },
  ]);
  expect(spans(night[6] ?? [])).toEqual([{ from: 0, to: 24, limit: null }]);
});

test("a week without limits is sent as none", () => {
  expect(policyOf(true, free(), 60, {})).toEqual({ paused: true, priorities: {} });
});

test("a limit is said in words", () => {
  expect([null, 0, 1 << 20].map(limitText)).toEqual(["free", "nothing", "1.0 MiB/s"]);
});

test("the golden desired state is what the editor would make", () => {
  const path = join(import.meta.dirname, "../../../protocol/tests/wire/desired.json");
  const golden = (JSON.parse(readFileSync(path, "utf8")) as { uplink: UplinkPolicy }).uplink;
  let week = between(free(), workdays, 8, 18, 1 << 20);
  week = between(week, [false, false, false, false, false, false, true], 12, 24, 0);
  expect(policyOf(true, week, 60, golden.priorities)).toEqual(golden);
});
