import { useEffect, useRef, useState } from "preact/hooks";
import { call, get, may, query, told } from "./api";
import { Confirm } from "./dialog";
import { bytes, objectUrl } from "./format";
import { useLive, useSoon } from "./hooks";
import { Age, Mark, Trouble } from "./marks";
import { boxLink, dataLink } from "./route";
import { Table } from "./table";
import type { Page, StoredObject } from "./types";

type Listing = Page<StoredObject> & { prefixes: string[] };

export function Data({ bucket, prefix }: { bucket: string | undefined; prefix: string }) {
  const [buckets, setBuckets] = useState<string[]>();
  const [listing, setListing] = useState<Listing>();
  const [trouble, setTrouble] = useState<string>();
  const [doomed, setDoomed] = useState<StoredObject>();
  const [paged, setPaged] = useState(false);
  // Answers may overtake one another: only the newest question's answer counts.
  const asked = useRef(0);
  const chosen = bucket ?? buckets?.[0];

  useEffect(() => {
    get<{ items: string[] }>("/v1/buckets").then(
      (answer) => setBuckets(answer.items),
      (error: unknown) => setTrouble(told(error)),
    );
  }, []);

  const read = async (cursor?: string) => {
    if (chosen === undefined) return;
    asked.current += 1;
    const mine = asked.current;
    try {
      const page = await get<Listing>(query("/v1/objects", { bucket: chosen, prefix, delimiter: "/", cursor }));
      if (mine !== asked.current) return;
      setPaged(cursor !== undefined);
      setListing((before) =>
        cursor === undefined || before === undefined
          ? page
          : { ...page, items: [...before.items, ...page.items], prefixes: [...new Set([...before.prefixes, ...page.prefixes])] },
      );
      setTrouble(undefined);
    } catch (error) {
      if (mine === asked.current) setTrouble(told(error));
    }
  };
  useEffect(() => {
    setListing(undefined);
    setTrouble(undefined);
    void read();
  }, [chosen, prefix]);

  const soon = useSoon(() => void read(), 500);
  useLive(
    undefined,
    (event) => {
      // What is under the operator's eyes does not move while they read on.
      if (event.event === "object_verified" && event.bucket === chosen && event.key?.startsWith(prefix) === true && !paged) soon();
    },
    soon,
  );

  const rows: readonly (string | StoredObject)[] = listing === undefined ? [] : [...listing.prefixes, ...listing.items];
  const steps = prefix.split("/").filter((step) => step !== "");
  return (
    <main>
      <div class="title">
        <h1>Data</h1>
        {chosen !== undefined && (
          <nav aria-label="Place" class="crumbs">
            <a href={dataLink(chosen, "")}>{chosen}</a>
            {steps.map((step, i) => (
              <a key={i} href={dataLink(chosen, `${steps.slice(0, i + 1).join("/")}/`)}>
                {step}
              </a>
            ))}
          </nav>
        )}
        {buckets !== undefined && buckets.length > 1 && (
          <>
            <label class="aside" for="bucket">
              Bucket
            </label>
            <select id="bucket" value={chosen} onChange={(event) => (location.hash = dataLink(event.currentTarget.value, ""))}>
              {buckets.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </>
        )}
      </div>
      <Trouble text={trouble} />
      {buckets?.length === 0 && (
        <div class="empty card">
          <h2>No buckets yet</h2>
          <p>A bucket appears here with the first order or ticket that names it.</p>
        </div>
      )}
      {listing !== undefined && rows.length === 0 && (
        <div class="empty card">
          <h2>Nothing here</h2>
          <p>Objects appear here when boxes have delivered them and the cloud has verified them.</p>
        </div>
      )}
      {chosen !== undefined && rows.length > 0 && (
        <Table
          label="Objects"
          rows={rows}
          name={(row) => (typeof row === "string" ? row : row.key)}
          columns={[
            {
              head: "Name",
              cell: (row) =>
                typeof row === "string" ? (
                  <a class="id" href={dataLink(chosen, row)}>{row.slice(prefix.length)}</a>
                ) : (
                  <a class="id" href={objectUrl(chosen, row.key)} download>
                    {row.key.slice(prefix.length)}
                  </a>
                ),
            },
            { head: "Size", figure: true, cell: (row) => (typeof row === "string" ? "folder" : bytes(row.bytes)) },
            { head: "Verified", cell: (row) => typeof row !== "string" && <Verified object={row} /> },
            {
              head: "From",
              cell: (row) => typeof row !== "string" && (row.box_id == null ? "–" : <a href={boxLink(row.box_id)}>{row.box_id}</a>),
            },
            { head: "Written", cell: (row) => typeof row !== "string" && <Age at={row.modified} /> },
            {
              head: "Actions",
              hidden: true,
              cell: (row) =>
                typeof row !== "string" &&
                may("operator") && (
                  <button onClick={() => setDoomed(row)} aria-label={`Delete ${row.key}`}>
                    Delete
                  </button>
                ),
            },
          ]}
        />
      )}
      {listing?.next != null && <button onClick={() => void read(listing.next ?? undefined)}>Show more</button>}
      {doomed !== undefined && chosen !== undefined && (
        <Confirm
          title={`Delete ${doomed.key}?`}
          verb="Delete"
          send={() => call("DELETE", objectUrl(chosen, doomed.key)).then(() => read())}
          close={() => setDoomed(undefined)}
        >
          <p>
            {bytes(doomed.bytes)} in {chosen}. This cannot be undone.
          </p>
        </Confirm>
      )}
    </main>
  );
}

function Verified({ object }: { object: StoredObject }) {
  if (object.verified == null) return <Mark kind="unknown" text="not by this cloud" />;
  return (
    <span title={object.blake3 == null ? "" : `BLAKE3 ${object.blake3}`}>
      <Mark kind="verified" /> <Age at={object.verified} />
    </span>
  );
}
