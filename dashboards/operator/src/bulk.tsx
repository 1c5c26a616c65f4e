import { useState } from "preact/hooks";
import { call, may } from "./api";
import { Ask, Confirm, Field, STAY } from "./dialog";
import { brief, words } from "./format";
import { useList, useLive, useSoon } from "./hooks";
import { type Arguments, KindFields, useKinds, written } from "./kinds";
import { Age, Mark, Section, Trouble } from "./marks";
import { Proposals } from "./proposals";
import { boxLink } from "./route";
import { More } from "./table";
import type { Blast, Bulk, BulkBox, Proposal } from "./types";

/** One command for many boxes: who would get it, and how far it has come. */
export function BulkPage() {
  const list = useList<Bulk>("/v1/bulk-commands", {}, 20);
  const proposals = useList<Proposal>("/v1/proposals", { state: "open" });
  const [making, setMaking] = useState(false);
  const [shown, setShown] = useState<string>();
  const readAll = () => Promise.all([list.read(), proposals.read()]);
  const soon = useSoon(() => void readAll(), 500);
  useLive(
    undefined,
    (event) => {
      if (["bulk", "command", "proposal"].includes(event.event)) soon();
    },
    soon,
  );
  return (
    <main>
      <div class="title">
        <h1>Commands for many</h1>
        {may("operator") && (
          <button class="primary aside" onClick={() => setMaking(true)}>
            Tell many boxes
          </button>
        )}
      </div>
      <Proposals list={proposals} changed={readAll} />
      <Section title="Sent">
        <Trouble text={list.trouble} />
        {list.items?.length === 0 && <p class="quiet">Nothing was sent to many boxes yet.</p>}
        <ul class="list" aria-live="polite">
          {list.items?.map((one) => (
            <li key={one.id}>
              <div class="line">
                <Mark kind={one.state} />
                <span class="what">
                  {words(one.kind)} {brief(one.command)} <span class="quiet">{one.filter === "" ? "all boxes" : one.filter}, by {one.created_by}</span>
                  <p>
                    {Object.entries(one.counts).map(([state, count]) => (
                      <span key={state}>
                        <Mark kind={state} text={`${count} ${words(state)}`} />{" "}
                      </span>
                    ))}
                  </p>
                </span>
                <button onClick={() => setShown(shown === one.id ? undefined : one.id)} aria-expanded={shown === one.id}>
                  Boxes
                </button>
                {may("operator") && one.state !== "cancelled" && one.state !== "refused" && <Cancel bulk={one} changed={readAll} />}
                <Age at={one.created} />
              </div>
              {shown === one.id && <Boxes id={one.id} counts={JSON.stringify(one.counts)} />}
            </li>
          ))}
        </ul>
        <More list={list} />
      </Section>
      {making && <Make changed={readAll} close={() => setMaking(false)} />}
    </main>
  );
}

function Cancel({ bulk, changed }: { bulk: Bulk; changed: () => Promise<unknown> }) {
  const [asked, setAsked] = useState(false);
  return (
    <>
      <button onClick={() => setAsked(true)}>Cancel…</button>
      {asked && (
        <Confirm
          title="Take it back?"
          verb="Take it back"
          send={() => call("POST", `/v1/bulk-commands/${encodeURIComponent(bulk.id)}/cancel`).then(changed)}
          close={() => setAsked(false)}
        >
          <p>Boxes that have begun it finish it; the others are not told any more.</p>
        </Confirm>
      )}
    </>
  );
}

/** Each box and how far it has come; read anew when the numbers change. */
function Boxes({ id, counts }: { id: string; counts: string }) {
  const list = useList<BulkBox>(`/v1/bulk-commands/${encodeURIComponent(id)}/boxes`, {}, 100);
  const [seen, setSeen] = useState(counts);
  if (seen !== counts) {
    setSeen(counts);
    void list.read();
  }
  return (
    <>
      <Trouble text={list.trouble} />
      <ul class="list" aria-label="Boxes of the command">
        {list.items?.map((one) => (
          <li key={one.box_id} class="line">
            <Mark kind={one.state} />
            <span class="what">
              <a href={boxLink(one.box_id)}>{one.box_id}</a>{" "}
              {one.percent != null && one.state === "accepted" && <progress max={100} value={one.percent} aria-label="progress" />}
              {one.reason != null && <p>{one.reason}</p>}
            </span>
            <Age at={one.updated} />
          </li>
        ))}
      </ul>
      <More list={list} />
    </>
  );
}

