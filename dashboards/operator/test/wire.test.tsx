import { readFileSync } from "node:fs";
import { join } from "node:path";
import { render } from "preact";
import { expect, test } from "vitest";
import { query } from "../src/api";
import { age, broken, brief, bytes, lasting, objectUrl, pointOf, presence, STALE_AFTER_MS, until } from "../src/format";
import { Ladder } from "../src/ladder";
import { applied, parse } from "../src/live";
import { Mark } from "../src/marks";
import { routeOf } from "../src/route";
import type { BoxLine, Telemetry } from "../src/types";

const file = (path: string): unknown => JSON.parse(readFileSync(join(import.meta.dirname, "../../..", path), "utf8"));
const golden = (name: string) => file(`protocol/tests/wire/${name}.json`) as { body: Telemetry; sent: number };
const { body: sample, sent } = golden("telemetry");

const box: BoxLine = {
  id: "0123456789AB", label: "", site: "", hardware: "swtpm", state: "active", online: true, online_since: sent,
  last_seen: sent, telemetry_at: sent, changed: sent, desired_version: 3, applied_version: 3, lan_urls: [], rungs: [], alerts: 0,
};

test("a golden sample becomes a point of the chart", () => {
  expect(pointOf(sample, sent)).toEqual({
    at: sent, load_1m: 0.25, memory_used_bytes: 4 * 1024 ** 3, celsius: 48.5, pending_bytes: 4096,
    network_sent_bytes: 20, network_received_bytes: 10,
  });
});

test("a sample without sensors and vault has gaps, not zeros", () => {
  const point = pointOf({ ...sample, temperatures: [], vault: null }, sent);
  expect([point.celsius, point.pending_bytes]).toEqual([null, null]);
});

test("the golden ladder shows its broken rung with the sentence of its code", () => {
  const code = { code: "LH-201", title: "No address", customer: "", operator: "Look at the DHCP server." };
  const place = document.createElement("div");
  render(<Ladder rungs={sample.rungs} codes={new Map([[code.code, code]])} />, place);
  const lines = [...place.querySelectorAll("li")].map((line) => line.textContent);
  expect(lines).toHaveLength(3);
  expect(lines[1]).toContain("LH-201 No address — Look at the DHCP server.");
  expect(lines[1]).toContain("eth0: no lease after 10 s");
  expect(lines[2]).toContain("not reached");
  expect(broken(sample.rungs)?.rung).toBe("address");
});

test("an age has one unit, and a clock that is ahead shows no negative age", () => {
  expect([0, 59_000, 60_000, 3_600_000, 90_000_000].map((ms) => age(sent, sent + ms))).toEqual([
    "now", "59 s ago", "1 min ago", "1 h ago", "1 d ago",
  ]);
  expect(age(sent, sent - 5000)).toBe("now");
  expect(age(null, sent)).toBe("never");
});

test("what ends is said by the time that is left, and then by its age", () => {
  expect([7 * 86_400_000, 3_600_000, 61_000, 1000, -60_000].map((ms) => until(sent + ms, sent))).toEqual([
    "in 7 d", "in 1 h", "in 2 min", "in 1 s", "1 min ago",
  ]);
});

test("a span of time is said in the unit that fits", () => {
  expect([null, 300, 9_960, 75_000, 600_000, 7_200_000, 900_000_000].map(lasting)).toEqual([
    "–", "0.3 s", "10.0 s", "75 s", "10 min", "2 h", "10 d",
  ]);
});

test("sizes are said in the largest unit that fits", () => {
  expect([0, 1023, 1024, 549_755_813_888, null].map(bytes)).toEqual(["0 B", "1023 B", "1.0 KiB", "512 GiB", "–"]);
});

test("online, stale, offline and unknown are four different things with four shapes", () => {
  const kinds = [
    presence(box, sent),
    presence(box, sent + STALE_AFTER_MS + 1),
    presence({ ...box, online: false }, sent),
    presence({ ...box, online: false, last_seen: null }, sent),
  ];
  expect(kinds).toEqual(["online", "stale", "offline", "unknown"]);
  const shapes = kinds.map((kind) => {
    const place = document.createElement("div");
    render(<Mark kind={kind} />, place);
    return place.querySelector("svg")?.innerHTML;
  });
  expect(new Set(shapes).size).toBe(4);
});

