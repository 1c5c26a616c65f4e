import { useState } from "preact/hooks";
import { call, may } from "./api";
import { brief, words } from "./format";
import { type List, useAct } from "./hooks";
import { Age, Mark, Section, Trouble } from "./marks";
import { More } from "./table";
import { Tell } from "./tell";
import type { Box, Command } from "./types";

/** A command that nobody fetched within this time is not carried out any more. */
const EXPIRES_IN_SECS = 60;

/** What a box was told, and a way to tell it more. */
export function Commands({ id, list, state, proposed }: { id: string; list: List<Command>; state: Box["state"]; proposed: () => Promise<unknown> }) {
  const act = useAct();
  const [telling, setTelling] = useState(false);
  const [seconds, setSeconds] = useState(30);
  const send = (command: { kind: string; seconds?: number }) =>
    void act.run(() =>
      call("POST", `/v1/boxes/${encodeURIComponent(id)}/commands`, { ...command, expires_in_secs: EXPIRES_IN_SECS }).then(list.read),
    );
  const cancel = (command: Command) => void act.run(() => call("POST", `/v1/commands/${encodeURIComponent(command.id)}/cancel`).then(list.read));

  return (
    <Section title="Commands">
      {may("operator") && state === "active" && (
        <div class="actions">
          <button disabled={act.busy} onClick={() => send({ kind: "identify", seconds: 10 })}>
            Identify
          </button>
          <button disabled={act.busy} onClick={() => send({ kind: "report_now" })}>
            Report now
          </button>
          <button onClick={() => setTelling(true)}>More…</button>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              send({ kind: "set_telemetry_interval", seconds });
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
            s <button disabled={act.busy}>Set</button>
          </form>
        </div>
      )}
      {telling && <Tell id={id} told={() => Promise.all([list.read(), proposed()])} close={() => setTelling(false)} />}
      {state !== "active" && <p class="quiet">A box that is {words(state)} gets no commands.</p>}
      <Trouble text={act.trouble ?? list.trouble} />
      {list.items?.length === 0 && <p class="quiet">No commands yet.</p>}
      <ul class="list" aria-live="polite">
        {list.items?.map((c) => (
          <li key={c.id} class="line">
            <Mark kind={c.state} />
            <span class="what">
              {words(c.kind)}{" "}
              {c.percent != null && c.state === "accepted" && <progress max={100} value={c.percent} aria-label="progress" />}{" "}
              <span class="quiet">
                by {c.created_by}
                {c.proposal?.approved_by != null && `, approved by ${c.proposal.approved_by}`}
              </span>
              {c.proposal !== undefined && <p class="quiet">{c.proposal.reason}</p>}
              {(c.reason ?? c.progress) != null && <p>{c.reason ?? c.progress}</p>}
              {c.result != null && brief(c.result) !== "" && <p class="quiet">{brief(c.result)}</p>}
            </span>
            {may("operator") && (c.state === "queued" || c.state === "sent") && (
              <button disabled={act.busy} onClick={() => cancel(c)} aria-label={`Cancel ${words(c.kind)}`}>
                Cancel
              </button>
            )}
            <Age at={c.updated} />
          </li>
        ))}
      </ul>
      <More list={list} />
    </Section>
  );
}
