import { signal } from "@preact/signals";
import { get, may, me, query } from "./api";
import type { BoxLine, FleetEvent, Me } from "./types";

/** Whether what is on the screen is kept up to date; undefined for a page that does not claim to be. */
export const live = signal<boolean | undefined>(undefined);

/** How long after the cloud refused to say what happens it is asked again. */
const AGAIN_MS = 5000;

/** Hears what happens in the fleet until the returned function is called. `again` says that
 * happenings may have been missed, and everything is to be read anew. */
export function listen(boxId: string | undefined, hear: (event: FleetEvent) => void, again: () => void): () => void {
  let source: EventSource;
  let later: ReturnType<typeof setTimeout> | undefined;
  // Customers are not told what happens in the fleet: their pages claim to be as old as they are.
  if (!may("viewer")) return () => undefined;
  let opened = false;
  let stopped = false;
  live.value = false;

  const open = () => {
    if (stopped) return;
    source = new EventSource(query("/v1/events", { box_id: boxId }));
    source.onopen = () => {
      live.value = true;
      // Between two connections anything may have happened.
      if (opened) again();
      opened = true;
    };
    source.onerror = () => {
      live.value = false;
      // The browser comes back by itself after a broken line, not after a refusal. That may be the
      // session's end, which any other request finds out.
      if (source.readyState !== EventSource.CLOSED) return;
      clearTimeout(later);
      later = setTimeout(() => {
        get<Me>("/v1/me").then(open, () => me.value !== null && open());
      }, AGAIN_MS);
    };
    source.onmessage = (message: MessageEvent<string>) => {
      const event = parse(message.data);
      if (event === undefined) return;
      if (event.event === "lost") again();
      else hear(event);
    };
  };
  open();
  return () => {
    clearTimeout(later);
    source.close();
    stopped = true;
    live.value = undefined;
  };
}

/** An event, or undefined for what is none. */
export function parse(text: string): FleetEvent | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && "event" in value && typeof value.event === "string") {
      return value as FleetEvent;
    }
  } catch {
    // Falls through.
  }
  return undefined;
}

/** The boxes after an event; undefined when they have to be read anew. */
export function applied(boxes: readonly BoxLine[], event: FleetEvent): readonly BoxLine[] | undefined {
  const at = event.at ?? Date.now();
  const change = (part: (box: BoxLine) => Partial<BoxLine>): readonly BoxLine[] =>
    // The same list where it is about none of these: then nothing is drawn anew.
    boxes.some((box) => box.id === event.box_id) ? boxes.map((box) => (box.id === event.box_id ? { ...box, ...part(box) } : box)) : boxes;
  switch (event.event) {
    case "online":
      return change((box) => ({
        online: true,
        online_since: at,
        last_seen: at,
        agent_version: event.agent_version ?? box.agent_version ?? null,
      }));
    case "offline":
      return change(() => ({ online: false, last_seen: at }));
    case "telemetry":
      return change((box) => ({
        last_seen: at,
        telemetry_at: at,
        rungs: event.sample?.rungs ?? box.rungs,
        vault: event.sample === undefined ? (box.vault ?? null) : (event.sample.vault ?? null),
      }));
    case "reported":
      return change((box) => ({ telemetry_interval_secs: event.telemetry_interval_secs ?? box.telemetry_interval_secs ?? null }));
    case "alert":
    case "box_added":
    case "box_labelled":
    case "box_enrolled":
    case "box_refused":
    case "box_revoked":
      return undefined;
    default:
      return boxes;
  }
}
