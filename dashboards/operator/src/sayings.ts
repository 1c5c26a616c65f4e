import { brief, bytes, rungName, words } from "./format";
import type { TimelineItem } from "./types";

/** A timeline's item as a person says it: which look it has, what happened, and what more there is to it. */
export interface Saying {
  kind: string;
  what: string;
  more: string;
}

type Detail = Record<string, unknown>;

const text = (value: unknown): string => (typeof value === "string" ? value : value == null ? "" : String(value));
const inside = (value: unknown): Detail => (typeof value === "object" && value !== null ? (value as Detail) : {});

/** What a box did or what befell it; `commands` says of which kind the command of an id is. A kind that is not known yet is shown as it is. */
export function saying(item: TimelineItem, commands: ReadonlyMap<string, string> = new Map()): Saying {
  const detail = inside(item.detail);
  if (item.source === "command") return sent(item, detail);
  const object = inside(detail.object);
  const key = text(object.key);
  const into = text(object.bucket);
  switch (item.kind) {
    case "birth":
      return { kind: "online", what: "came online", more: `agent ${text(detail.agent_version)}` };
    case "death":
      return { kind: "offline", what: "went offline", more: words(text(detail.reason)) };
    case "started":
      return {
        kind: detail.unclean === true ? "degraded" : "ok",
        what: `agent ${text(detail.agent_version)} started`,
        more: detail.unclean === true ? "the one before it ended without saying so" : "",
      };
    case "rung":
      return {
        kind: detail.code == null ? "ok" : "failed",
        what: `${rungName(text(detail.rung))} ${detail.code == null ? "holds" : `fails: ${text(detail.code)}`}`,
        more: detail.fix == null ? text(detail.evidence) : `${text(detail.evidence)}; what ended the failure: ${words(text(detail.fix))}`,
      };
    case "certificate":
      return { kind: "ok", what: "has a new certificate", more: `until ${new Date(Number(detail.expires)).toLocaleString()}` };
    case "command_result": {
      const outcome = inside(detail.outcome);
      const command = words(commands.get(text(detail.id)) ?? "command");
      return { kind: text(outcome.outcome), what: `${command}: ${words(text(outcome.outcome))}`, more: text(outcome.reason) || brief(outcome.detail) };
    }
    case "update":
      return { kind: text(detail.step), what: `update to ${text(detail.version)}: ${words(text(detail.step))}`, more: text(detail.reason) };
    case "stored":
      return { kind: "ok", what: `${key} is safe on the box`, more: `${bytes(Number(detail.bytes))} for ${into}` };
    case "sealed":
      return { kind: "ok", what: "signed the receipts of what it took", more: "" };
    case "deleted":
      return { kind: "offline", what: `${key} was deleted by its owner`, more: into };
    case "erased":
      return { kind: "aborted", what: `${text(detail.bucket)} was erased on the box`, more: `${text(detail.objects)} objects` };
    case "delivered":
      return { kind: "verified", what: `${key} is safe in the cloud`, more: into };
    case "delivery_failed":
      return { kind: "failed", what: `${key} cannot be delivered`, more: text(detail.reason) };
    case "vault_key":
      return { kind: "", what: "encrypted its vault's key for the depot", more: "" };
    case "network":
      return { kind: text(detail.state), what: `network settings: ${words(text(detail.state))}`, more: text(detail.reason) || brief(detail.settings) };
    case "notice":
      return { kind: "", what: `${text(detail.part)}: something odd`, more: text(detail.text) };
    case "failure":
      return { kind: "failed", what: `${text(detail.part)} failed`, more: text(detail.text) };
    default:
      return { kind: item.state ?? "", what: words(item.kind), more: brief(item.detail) };
  }
}

function sent(item: TimelineItem, detail: Detail): Saying {
  const kind = item.state ?? "";
  switch (item.kind) {
    case "update":
      return { kind, what: `was told to update to ${text(detail.version)}`, more: words(kind) };
    case "retry":
      return { kind, what: "was told to deliver again what failed", more: words(kind) };
    case "identify":
      return { kind, what: `was told to identify itself for ${text(detail.seconds)} s`, more: words(kind) };
    case "set_telemetry_interval":
      return { kind, what: `was told to take a sample every ${text(detail.seconds)} s`, more: words(kind) };
    case "report_now":
      return { kind, what: "was told to report now", more: words(kind) };
    default:
      return { kind, what: `was told: ${words(item.kind)}`, more: [words(kind), brief(item.detail)].filter((part) => part !== "").join(", ") };
  }
}

/** What happens to many at once, and nobody reads one by one. */
const TOGETHER: Record<string, string> = {
  stored: "objects are safe on the box",
  delivered: "objects are safe in the cloud",
  deleted: "objects were deleted by their owner",
  rung: "rungs hold",
};

/** The items, those that follow one another and are alike together. */
export function runs(items: readonly TimelineItem[]): TimelineItem[][] {
  const all: TimelineItem[][] = [];
  let before: string | undefined;
  for (const item of items) {
    const like = alike(item);
    if (like !== undefined && like === before) all.at(-1)?.push(item);
    else all.push([item]);
    before = like;
  }
  return all;
}

/** The same text for items that are shown together. */
function alike(item: TimelineItem): string | undefined {
  if (item.source !== "journal") return undefined;
  if (item.kind === "update") return `update to ${text(inside(item.detail).version)}`;
  // What fails is never hidden among others.
  if (item.kind === "rung" && inside(item.detail).code != null) return undefined;
  return Object.hasOwn(TOGETHER, item.kind) ? item.kind : undefined;
}

/** A run in words: how many of what, or how far an update has come. */
export function together(run: readonly TimelineItem[]): Saying {
  const newest = run[0];
  if (newest === undefined) return { kind: "", what: "", more: "" };
  const last = saying(newest);
  const what = TOGETHER[newest.kind];
  return what === undefined ? last : { kind: last.kind, what: `${run.length.toLocaleString("en")} ${what}`, more: "" };
}
