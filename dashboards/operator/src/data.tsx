import { useEffect, useRef, useState } from "preact/hooks";
import { call, get, me, query, told } from "./api";
import { bytes, objectUrl } from "./format";
import { Age, Mark, Trouble } from "./marks";
import { boxLink, dataLink } from "./route";
import type { Page, StoredObject } from "./types";

type Listing = Page<StoredObject> & { prefixes: string[] };

export function Data({ bucket, prefix }: { bucket: string | undefined; prefix: string }) {
  const [buckets, setBuckets] = useState<string[]>();
  const [listing, setListing] = useState<Listing>();
  const [trouble, setTrouble] = useState<string>();
  const [doomed, setDoomed] = useState<StoredObject>();
  const chosen = bucket ?? buckets?.[0];

  useEffect(() => {
    get<{ items: string[] }>("/v1/buckets").then(
      (answer) => setBuckets(answer.items),
      (error: unknown) => setTrouble(told(error)),
    );
  }, []);

  const read = async (cursor?: string) => {
    if (chosen === undefined) return;
    try {
      const page = await get<Listing>(query("/v1/objects", { bucket: chosen, prefix, delimiter: "/", cursor }));
      setListing((before) =>
        cursor === undefined || before === undefined
          ? page
          : { ...page, items: [...before.items, ...page.items], prefixes: [...new Set([...before.prefixes, ...page.prefixes])] },
      );
      setTrouble(undefined);
    } catch (error) {
      setTrouble(told(error));
    }
  };
  useEffect(() => {
    setListing(undefined);
    void read();
  }, [chosen, prefix]);

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
          <label>
            Bucket{" "}
            <select value={chosen} onChange={(event) => (location.hash = dataLink(event.currentTarget.value, ""))}>
              {buckets.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
        )}
      </div>
      <Trouble text={trouble} />
      {buckets?.length === 0 && (
        <div class="empty card">
          <h2>No buckets yet</h2>
          <p>A bucket appears here with the first order or ticket that names it.</p>
        </div>
      )}
      {listing !== undefined && listing.items.length + listing.prefixes.length === 0 && (
        <div class="empty card">
          <h2>Nothing here</h2>
          <p>Objects appear here when boxes have delivered them and the cloud has verified them.</p>
        </div>
      )}
      {chosen !== undefined && listing !== undefined && listing.items.length + listing.prefixes.length > 0 && (
        <div class="card scroll" tabIndex={0} role="region" aria-label="Objects">
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Size</th>
                <th scope="col">Verified</th>
                <th scope="col">From</th>
                <th scope="col">Changed</th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {listing.prefixes.map((folder) => (
                <tr key={folder}>
                  <th scope="row">
                    <a href={dataLink(chosen, folder)}>{folder.slice(prefix.length)}</a>
                  </th>
                  <td colSpan={5} />
                </tr>
              ))}
              {listing.items.map((object) => (
                <tr key={object.key}>
                  <th scope="row">
                    <a href={objectUrl(chosen, object.key)} download>
                      {object.key.slice(prefix.length)}
                    </a>
                  </th>
                  <td>{bytes(object.bytes)}</td>
                  <td>{object.verified == null ? <Mark kind="unknown" /> : <><Mark kind="verified" /> <Age at={object.verified} /></>}</td>
                  <td>{object.box_id == null ? "–" : <a href={boxLink(object.box_id)}>{object.box_id}</a>}</td>
                  <td>
                    <Age at={object.modified} />
                  </td>
                  <td>
                    {me.value?.role !== "viewer" && (
                      <button onClick={() => setDoomed(object)} aria-label={`Delete ${object.key}`}>
                        Delete
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {listing?.next != null && <button onClick={() => void read(listing.next ?? undefined)}>Show more</button>}
      {doomed !== undefined && chosen !== undefined && (
        <Confirm
          title={`Delete ${doomed.key}?`}
          text={`${bytes(doomed.bytes)} in ${chosen}. This cannot be undone.`}
          close={() => setDoomed(undefined)}
          act={async () => {
            await call("DELETE", objectUrl(chosen, doomed.key));
            await read();
          }}
        />
      )}
    </main>
  );
}

/** Asks before something that cannot be undone. The browser's own dialog keeps the focus, and begins
 * with the first button, which is the harmless one. */
function Confirm({ title, text, act, close }: { title: string; text: string; act: () => Promise<void>; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="confirm-title">
      <h2 id="confirm-title">{title}</h2>
      <p>{text}</p>
      <Trouble text={trouble} />
      <div class="actions">
        <button onClick={() => dialog.current?.close()}>
          Keep
        </button>
        <button
          class="danger"
          onClick={() =>
            act().then(
              () => dialog.current?.close(),
              (error: unknown) => setTrouble(told(error)),
            )
          }
        >
          Delete
        </button>
      </div>
    </dialog>
  );
}
