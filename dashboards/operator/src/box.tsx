import { useEffect, useState } from "preact/hooks";
import { call, get, me, now, query, told } from "./api";
import { Chart } from "./chart";
import { Commands } from "./commands";
import { brief, bytes, pointOf, presence, staleAfter, words } from "./format";
import { Ladder } from "./ladder";
import { listen } from "./live";
import { Age, Mark, Section, Trouble } from "./marks";
import type { BoxDetail, Code, Command, Page, Point, TimelineItem, Transfer } from "./types";

const CHART_MS = 60 * 60_000;
const POINTS = 2000;

export function BoxPage({ id }: { id: string }) {
  const base = `/v1/boxes/${encodeURIComponent(id)}`;
  const [detail, setDetail] = useState<BoxDetail>();
  const [points, setPoints] = useState<readonly Point[]>([]);
  const [commands, setCommands] = useState<readonly Command[]>([]);
  const [transfers, setTransfers] = useState<readonly Transfer[]>([]);
  const [timeline, setTimeline] = useState<readonly TimelineItem[]>([]);
  const [codes, setCodes] = useState<ReadonlyMap<string, Code>>(new Map());
  const [trouble, setTrouble] = useState<string>();

  const readCommands = () => get<Page<Command>>(query(`${base}/commands`, { limit: 10 })).then((page) => setCommands(page.items));
  const readSeries = () =>
    get<{ items: Point[] }>(query(`${base}/telemetry`, { since: now.value - CHART_MS })).then((page) => setPoints(page.items));
  const readRest = () =>
    Promise.all([
      get<BoxDetail>(base).then(setDetail),
      readCommands(),
      get<Page<Transfer>>(query(`${base}/transfers`, { limit: 20 })).then((page) => setTransfers(page.items)),
      get<Page<TimelineItem>>(query(`${base}/timeline`, { limit: 30 })).then((page) => setTimeline(page.items)),
    ]);
  const guard = (work: Promise<unknown>) =>
    void work.then(
      () => setTrouble(undefined),
      (error: unknown) => setTrouble(told(error)),
    );

  useEffect(() => {
    let soon: ReturnType<typeof setTimeout> | undefined;
    const again = () => {
      // Not put off by further happenings: a busy box would never be read.
      soon ??= setTimeout(() => {
        soon = undefined;
        guard(readRest());
      }, 500);
    };
    guard(Promise.all([readRest(), readSeries()]));
    get<{ items: Code[] }>("/v1/codes").then(
      (found) => setCodes(new Map(found.items.map((code) => [code.code, code]))),
      (error: unknown) => setTrouble(told(error)),
    );
    const stop = listen(
      id,
      (event) => {
        const { sample, at } = event;
        if (event.event !== "telemetry" || sample === undefined || at === undefined) {
          again();
          return;
        }
        setPoints((before) => [...before.slice(-POINTS), pointOf(sample, at)]);
        setDetail((before) =>
          before === undefined
            ? before
            : { ...before, telemetry: sample, telemetry_at: at, box: { ...before.box, rungs: sample.rungs, last_seen: at } },
        );
      },
      () => {
        again();
        guard(readSeries());
      },
    );
    return () => {
      clearTimeout(soon);
      stop();
    };
  }, []);

  if (detail === undefined) {
    return (
      <main>
        <h1>{id}</h1>
        <Trouble text={trouble} />
        {trouble === undefined && <p class="quiet">Reading the box…</p>}
      </main>
    );
  }
  const { box } = detail;
  return (
    <main>
      <div class="title">
        <h1>{box.label === "" ? box.id : box.label}</h1>
        <span class="quiet">
          {[box.label === "" ? "" : box.id, box.site === "" ? "no site" : box.site, box.hardware].filter((part) => part !== "").join(" · ")}
        </span>
        <Mark kind={presence({ ...box, telemetry_at: detail.telemetry_at ?? null }, now.value, staleAfter(detail.reported))} />
        <Mark kind={box.state} />
        <span>
          seen <Age at={box.last_seen} />
        </span>
        {box.state === "quarantined" && me.value?.role !== "viewer" && (
          <button onClick={() => guard(call("POST", `${base}/release`).then(readRest))}>Release from quarantine</button>
        )}
      </div>
      <Trouble text={trouble} />
      <div class="columns">
        <div>
          <Section title="Connection">
            <Ladder rungs={box.rungs} codes={codes} />
          </Section>
          <Section title="Release">
            <dl>
              <dt>Agent</dt>
              <dd>{box.agent_version ?? "unknown"}</dd>
              <dt>Operating system</dt>
              <dd>{box.os_version ?? "unknown"}</dd>
              <dt>Settings</dt>
              <dd>
                {box.desired_version === 0
                  ? "none yet"
                  : box.applied_version === box.desired_version
                  ? `version ${box.applied_version}, applied`
                  : `version ${box.applied_version}, ${box.desired_version} wanted`}
              </dd>
              <dt>Reported</dt>
              <dd>
                <Age at={detail.reported_at} />
              </dd>
              <dt>Certificate until</dt>
              <dd>{box.certificate_expires == null ? "none" : new Date(box.certificate_expires).toLocaleString()}</dd>
            </dl>
          </Section>
          <Commands id={id} commands={commands} changed={() => guard(readCommands())} />
        </div>
        <div>
          <Section title="Telemetry" aside={<Age at={detail.telemetry_at} />}>
            <Numbers detail={detail} />
            <Chart points={points} />
          </Section>
          <Section title="Transfers">
            {transfers.length === 0 && <p class="quiet">Nothing has been sent to the cloud yet.</p>}
            <ul class="list">
              {transfers.map((t) => (
                <li key={t.id}>
                  <Mark kind={t.state} /> <strong>{t.key}</strong> {bytes(t.bytes)} <Age at={t.updated} />
                  {t.reason != null && <p>{t.reason}</p>}
                </li>
              ))}
            </ul>
          </Section>
          <Section title="Timeline">
            {timeline.length === 0 && <p class="quiet">Nothing has happened yet.</p>}
            <ol class="list">
              {timeline.map((item) => (
                <li key={`${item.source}-${item.id}-${item.number}`}>
                  <Age at={item.at} /> <strong>{words(item.kind)}</strong> {item.state != null && <Mark kind={item.state} />}
                  <p class="quiet clip">{brief(item.detail)}</p>
                </li>
              ))}
            </ol>
          </Section>
        </div>
      </div>
    </main>
  );
}

function Numbers({ detail }: { detail: BoxDetail }) {
  const sample = detail.telemetry;
  if (sample == null) return <p class="quiet">No sample yet.</p>;
  const point = pointOf(sample, 0);
  return (
    <dl class="numbers">
      <dt>Load</dt>
      <dd>{sample.load_1m.toFixed(2)}</dd>
      <dt>Memory</dt>
      <dd>
        {bytes(point.memory_used_bytes)} of {bytes(sample.memory_total_bytes)}
      </dd>
      {point.celsius != null && (
        <>
          <dt>Hottest</dt>
          <dd>{point.celsius} °C</dd>
        </>
      )}
      {sample.vault != null && (
        <>
          <dt>Vault</dt>
          <dd>
            {bytes(sample.vault.used_bytes)} of {bytes(sample.vault.capacity_bytes)}
          </dd>
          <dt>Waiting</dt>
          <dd>
            {sample.vault.pending_objects} objects, {bytes(sample.vault.pending_bytes)}
          </dd>
        </>
      )}
    </dl>
  );
}
