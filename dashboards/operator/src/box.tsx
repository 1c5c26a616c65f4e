import { useEffect, useState } from "preact/hooks";
import { get, may, now, query, told } from "./api";
import { Chart } from "./chart";
import { Commands } from "./commands";
import { pointOf, presence } from "./format";
import { Held } from "./held";
import { useList, useLive, useSoon } from "./hooks";
import { Ladder } from "./ladder";
import { Age, Mark, Section, Trouble } from "./marks";
import { Numbers } from "./numbers";
import { Proposals } from "./proposals";
import { Software } from "./software";
import { Standing } from "./standing";
import { AddTicket, Tickets } from "./tickets";
import { Timeline } from "./timeline";
import { Transfers } from "./transfers";
import { UplinkCard } from "./uplink";
import type { BoxDetail, Code, Command, Point, Proposal, Ticket, TimelineItem, Transfer } from "./types";

const CHART_MS = 60 * 60_000;
const POINTS = 2000;

export function BoxPage({ id }: { id: string }) {
  const base = `/v1/boxes/${encodeURIComponent(id)}`;
  const [detail, setDetail] = useState<BoxDetail>();
  const [series, setSeries] = useState<{ points: readonly Point[]; step: number }>({ points: [], step: 0 });
  const [codes, setCodes] = useState<ReadonlyMap<string, Code>>(new Map());
  const [trouble, setTrouble] = useState<string>();
  const commands = useList<Command>(`${base}/commands`, {}, 10);
  const transfers = useList<Transfer>(`${base}/transfers`, {}, 10);
  const timeline = useList<TimelineItem>(`${base}/timeline`, {}, 100);
  const tickets = useList<Ticket>(`${base}/tickets`);
  const proposals = useList<Proposal>("/v1/proposals", { state: "open", box_id: id });
  const [adding, setAdding] = useState(false);

  const readDetail = () =>
    get<BoxDetail>(base).then(
      (found) => {
        setDetail(found);
        setTrouble(undefined);
      },
      (error: unknown) => setTrouble(told(error)),
    );
  const readSeries = () =>
    get<{ items: Point[]; step_ms: number }>(query(`${base}/telemetry`, { since: now.value - CHART_MS })).then(
      (found) => setSeries({ points: found.items, step: found.step_ms }),
      (error: unknown) => setTrouble(told(error)),
    );
  const readAll = () => Promise.all([readDetail(), commands.read(), transfers.read(), timeline.read(), tickets.read(), proposals.read()]);

  useEffect(() => {
    void readDetail();
    void readSeries();
    get<{ items: Code[] }>("/v1/codes").then(
      (found) => setCodes(new Map(found.items.map((code) => [code.code, code]))),
      (error: unknown) => setTrouble(told(error)),
    );
  }, []);
  const soon = useSoon(() => void readAll(), 300);
  useLive(
    id,
    (event) => {
      const { sample, at } = event;
      if (event.event !== "telemetry" || sample === undefined || at === undefined) {
        soon();
        return;
      }
      setSeries((before) => ({ ...before, points: [...before.points.slice(-POINTS), pointOf(sample, at)] }));
      setDetail((before) =>
        before === undefined
          ? before
          : { ...before, telemetry: sample, telemetry_at: at, box: { ...before.box, rungs: sample.rungs, last_seen: at } },
      );
    },
    () => {
      soon();
      void readSeries();
    },
  );

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
  const interval = detail.reported?.telemetry_interval_secs;
  const seen = presence({ ...box, telemetry_at: detail.telemetry_at ?? null, telemetry_interval_secs: interval ?? null }, now.value);
  const about = [box.label === "" ? "" : box.id, box.site === "" ? "no site" : box.site, box.hardware];
  return (
    <main>
      <div class="title">
        <h1>{box.label === "" ? box.id : box.label}</h1>
        <span class="quiet">{about.filter((part) => part !== "").join(" · ")}</span>
        <Mark kind={seen} />
        <Mark kind={box.state} />
        <span>
          seen <Age at={box.last_seen} />
        </span>
        <Standing box={box} changed={readAll} />
      </div>
      <Trouble text={trouble} />
      {detail.quarantine != null && <Held quarantine={detail.quarantine} />}
      <div class="columns">
        <div>
          <Section title="Connection" aside={!box.online && <span class="quiet">as it was <Age at={box.last_seen} /></span>}>
            <Ladder rungs={box.rungs} codes={codes} />
          </Section>
          <Software detail={detail} />
          <Proposals list={proposals} changed={readAll} />
          <Commands id={id} list={commands} state={box.state} proposed={proposals.read} />
        </div>
        <div>
          <Section title="Telemetry" aside={<Age at={detail.telemetry_at} />}>
            <Numbers detail={detail} />
            <Chart points={series.points} longestMs={Math.max(series.step, (interval ?? 0) * 1000)} />
          </Section>
          <UplinkCard box={box} reported={detail.reported} buckets={[...new Set(tickets.items?.map((ticket) => ticket.bucket))]} codes={codes} />
          <Transfers list={transfers} detail={detail} />
          <Timeline list={timeline} />
        </div>
      </div>
      <div class="title">
        <h2>Tickets</h2>
        {may("operator") && (box.state === "active" || box.state === "inventoried") && (
          <button class="aside" onClick={() => setAdding(true)}>
            Make a ticket
          </button>
        )}
      </div>
      <Tickets list={tickets} without="Box" />
      {adding && <AddTicket box={id} made={tickets.read} close={() => setAdding(false)} />}
    </main>
  );
}