function Make({ changed, close }: { changed: () => Promise<unknown>; close: () => void }) {
  const { kinds, trouble } = useKinds();
  const offered = kinds.filter((kind) => kind.way !== "rollout");
  const [name, setName] = useState("");
  const [given, setGiven] = useState<Arguments>({});
  const [filter, setFilter] = useState("state:active");
  const [reason, setReason] = useState("");
  const [blast, setBlast] = useState<Blast>();
  const [typed, setTyped] = useState("");
  const kind = offered.find((one) => one.kind === name) ?? offered[0];
  const changing = () => {
    setBlast(undefined);
    setTyped("");
  };
  // The dialog stays open after the preview: what is seen there is then sent.
  const send = async () => {
    if (kind === undefined) return STAY;
    if (blast === undefined) {
      setBlast(await call<Blast>("POST", "/v1/bulk-previews", { filter, command: written(kind, given) }));
      return STAY;
    }
    await call("POST", "/v1/bulk-commands", { preview: blast.preview, ...(blast.takes_two_people && { reason }) });
    return changed();
  };
  const verb = blast === undefined ? "Look whom it reaches" : blast.takes_two_people ? "Propose" : "Send";
  const ready = kind !== undefined && (blast === undefined || typed.trim() === String(blast.boxes));
  return (
    <Ask title="Tell many boxes" verb={verb} danger={blast?.takes_two_people === true} ready={ready} send={send} close={close}>
      <Trouble text={trouble} />
      <Field label="Boxes" hint='For example: state:active and site~"pier 4" and not online:false. Empty for all.'>
        <input
          value={filter}
          maxLength={1000}
          spellcheck={false}
          autocomplete="off"
          onInput={(event) => {
            setFilter(event.currentTarget.value);
            changing();
          }}
        />
      </Field>
      <Field label="Command" hint={kind?.description ?? ""}>
        <select
          value={kind?.kind}
          onChange={(event) => {
            setName(event.currentTarget.value);
            setGiven({});
            changing();
          }}
        >
          {offered.map((one) => (
            <option key={one.kind} value={one.kind}>
              {one.title}
            </option>
          ))}
        </select>
      </Field>
      {kind !== undefined && (
        <KindFields
          kind={kind}
          given={given}
          change={(next) => {
            setGiven(next);
            changing();
          }}
        />
      )}
      {blast !== undefined && (
        <div role="status">
          <p>
            <strong>{blast.boxes} boxes</strong> at {blast.site_count} sites
            {blast.sites.length > 0 && ` (${blast.sites.slice(0, 5).map((s) => `${s.site === "" ? "no site" : s.site}: ${s.boxes}`).join(", ")}${blast.site_count > 5 ? ", …" : ""})`}
            , {blast.order_count} orders{blast.orders.length > 0 && ` (${blast.orders.slice(0, 5).join(", ")}${blast.order_count > 5 ? ", …" : ""})`}.
          </p>
          <p>
            {blast.offline} offline, {blast.active_transfers} transfers under way. Left out: {blast.quarantined} quarantined, {blast.revoked} revoked.
          </p>
          {blast.takes_two_people && (
            <Field label="Reason" hint="Somebody else has to approve it, and reads this.">
              <textarea required maxLength={1000} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
            </Field>
          )}
          <Field label={`Type ${blast.boxes} to confirm`}>
            <input value={typed} onInput={(event) => setTyped(event.currentTarget.value)} autocomplete="off" inputMode="numeric" />
          </Field>
        </div>
      )}
    </Ask>
  );
}