test("a box is stale when three samples by its own interval have not come", () => {
  const telling = (seconds: number) => ({ ...box, telemetry_interval_secs: seconds });
  expect(presence(telling(600), sent + 1_800_000)).toBe("online");
  expect(presence(telling(600), sent + 1_900_000)).toBe("stale");
  expect(presence(telling(2), sent + 22_000)).toBe("stale");
  const told = applied([box], { event: "reported", box_id: box.id, telemetry_interval_secs: 600 });
  expect(told?.[0]?.telemetry_interval_secs).toBe(600);
});

test("events change the boxes they are about and no others", () => {
  const other = { ...box, id: "BA9876543210" };
  const off = applied([box, other], { event: "offline", at: sent + 9, box_id: box.id });
  expect(off?.map((b) => b.online)).toEqual([false, true]);
  const heard = applied([box], { event: "telemetry", at: sent + 9, box_id: box.id, sample });
  expect(heard?.[0]).toMatchObject({ telemetry_at: sent + 9, rungs: sample.rungs });
  expect(applied([box], { event: "box_added", box_id: "X" })).toBeUndefined();
});

test("an event about a box that is not shown draws nothing anew", () => {
  const shown = [box];
  expect(applied(shown, { event: "telemetry", at: sent, box_id: "BA9876543210", sample })).toBe(shown);
});

test("what is no event is passed over", () => {
  expect(["", "null", "[]", "{}", '{"event":1}', "{"].map(parse)).toEqual(Array(6).fill(undefined));
  expect(parse('{"event":"lost"}')).toEqual({ event: "lost" });
});

test("keys and searches survive the address whatever is in them", () => {
  expect(objectUrl("b", "a b/ü#?%.bin")).toBe("/v1/objects/b/a%20b/%C3%BC%23%3F%25.bin");
  expect(query("/v1/boxes", { q: "a&b", cursor: undefined })).toBe("/v1/boxes?q=a%26b");
  expect(routeOf("#/boxes/0123456789AB")).toEqual({ page: "box", id: "0123456789AB" });
  expect(routeOf("#/data?bucket=b&prefix=a%2F")).toEqual({ page: "data", bucket: "b", prefix: "a/" });
  expect(routeOf("#/boxes/%E0%A4%A")).toEqual({ page: "fleet" });
  expect(["#/orders", "#/orders/ORDER-17", "#/rollouts/ro-1", "#/rollouts", "#/constructor/x", "#/me"].map(routeOf)).toEqual([
    { page: "orders" }, { page: "order", id: "ORDER-17" }, { page: "rollout", id: "ro-1" }, { page: "fleet" }, { page: "fleet" },
    { page: "me" },
  ]);
  expect(brief({ kind: "x", percent: 40, text: null })).toBe("percent 40");
});

interface Contract {
  paths: Record<string, Record<string, unknown>>;
  components: { schemas: Record<string, { properties?: Record<string, unknown> }> };
}

