import { useState } from "preact/hooks";
import { call, may } from "./api";
import { Ask, Confirm, Field } from "./dialog";
import type { Box } from "./types";

type Asked = "describe" | "quarantine" | "release" | "revoke";

/** What an operator can do about a box's name and standing. */
export function Standing({ box, changed }: { box: Box; changed: () => Promise<unknown> }) {
  const [asked, setAsked] = useState<Asked>();
  if (!may("operator")) return null;
  const base = `/v1/boxes/${encodeURIComponent(box.id)}`;
  const close = () => setAsked(undefined);
  const post = (what: Asked) => () => call("POST", `${base}/${what}`).then(changed);
  return (
    <span class="actions aside">
      <button onClick={() => setAsked("describe")}>Describe…</button>
      {box.state === "active" && <button onClick={() => setAsked("quarantine")}>Quarantine…</button>}
      {box.state === "quarantined" && <button onClick={() => setAsked("release")}>Release from quarantine…</button>}
      {box.state !== "revoked" && <button onClick={() => setAsked("revoke")}>Revoke…</button>}
      {asked === "describe" && <Describe box={box} changed={changed} close={close} />}
      {asked === "quarantine" && (
        <Confirm title={`Quarantine ${box.id}?`} verb="Quarantine" send={post("quarantine")} close={close}>
          <p>It stays connected and reports, but loses its tickets, delivers nothing and gets no commands until someone releases it.</p>
        </Confirm>
      )}
      {asked === "release" && (
        <Ask title={`Release ${box.id}?`} verb="Release" send={post("release")} close={close}>
          <p>Have you looked at why it was quarantined? It delivers and obeys again at once.</p>
        </Ask>
      )}
      {asked === "revoke" && (
        <Confirm title={`Revoke ${box.id} for ever?`} verb="Revoke" type={box.id} send={post("revoke")} close={close}>
          <p>Its connection is cut at once and it never gets a certificate again. What is on it stays there, encrypted.</p>
        </Confirm>
      )}
    </span>
  );
}

function Describe({ box, changed, close }: { box: Box; changed: () => Promise<unknown>; close: () => void }) {
  const [label, setLabel] = useState(box.label);
  const [site, setSite] = useState(box.site);
  const send = () => call("PATCH", `/v1/boxes/${encodeURIComponent(box.id)}`, { label, site }).then(changed);
  return (
    <Ask title={`Describe ${box.id}`} verb="Save" send={send} close={close}>
      <Field label="Label" hint="What you call it">
        <input maxLength={200} value={label} onInput={(e) => setLabel(e.currentTarget.value)} />
      </Field>
      <Field label="Site" hint="Where it stands">
        <input maxLength={200} value={site} onInput={(e) => setSite(e.currentTarget.value)} />
      </Field>
    </Ask>
  );
}
