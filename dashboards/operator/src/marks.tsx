import type { ComponentChildren } from "preact";
import { now } from "./api";
import { age, until } from "./format";

/** A state as shape, colour and word: none of the three has to be seen for the others to tell. */
export function Mark({ kind, text }: { kind: string; text?: string }) {
  return (
    <span class={`mark mark-${tone(kind)}`}>
      <Glyph kind={kind} />
      {text ?? kind.replaceAll("_", " ")}
    </span>
  );
}

/** The shape alone, for where words say the state anyway. */
export function Glyph({ kind }: { kind: string }) {
  return (
    <svg class={`glyph mark-${tone(kind)}`} viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
      {shape(tone(kind))}
    </svg>
  );
}

export type Tone = "good" | "busy" | "warn" | "bad" | "off" | "none";

/** Which of the six looks a state of a box, rung, command, ticket, update or transfer has. */
export function tone(kind: string): Tone {
  switch (kind) {
    case "online":
    case "active":
    case "ok":
    case "done":
    case "verified":
    case "valid":
    case "committed":
    case "resolved":
      return "good";
    case "trying":
    case "sent":
    case "accepted":
    case "queued":
    case "started":
    case "completing":
    case "sending":
    case "waiting":
    case "assigned":
    case "metadata":
    case "preflight":
    case "download":
    case "verify":
    case "wait_window":
    case "arm":
    case "reboot":
    case "trial":
    case "acknowledged":
      return "busy";
    case "stale":
    case "paused":
    case "degraded":
    case "quarantined":
    case "warning":
    case "open":
      return "warn";
    case "failed":
    case "rejected":
    case "refused":
    case "revoked":
    case "rolled_back":
    case "critical":
      return "bad";
    case "offline":
    case "expired":
    case "cancelled":
    case "aborted":
    case "inventoried":
      return "off";
    default:
      return "none";
  }
}

function shape(tone: Tone) {
  switch (tone) {
    case "good":
      return <circle cx="8" cy="8" r="6" fill="currentColor" />;
    case "busy":
      return (
        <>
          <circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2" />
          <path d="M8 2A6 6 0 0 1 8 14Z" fill="currentColor" />
        </>
      );
    case "warn":
      return <path d="M8 1 15 14H1Z" fill="currentColor" />;
    case "bad":
      return <path d="M3 3 13 13M13 3 3 13" stroke="currentColor" stroke-width="3" stroke-linecap="round" />;
    case "off":
      return <circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2.5" />;
    case "none":
      return <path d="M2 8h12" stroke="currentColor" stroke-width="3" stroke-dasharray="3 2" />;
  }
}

/** How old something is; the exact time on hovering. */
export function Age({ at }: { at: number | null | undefined }) {
  if (at == null) return <span class="age">never</span>;
  const exact = new Date(at);
  return (
    <time class="age" dateTime={exact.toISOString()} title={exact.toLocaleString()}>
      {age(at, now.value)}
    </time>
  );
}

/** When something ends. */
export function Until({ at }: { at: number | null | undefined }) {
  if (at == null) return <span class="age">never</span>;
  const exact = new Date(at);
  return (
    <time class="age" dateTime={exact.toISOString()} title={exact.toLocaleString()}>
      {until(at, now.value)}
    </time>
  );
}

export function Section({ title, aside, children }: { title: string; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class="card" aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

/** An error that the operator has to know. */
export function Trouble({ text }: { text: string | undefined }) {
  return <div aria-live="assertive">{text !== undefined && <p class="trouble" role="alert">{text}</p>}</div>;
}
