import { useState } from "preact/hooks";
import { call, may } from "./api";
import { Ask, Field } from "./dialog";
import { useList, useLive, useSoon } from "./hooks";
import { Age, Mark } from "./marks";
import { boxLink } from "./route";
import { ListTable } from "./table";
import type { Alert } from "./types";

const ROWS = 100;

/** What is wrong in the fleet, and who looks into it. */
export function Alerts() {
  const [past, setPast] = useState(false);
  const [taking, setTaking] = useState<Alert>();
  const list = useList<Alert>("/v1/alerts", { state: past ? "all" : undefined }, ROWS);
  const soon = useSoon(() => void list.read(), 300);
  useLive(
    undefined,
    (event) => {
      if (event.event === "alert") soon();
    },
    soon,
  );
  return (
    <main>
      <div class="title">
        <h1>Alerts</h1>
        <span class="quiet">what the rules see in telemetry, journals and presence</span>
        <label class="aside">
          <input type="checkbox" checked={past} onChange={(event) => setPast(event.currentTarget.checked)} /> also what is over
        </label>
      </div>
      <ListTable
        list={list}
        label="Alerts"
        name={(alert) => alert.id}
        look={(alert) => (alert.state === "resolved" ? "dim" : "")}
        empty={
          <>
            <h2>{past ? "There never was one" : "All is well"}</h2>
            <p>An alert appears here when a box is away, hot, full, stuck or about to lose its certificate.</p>
          </>
        }
        columns={[
          { head: "Alert", cell: (alert) => alert.name },
          { head: "Severity", cell: (alert) => <Mark kind={alert.severity} /> },
          { head: "Box", cell: (alert) => <a href={boxLink(alert.box_id)}>{alert.box_id}</a> },
          { head: "Seen", cell: (alert) => alert.text },
          { head: "Since", cell: (alert) => <Age at={alert.since} /> },
          { head: "State", cell: state },
          {
            head: "Actions",
            hidden: true,
            cell: (alert) =>
              alert.state === "open" &&
              may("operator") && (
                <button onClick={() => setTaking(alert)} aria-label={`Take up ${alert.name} of ${alert.box_id}`}>
                  Take up…
                </button>
              ),
          },
        ]}
      />
      {taking !== undefined && <TakeUp key={taking.id} alert={taking} taken={list.read} close={() => setTaking(undefined)} />}
    </main>
  );
}

function state(alert: Alert) {
  if (alert.state === "resolved") {
    return (
      <>
        <Mark kind="resolved" /> <Age at={alert.resolved} />
      </>
    );
  }
  if (alert.state === "acknowledged") {
    return (
      <>
        <Mark kind="acknowledged" text={`${alert.acknowledged_by ?? "somebody"} looks into it`} /> <Age at={alert.acknowledged} />
      </>
    );
  }
  return <Mark kind="open" />;
}

function TakeUp({ alert, taken, close }: { alert: Alert; taken: () => Promise<void>; close: () => void }) {
  const [note, setNote] = useState("");
  const send = () => call("POST", `/v1/alerts/${encodeURIComponent(alert.id)}/acknowledge`, { note: note.trim() }).then(taken);
  return (
    <Ask title={`${alert.name}: ${alert.box_id}`} verb="I look into it" send={send} close={close}>
      <p>{alert.text}. Others see that you look into it; it ends by itself when the box is well again.</p>
      <Field label="Note" hint="For the alert's history; may be empty">
        <input value={note} maxLength={500} onInput={(event) => setNote(event.currentTarget.value)} />
      </Field>
    </Ask>
  );
}
