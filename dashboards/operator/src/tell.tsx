import { useState } from "preact/hooks";
import { call } from "./api";
import { Ask, Field } from "./dialog";
import { type Arguments, KindFields, useKinds, written } from "./kinds";
import { Trouble } from "./marks";

const HOURS = [1, 24, 168];

/** Any command, by a form made from its schema; what takes two people is proposed. */
export function Tell({ id, told, close }: { id: string; told: () => Promise<unknown>; close: () => void }) {
  const { kinds, trouble } = useKinds();
  const offered = kinds.filter((kind) => kind.way !== "rollout");
  const [name, setName] = useState("");
  const [given, setGiven] = useState<Arguments>({});
  const [reason, setReason] = useState("");
  const [hours, setHours] = useState(1);
  const kind = offered.find((one) => one.kind === name) ?? offered[0];
  const two = kind?.way === "two_people";
  const send = () => {
    if (kind === undefined) return Promise.resolve();
    const body = { ...written(kind, given), expires_in_secs: hours * 3600, ...(two ? { reason } : {}) };
    return call("POST", `/v1/boxes/${encodeURIComponent(id)}/${two ? "proposals" : "commands"}`, body).then(told);
  };
  return (
    <Ask title={`Tell ${id}`} verb={two ? "Propose" : "Send"} danger={two} ready={kind !== undefined} send={send} close={close}>
      <Trouble text={trouble} />
      <Field label="Command" hint={kind?.description ?? ""}>
        <select
          value={kind?.kind}
          onChange={(event) => {
            setName(event.currentTarget.value);
            setGiven({});
          }}
        >
          {offered.map((one) => (
            <option key={one.kind} value={one.kind}>
              {one.title}
            </option>
          ))}
        </select>
      </Field>
      {kind !== undefined && <KindFields kind={kind} given={given} change={setGiven} />}
      {two && (
        <>
          <p>This cannot be undone. It is sent once somebody else approves it, within a day.</p>
          <Field label="Reason" hint="Whoever approves it reads this, and so does the audit.">
            <textarea required maxLength={1000} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
          </Field>
        </>
      )}
      <Field label="May be begun within" hint="A box that is offline gets it when it comes back.">
        <select value={hours} onChange={(event) => setHours(Number(event.currentTarget.value))}>
          {HOURS.map((h) => (
            <option key={h} value={h}>
              {h === 1 ? "an hour" : h === 24 ? "a day" : "a week"}
            </option>
          ))}
        </select>
      </Field>
    </Ask>
  );
}
