import type { BoxLine, Point, Rung, Telemetry } from "./types";

/** Longer than this without a sample from a box that is online, and its values are stale; for a box
 * that has not said how often it takes one. */
export const STALE_AFTER_MS = 3 * 60_000;

/** What a sample may be late by. */
const LATE_MS = 15_000;

/** How long until then, in one unit, or how long ago it was. */
export function until(at: number, now: number): string {
  const seconds = Math.ceil((at - now) / 1000);
  if (seconds <= 0) return age(at, now);
  if (seconds < 60) return `in ${seconds} s`;
  if (seconds < 3600) return `in ${Math.ceil(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `in ${Math.round(seconds / 3600)} h`;
  return `in ${Math.round(seconds / 86_400)} d`;
}

/** How long ago, in one unit. The future is clock skew and reads as now. */
export function age(at: number | null | undefined, now: number): string {
  if (at == null) return "never";
  const seconds = Math.floor((now - at) / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

export function bytes(count: number | null | undefined): string {
  if (count == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export type Presence = "online" | "stale" | "offline" | "unknown";

/** When the values of a box that takes a sample every so often are stale: after three that did not come. */
export function staleAfter(intervalSecs: number | null | undefined): number {
  return intervalSecs == null ? STALE_AFTER_MS : 3 * intervalSecs * 1000 + LATE_MS;
}

/** What can be said about a box's connection. */
export function presence(
  box: Pick<BoxLine, "online" | "last_seen" | "telemetry_at" | "telemetry_interval_secs" | "online_since">,
  now: number,
): Presence {
  if (!box.online) return box.last_seen == null ? "unknown" : "offline";
  const heard = Math.max(box.telemetry_at ?? 0, box.online_since ?? 0);
  return now - heard > staleAfter(box.telemetry_interval_secs) ? "stale" : "online";
}

/** The rung at which the ladder breaks, if any. */
export function broken(rungs: readonly Rung[]): Rung | undefined {
  return rungs.find((r) => r.status === "failed") ?? rungs.find((r) => r.status === "degraded");
}

/** A live sample as a point of the chart. */
export function pointOf(sample: Telemetry, at: number): Point {
  const heat = sample.temperatures.map((t) => t.celsius);
  const sum = (counts: number[]) => counts.reduce((a, b) => a + b, 0);
  return {
    at,
    load_1m: sample.load_1m,
    memory_used_bytes: sample.memory_total_bytes - sample.memory_available_bytes,
    celsius: heat.length > 0 ? Math.max(...heat) : null,
    pending_bytes: sample.vault?.pending_bytes ?? null,
    network_sent_bytes: sum(sample.networks.map((n) => n.sent_bytes)),
    network_received_bytes: sum(sample.networks.map((n) => n.received_bytes)),
  };
}

/** Names under which milliseconds stand. */
const TIMES = ["at", "expires", "since"];

function plain(key: string, value: unknown): string {
  if (typeof value === "number" && TIMES.includes(key)) return new Date(value).toLocaleString();
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A few words for a document of any shape. */
export function brief(detail: unknown): string {
  if (detail == null) return "";
  if (typeof detail !== "object") return String(detail);
  return Object.entries(detail)
    .filter(([key, value]) => key !== "kind" && value != null)
    .map(([key, value]) => `${words(key)} ${plain(key, value)}`)
    .join(", ");
}

/** `set_telemetry_interval` as a person says it. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}

/** The address of an object: its key may have slashes, and anything else. */
export function objectUrl(bucket: string, key: string): string {
  return `/v1/objects/${encodeURIComponent(bucket)}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

/** A rung as a person says it: the API and live samples write it differently. */
export function rungName(rung: string): string {
  const text = words(rung).toLowerCase();
  return { dns: "DNS", "cloud tcp": "cloud TCP", "cloud tls": "cloud TLS" }[text] ?? text;
}

/** How many of what. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** A span of time in one or two units. */
export function lasting(ms: number | null | undefined): string {
  if (ms == null) return "–";
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** A step of the bring-up funnel as a person says it. */
export function bringUpStep(step: string): string {
  const others: Record<string, string> = { powered: "switched on", claimed: "claimed", first_byte: "first byte sent" };
  return others[step] ?? rungName(step);
}
