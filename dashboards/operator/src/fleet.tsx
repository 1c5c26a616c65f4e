import { useEffect, useState } from "preact/hooks";
import { call, may, now } from "./api";
import { Ask, Field } from "./dialog";
import { broken, bytes, count, presence, rungName } from "./format";
import { useList, useLive, useSoon } from "./hooks";
import { applied } from "./live";
import { Age, Mark } from "./marks";
import { alertsLink, boxLink } from "./route";
import { ListTable } from "./table";
import type { BoxLine } from "./types";

const ROWS = 100;

export function Fleet() {
  const [search, setSearch] = useState("");
  const [asked, setAsked] = useState("");
  const [adding, setAdding] = useState(false);
  const list = useList<BoxLine>("/v1/boxes", { q: asked }, ROWS);
  const { items } = list;
  useEffect(() => {
    const soon = setTimeout(() => setAsked(search.trim()), 200);
    return () => clearTimeout(soon);
  }, [search]);
  const soon = useSoon(() => void list.read(), 300);
  useLive(
    undefined,
    (event) => {
      list.change((before) => {
        const after = applied(before, event);
        if (after === undefined) soon();
        return after ?? before;
      });
    },
    soon,
  );

  const online = items?.filter((box) => box.online).length ?? 0;
  return (
    <main>
      <div class="title">
        <h1>Fleet</h1>
        <span class="quiet" aria-live="polite">
          {items !== undefined && `${items.length}${list.more === undefined ? "" : "+"} ${items.length === 1 ? "box" : "boxes"}, ${online} online`}
        </span>
        <label class="search aside">
          <span class="hidden">Search boxes</span>
          <input type="search" placeholder="Search id, label, site" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
        {may("operator") && <button onClick={() => setAdding(true)}>Add a box</button>}
      </div>
      <ListTable
        list={list}
        label="Boxes"
        name={(box) => box.id}
        look={(box) => (presence(box, now.value) === "online" ? "" : "dim")}
        empty={
          asked === "" ? (
            <>
              <h2>No boxes yet</h2>
              <p>A box appears here when its inventory record is imported, before it first connects.</p>
            </>
          ) : (
            <>
              <h2>Nothing found</h2>
              <p>No box has “{asked}” in its id, label, site or hardware.</p>
            </>
          )
        }
        columns={[
          {
            head: "Box",
            cell: (box) => (
              <>
                <a href={boxLink(box.id)}>{box.label === "" ? box.id : box.label}</a>
                {box.label !== "" && <small>{box.id}</small>}
              </>
            ),
          },
          { head: "Connection", cell: connection },
          { head: "Standing", cell: (box) => <Mark kind={box.state} /> },
          { head: "Site", cell: (box) => (box.site === "" ? "–" : box.site) },
          { head: "Trouble", cell: trouble },
          { head: "Agent", cell: (box) => box.agent_version ?? "–" },
          { head: "Store", cell: store },
          { head: "Seen", cell: (box) => <Age at={box.last_seen} /> },
        ]}
      />
      {adding && <AddBox added={list.read} close={() => setAdding(false)} />}
    </main>
  );
}

function connection(box: BoxLine) {
  const seen = presence(box, now.value);
  const since = { online: box.online_since, stale: box.telemetry_at, offline: box.last_seen, unknown: undefined }[seen];
  return (
    <>
      <Mark kind={seen} text={seen === "unknown" ? "never came" : seen} /> {since !== undefined && <Age at={since} />}
    </>
  );
}

function trouble(box: BoxLine) {
  const rung = broken(box.rungs);
  const alerts = box.alerts > 0 && (
    <a class="badge" href={alertsLink}>
      <Mark kind="open" text={count(box.alerts, "alert")} />
    </a>
  );
  if (rung === undefined) return alerts || "–";
  return (
    <>
      {alerts}{" "}
      <Mark kind={rung.status} text={`${rungName(rung.rung)}${rung.code ? ` ${rung.code}` : ""}`} /> <Age at={rung.since} />
    </>
  );
}

function store({ vault, telemetry_at }: BoxLine) {
  if (vault == null) return "–";
  const share = vault.capacity_bytes === 0 ? 0 : (100 * vault.used_bytes) / vault.capacity_bytes;
  return (
    <>
      {share > 0 && share < 1 ? "<1" : Math.round(share)} % full <Age at={telemetry_at} />
      {vault.pending_objects > 0 && (
        <small>
          {count(vault.pending_objects, "object")} waiting, {bytes(vault.pending_bytes)}
        </small>
      )}
    </>
  );
}

/** Takes a box into the inventory by the factory's record. */
function AddBox({ added, close }: { added: () => Promise<void>; close: () => void }) {
  const [record, setRecord] = useState("");
  return (
    <Ask title="Add a box" verb="Add" send={() => call("POST", "/v1/inventory", { jws: record.trim() }).then(added)} close={close}>
      <Field label="Record" hint="The file that the factory signed for it: inventory/{box}.jws">
        <input
          type="file"
          required
          accept=".jws"
          onChange={(event) => {
            void event.currentTarget.files?.[0]?.text().then(setRecord);
          }}
        />
      </Field>
    </Ask>
  );
}
