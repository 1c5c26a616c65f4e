import { useState } from "preact/hooks";
import { call, me, told } from "./api";
import { brief, words } from "./format";
import { Age, Mark, Section, Trouble } from "./marks";
import type { Command } from "./types";

/** A command that nobody fetched within this time is not carried out any more. */
const EXPIRES_IN_SECS = 60;

export function Commands({ id, commands, changed }: { id: string; commands: readonly Command[]; changed: () => void }) {
  const [trouble, setTrouble] = useState<string>();
  const [busy, setBusy] = useState(false);
  const [seconds, setSeconds] = useState(30);

  const send = async (command: { kind: string; seconds?: number }) => {
    setBusy(true);
    setTrouble(undefined);
    try {
      await call<Command>("POST", `/v1/boxes/${encodeURIComponent(id)}/commands`, {
        ...command,
        expires_in_secs: EXPIRES_IN_SECS,
      });
      changed();
    } catch (error) {
      setTrouble(told(error));
    } finally {
      setBusy(false);
    }
  };

  return (
    <Section title="Commands">
      {me.value?.role !== "viewer" && (
        <div class="actions">
          <button disabled={busy} onClick={() => void send({ kind: "identify", seconds: 10 })}>
            Identify
          </button>
          <button disabled={busy} onClick={() => void send({ kind: "report_now" })}>
            Report now
          </button>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void send({ kind: "set_telemetry_interval", seconds });
            }}
          >
            <label for="interval">Telemetry every</label>
            <input
              id="interval"
              type="number"
              min={1}
              max={3600}
              required
              value={seconds}
              onInput={(event) => setSeconds(event.currentTarget.valueAsNumber)}
            />
            s <button disabled={busy}>Set</button>
          </form>
        </div>
      )}
      <Trouble text={trouble} />
      {commands.length === 0 ? (
        <p class="quiet">No commands yet.</p>
      ) : (
        <ul class="list" aria-live="polite">
          {commands.map((c) => (
            <li key={c.id}>
              <Mark kind={c.state} /> <strong>{words(c.kind)}</strong>{" "}
              {c.percent != null && c.state === "accepted" && <progress max={100} value={c.percent} aria-label="progress" />}{" "}
              <Age at={c.updated} /> <span class="quiet">by {c.created_by}</span>
              {(c.reason ?? c.progress) != null && <p>{c.reason ?? c.progress}</p>}
              {c.result != null && <p class="quiet">{brief(c.result)}</p>}
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}
