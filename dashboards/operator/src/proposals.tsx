import { useState } from "preact/hooks";
import { call, may, me } from "./api";
import { Ask, Confirm, Field } from "./dialog";
import { brief, words } from "./format";
import { type List, useAct } from "./hooks";
import { Age, Mark, Section, Trouble, Until } from "./marks";
import type { Proposal } from "./types";

/** What waits for a second person; nothing where nothing waits. */
export function Proposals({ list, changed }: { list: List<Proposal>; changed: () => Promise<unknown> }) {
  const act = useAct();
  const [asked, setAsked] = useState<{ one: Proposal; what: "approve" | "refuse" }>();
  // A dialog closes by itself once it was answered: until then it keeps its place.
  if (asked === undefined && list.trouble === undefined && (list.items?.length ?? 0) === 0) return null;
  const close = () => setAsked(undefined);
  const post = (one: Proposal, what: string, body?: unknown) =>
    call("POST", `/v1/proposals/${encodeURIComponent(one.id)}/${what}`, body).then(changed);
  return (
    <Section title="Waits for a second person">
      <Trouble text={act.trouble ?? list.trouble} />
      <ul class="list" aria-live="polite">
        {list.items?.map((one) => (
          <li key={one.id} class="line">
            <Mark kind={one.state} />
            <span class="what">
              {words(one.kind)} {brief(one.command)} <span class="quiet">by {one.proposed_by}, ends <Until at={one.expires} /></span>
              <p>{one.reason}</p>
            </span>
            {may("operator") &&
              (one.proposer === me.value?.name ? (
                <button disabled={act.busy} onClick={() => void act.run(() => post(one, "withdraw"))}>
                  Withdraw
                </button>
              ) : (
                <>
                  <button onClick={() => setAsked({ one, what: "approve" })}>Approve…</button>
                  <button onClick={() => setAsked({ one, what: "refuse" })}>Refuse…</button>
                </>
              ))}
            <Age at={one.created} />
          </li>
        ))}
      </ul>
      {asked?.what === "approve" && (
        <Confirm
          title={`Approve: ${words(asked.one.kind)}?`}
          verb="Approve"
          type={typeof asked.one.command.bucket === "string" ? asked.one.command.bucket : asked.one.kind}
          send={() => post(asked.one, "approve")}
          close={close}
        >
          <p>
            {asked.one.proposed_by} proposes it: {asked.one.reason}
          </p>
          <p>It is sent at once and cannot be undone. Your name stands in the audit beside theirs.</p>
        </Confirm>
      )}
      {asked?.what === "refuse" && <Refuse send={(note) => post(asked.one, "refuse", { note })} close={close} />}
    </Section>
  );
}

function Refuse({ send, close }: { send: (note: string) => Promise<unknown>; close: () => void }) {
  const [note, setNote] = useState("");
  return (
    <Ask title="Refuse it?" verb="Refuse" send={() => send(note)} close={close}>
      <Field label="Why not" hint="For whoever proposed it, and for the audit.">
        <textarea maxLength={1000} value={note} onInput={(event) => setNote(event.currentTarget.value)} />
      </Field>
    </Ask>
  );
}
