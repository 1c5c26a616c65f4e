import { useEffect, useRef, useState } from "preact/hooks";
import { get, now, query, told } from "./api";
import { broken, presence } from "./format";
import { applied, listen } from "./live";
import { Age, Mark, Trouble } from "./marks";
import { boxLink } from "./route";
import type { BoxLine, Page } from "./types";

export function Fleet() {
  const [boxes, setBoxes] = useState<readonly BoxLine[]>();
  const [next, setNext] = useState<string | null>();
  const [search, setSearch] = useState("");
  const [trouble, setTrouble] = useState<string>();
  // Answers may overtake one another: only the newest question's answer counts.
  const asked = useRef(0);

  const read = async (cursor?: string) => {
    asked.current += 1;
    const mine = asked.current;
    try {
      const page = await get<Page<BoxLine>>(query("/v1/boxes", { q: search.trim(), cursor }));
      if (mine !== asked.current) return;
      setBoxes((before) => (cursor === undefined ? page.items : [...(before ?? []), ...page.items]));
      setNext(page.next);
      setTrouble(undefined);
    } catch (error) {
      if (mine === asked.current) setTrouble(told(error));
    }
  };
  const readNow = useRef(read);
  readNow.current = read;

  useEffect(() => {
    const soon = setTimeout(() => void readNow.current(), boxes === undefined ? 0 : 200);
    return () => clearTimeout(soon);
  }, [search]);

  useEffect(() => {
    let soon: ReturnType<typeof setTimeout> | undefined;
    // Many happenings at once are one reading.
    const again = () => {
      clearTimeout(soon);
      soon = setTimeout(() => void readNow.current(), 300);
    };
    const stop = listen(
      undefined,
      (event) =>
        setBoxes((before) => {
          if (before === undefined) return before;
          const after = applied(before, event);
          if (after === undefined) again();
          return after ?? before;
        }),
      again,
    );
    return () => {
      clearTimeout(soon);
      stop();
    };
  }, []);

  const online = boxes?.filter((box) => box.online).length ?? 0;
  return (
    <main>
      <div class="title">
        <h1>Fleet</h1>
        <span class="quiet" aria-live="polite">
          {boxes !== undefined && `${boxes.length}${next ? "+" : ""} ${boxes.length === 1 ? "box" : "boxes"}, ${online} online`}
        </span>
        <label class="search">
          <span class="hidden">Search boxes</span>
          <input
            type="search"
            placeholder="Search id, label, site"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
      </div>
      <Trouble text={trouble} />
      {boxes === undefined && trouble === undefined && <p class="quiet">Reading the fleet…</p>}
      {boxes?.length === 0 && (
        <div class="empty card">
          {search.trim() === "" ? (
            <>
              <h2>No boxes yet</h2>
              <p>A box appears here when its inventory record is imported, before it first connects.</p>
            </>
          ) : (
            <>
              <h2>Nothing found</h2>
              <p>No box has “{search.trim()}” in its id, label or site.</p>
            </>
          )}
        </div>
      )}
      {boxes !== undefined && boxes.length > 0 && (
        <div class="card scroll" tabIndex={0} role="region" aria-label="Boxes">
          <table>
            <thead>
              <tr>
                <th scope="col">Box</th>
                <th scope="col">Connection</th>
                <th scope="col">Standing</th>
                <th scope="col">Site</th>
                <th scope="col">Trouble</th>
                <th scope="col">Agent</th>
                <th scope="col">Last seen</th>
                <th scope="col">Telemetry</th>
              </tr>
            </thead>
            <tbody>
              {boxes.map((box) => (
                <Row key={box.id} box={box} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {next != null && <button onClick={() => void read(next)}>Show more</button>}
    </main>
  );
}

function Row({ box }: { box: BoxLine }) {
  const seen = presence(box, now.value);
  const since = { online: box.online_since, stale: box.telemetry_at, offline: box.last_seen, unknown: undefined }[seen];
  const rung = broken(box.rungs);
  return (
    <tr class={seen === "online" ? "" : "dim"}>
      <th scope="row">
        <a href={boxLink(box.id)}>{box.label === "" ? box.id : box.label}</a>
        {box.label !== "" && <small>{box.id}</small>}
      </th>
      <td>
        <Mark kind={seen} /> {since !== undefined && <Age at={since} />}
      </td>
      <td>
        <Mark kind={box.state} />
      </td>
      <td>{box.site === "" ? "–" : box.site}</td>
      <td>
        {rung === undefined ? (
          "–"
        ) : (
          <>
            <Mark kind={rung.status} text={`${rung.rung}${rung.code ? ` ${rung.code}` : ""}`} /> <Age at={rung.since} />
          </>
        )}
      </td>
      <td>{box.agent_version ?? "–"}</td>
      <td>
        <Age at={box.last_seen} />
      </td>
      <td>
        <Age at={box.telemetry_at} />
      </td>
    </tr>
  );
}
