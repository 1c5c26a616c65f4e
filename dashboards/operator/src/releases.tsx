import { useState } from "preact/hooks";
import { call, may } from "./api";
import { Confirm, Field } from "./dialog";
import { bytes, count, presence } from "./format";
import { useList, useLive, useSoon } from "./hooks";
import { Age, Mark, Trouble } from "./marks";
import { rolloutLink } from "./route";
import { ListTable, Table } from "./table";
import type { BoxLine, Release, Rollout, RolloutLine } from "./types";

/** What can be rolled out, and what was. */
export function Releases() {
  const releases = useList<Release>("/v1/releases");
  const rollouts = useList<RolloutLine>("/v1/rollouts");
  const [chosen, setChosen] = useState<string>();
  const soon = useSoon(() => void rollouts.read(), 300);
  useLive(
    undefined,
    (event) => {
      if (event.event === "rollout") soon();
    },
    soon,
  );
  return (
    <main>
      <div class="title">
        <h1>Releases</h1>
        <span class="quiet">as the signed repository offers them</span>
      </div>
      <ListTable
        list={releases}
        label="Releases"
        name={(release) => release.target}
        empty={
          <>
            <h2>No releases yet</h2>
            <p>
              Sign one with <code>longhaul-factory tuf</code> and put the repository into the cloud's folder.
            </p>
          </>
        }
        columns={[
          { head: "Version", cell: (release) => release.version },
          { head: "Target", cell: (release) => release.target },
          { head: "Size", figure: true, cell: (release) => bytes(release.length) },
          { head: "SHA-256", cell: (release) => <code title={release.sha256}>{release.sha256.slice(0, 16)}…</code> },
          {
            head: "Actions",
            hidden: true,
            cell: (release) =>
              may("operator") && (
                <button onClick={() => setChosen(release.version)} aria-label={`Roll out ${release.version}`}>
                  Roll out…
                </button>
              ),
          },
        ]}
      />
      {chosen !== undefined && <Start key={chosen} version={chosen} close={() => setChosen(undefined)} />}
      <div class="title">
        <h1>Rollouts</h1>
      </div>
      <ListTable
        list={rollouts}
        label="Rollouts"
        name={(rollout) => rollout.id}
        empty={
          <>
            <h2>No rollouts yet</h2>
            <p>A rollout assigns a release to boxes and follows each of them to its end.</p>
          </>
        }
        columns={[
          { head: "Rollout", cell: (rollout) => <a href={rolloutLink(rollout.id)}>{rollout.id}</a> },
          { head: "Version", cell: (rollout) => rollout.version },
          { head: "Started", cell: (rollout) => <><Age at={rollout.started_at} /> by {rollout.started_by}</> },
        ]}
      />
    </main>
  );
}

/** Which boxes shall run the release: what that means is said before it is done. */
function Start({ version, close }: { version: string; close: () => void }) {
  const boxes = useList<BoxLine>("/v1/boxes", { state: "active" }, 1000);
  const [search, setSearch] = useState("");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [asking, setAsking] = useState(false);

  const wanted = search.trim().toLowerCase();
  const shown = boxes.items?.filter((box) => `${box.id} ${box.label} ${box.site} ${box.hardware}`.toLowerCase().includes(wanted)) ?? [];
  const picked = boxes.items?.filter((box) => chosen.has(box.id)) ?? [];
  const sites = new Set(picked.map((box) => (box.site === "" ? "no site" : box.site)));
  const sending = picked.filter((box) => (box.vault?.pending_objects ?? 0) > 0).length;
  const online = picked.filter((box) => box.online).length;
  const pick = (ids: readonly string[], on: boolean) =>
    setChosen((before) => (on ? new Set([...before, ...ids]) : new Set([...before].filter((id) => !ids.includes(id)))));
  const all = shown.length > 0 && shown.every((box) => chosen.has(box.id));
  const send = async () => {
    const made = await call<Rollout>("POST", "/v1/rollouts", { version, boxes: picked.map((box) => box.id) });
    location.hash = rolloutLink(made.id);
  };

  return (
    <section class="card" aria-label={`Roll out ${version}`}>
      <header>
        <h2>Roll out {version}</h2>
        <button onClick={close}>Cancel</button>
      </header>
      <Field label="Search boxes">
        <input type="search" placeholder="id, label, site, hardware" value={search} onInput={(e) => setSearch(e.currentTarget.value)} />
      </Field>
      <Trouble text={boxes.trouble} />
      {boxes.items !== undefined && shown.length === 0 && <p class="quiet">No active box is like that.</p>}
      {shown.length > 0 && (
        <Table
          label="Boxes to choose from"
          rows={shown}
          name={(box) => box.id}
          columns={[
            {
              head: "Box",
              cell: (box) => (
                <label>
                  <input type="checkbox" checked={chosen.has(box.id)} onChange={(e) => pick([box.id], e.currentTarget.checked)} />{" "}
                  {box.label === "" ? box.id : box.label}
                  {box.label !== "" && <small>{box.id}</small>}
                </label>
              ),
            },
            { head: "Connection", cell: (box) => <Mark kind={presence(box, Date.now())} /> },
            { head: "Site", cell: (box) => (box.site === "" ? "–" : box.site) },
            { head: "Agent", cell: (box) => box.agent_version ?? "–" },
            { head: "Waiting", figure: true, cell: (box) => (box.vault == null ? "–" : count(box.vault.pending_objects, "object")) },
          ]}
        />
      )}
      <div class="actions">
        <button onClick={() => pick(shown.map((box) => box.id), !all)} disabled={shown.length === 0}>
          {all ? "Choose none of these" : "Choose all of these"}
        </button>
        <button class="primary" disabled={picked.length === 0} onClick={() => setAsking(true)}>
          Roll out to {count(picked.length, "box", "boxes")}…
        </button>
      </div>
      {asking && (
        <Confirm
          title={`Roll out ${version} to ${count(picked.length, "box", "boxes")}?`}
          verb="Roll out"
          type={String(picked.length)}
          send={send}
          close={() => setAsking(false)}
        >
          <dl>
            <dt>Online</dt>
            <dd>
              {online} of {picked.length}
              {online < picked.length && "; the others begin when they come back, within a week"}
            </dd>
            <dt>Sites</dt>
            <dd>{[...sites].sort().join(", ")}</dd>
            <dt>Delivering</dt>
            <dd>{sending === 0 ? "none has" : count(sending, "box has", "boxes have")} objects waiting</dd>
          </dl>
        </Confirm>
      )}
    </section>
  );
}