test("every request and field that the dashboard uses is in the API's contract", () => {
  const contract = file("fleet-api/openapi.json") as Contract;
  const requests = [
    "get /v1/me", "post /v1/session", "delete /v1/session", "get /v1/boxes", "get /v1/boxes/{box_id}",
    "get /v1/boxes/{box_id}/telemetry", "get /v1/boxes/{box_id}/commands", "post /v1/boxes/{box_id}/commands",
    "get /v1/boxes/{box_id}/transfers", "post /v1/boxes/{box_id}/release", "get /v1/boxes/{box_id}/timeline", "get /v1/codes", "get /v1/buckets",
    "get /v1/objects", "get /v1/objects/{bucket}/{key}", "delete /v1/objects/{bucket}/{key}", "get /v1/events",
    "patch /v1/boxes/{box_id}", "post /v1/boxes/{box_id}/quarantine", "post /v1/boxes/{box_id}/revoke", "post /v1/inventory",
    "post /v1/commands/{command_id}/cancel", "post /v1/me/password", "get /v1/audit", "get /v1/orders", "post /v1/orders",
    "get /v1/orders/{order_id}", "get /v1/tickets", "get /v1/boxes/{box_id}/tickets", "post /v1/boxes/{box_id}/tickets",
    "get /v1/tickets/{ticket_id}/download", "delete /v1/tickets/{ticket_id}", "get /v1/releases", "get /v1/rollouts", "post /v1/rollouts",
    "get /v1/rollouts/{rollout_id}", "post /v1/rollouts/{rollout_id}/abort", "get /v1/operators", "post /v1/operators", "patch /v1/operators/{name}", "delete /v1/operators/{name}",
    "get /v1/boxes/{box_id}/uplink", "put /v1/boxes/{box_id}/uplink", "post /v1/boxes/{box_id}/uplink/pause", "post /v1/boxes/{box_id}/uplink/resume",
    "get /v1/buckets/{bucket}/destination", "post /v1/buckets/{bucket}/probe", "get /v1/tokens", "post /v1/tokens", "delete /v1/tokens/{token_id}",
    "get /v1/alerts", "post /v1/alerts/{alert_id}/acknowledge", "get /v1/command-kinds", "get /v1/proposals",
    "post /v1/boxes/{box_id}/proposals", "post /v1/proposals/{proposal_id}/approve", "post /v1/proposals/{proposal_id}/refuse",
    "post /v1/proposals/{proposal_id}/withdraw", "post /v1/bulk-previews", "get /v1/bulk-commands", "post /v1/bulk-commands",
    "get /v1/orders/{order_id}/network", "put /v1/orders/{order_id}/network", "post /v1/orders/{order_id}/probe-tickets",
    "post /v1/orders/{order_id}/probe-reports", "get /v1/orders/{order_id}/file", "get /v1/insights/bring-up", "get /v1/insights/bring-up/boots", "get /v1/bulk-commands/{bulk_id}/boxes", "post /v1/bulk-commands/{bulk_id}/cancel",
  ];
  for (const request of requests) {
    const [method = "", path = ""] = request.split(" ");
    expect(contract.paths[path]?.[method], request).toBeDefined();
  }
  const fields = (schema: string) => Object.keys(contract.components.schemas[schema]?.properties ?? {});
  const read: Record<string, string[]> = {
    BoxView: Object.keys(box).filter((name) => name !== "telemetry_at" && name !== "alerts"),
    BoxDetail: ["box", "telemetry", "telemetry_at", "reported", "reported_at", "update", "quarantine", "uploads"],
    QuarantineView: ["since", "held_by", "reason", "differs", "accepted"],
    DifferenceView: ["pcr", "measures", "found", "expected"],
    BoxUpdateView: ["rollout", "version", "state", "reason", "since"],
    TicketView: ["id", "box_id", "order", "bucket", "created_by", "created", "expires", "revoked"],
    Order: ["id", "customer", "bucket", "note", "created_by", "created"],
    Rollout: ["id", "version", "started_by", "started_at", "aborted_at", "aborted_by", "boxes"],
    RolloutBox: ["box_id", "state", "step", "reason", "version_before", "version_after", "since"],
    UplinkView: ["wanted", "applied", "state", "bytes_per_sec"],
    UplinkPolicyView: ["paused", "week", "priorities"],
    WeekView: ["utc_offset_minutes", "limits"],
    DestinationView: ["bucket", "checked", "usable", "problems", "notes"],
    Release: ["version", "target", "sha256", "length"],
    Token: ["id", "name", "role", "created_by", "created", "expires", "revoked"],
    Alert: ["id", "box_id", "name", "severity", "state", "text", "since", "acknowledged", "acknowledged_by", "resolved"],
    Proposal: ["id", "box_id", "kind", "command", "reason", "proposed_by", "proposer", "created", "expires", "state", "decided_by", "note"],
    BlastView: ["preview", "boxes", "offline", "quarantined", "revoked", "sites", "site_count", "orders", "order_count", "active_transfers", "takes_two_people"],
    BulkView: ["id", "filter", "kind", "command", "state", "created_by", "created", "counts"],
    BulkBox: ["box_id", "state", "percent", "reason", "updated"],
    Network: ["answers", "said", "said_by", "found", "differs", "report"],
    Answers: ["address", "vlan", "proxy", "dot1x", "egress"],
    BringUp: ["from", "to", "funnel", "times", "items", "next"],
    BringUpTimes: ["boots", "online", "median_ms", "p90_ms", "slowest_ms"],
    Cause: ["group", "rung", "code", "title", "failures", "boxes", "lasting", "held_up_ms", "longest_ms", "fixes"],
    BootView: ["box_id", "boot", "began", "release", "site", "power_to_online_ms", "reached", "failures"],
    BootFailure: ["code", "title", "evidence", "lasted_ms", "fix"],
    KindView: ["kind", "title", "description", "way", "schema"],
    MadeToken: ["token", "secret"],
    AuditItem: ["number", "at", "actor", "action", "subject", "detail", "hash"],
    TimelineItem: ["source", "kind", "at", "id", "number", "state", "detail"],
    TelemetryPoint: Object.keys(pointOf(sample, sent)),
  };
  for (const [schema, names] of Object.entries(read)) expect(fields(schema), schema).toEqual(expect.arrayContaining(names));
});
