import { useEffect, useState } from "preact/hooks";
import { get, query, told } from "./api";
import { bringUpStep, count, lasting, rungName, words } from "./format";
import { useList } from "./hooks";
import { Age, Trouble } from "./marks";
import { boxLink } from "./route";
import { ListTable, Table } from "./table";
import type { BringUp, BringUpBoot, BringUpCause } from "./types";

const DAY_MS = 86_400_000;
const SPANS = { "7": "7 days", "30": "30 days", "365": "a year" } as const;
const GROUPS = { "": "nothing", site: "site", hardware: "hardware", release: "release" } as const;

/** How boxes come online: how far they get, how long it takes, what holds them up. */
export function BringUpPage() {
  const [days, setDays] = useState<keyof typeof SPANS>("30");
  const [group, setGroup] = useState<keyof typeof GROUPS>("");
  const [found, setFound] = useState<BringUp>();
  const [trouble, setTrouble] = useState<string>();
  // By the day, so that the lists below do not read anew for each second that passes.
  const from = String(Math.floor(Date.now() / DAY_MS - Number(days)) * DAY_MS);
  const boots = useList<BringUpBoot>("/v1/insights/bring-up/boots", { from }, 20);
  useEffect(() => {
    let shown = true;
    get<BringUp>(query("/v1/insights/bring-up", { from, group: group === "" ? undefined : group, limit: 50 })).then(
      (report) => {
        if (!shown) return;
        setFound(report);
        setTrouble(undefined);
      },
      (error: unknown) => {
        if (shown) setTrouble(told(error));
      },
    );
    return () => {
      shown = false;
    };
  }, [from, group]);
  return (
    <main>
      <div class="title">
        <h1>Bring-up</h1>
        <span class="quiet">how boxes come online, and what holds them up</span>
        <label class="aside">
          In{" "}
          <select value={days} onChange={(e) => setDays(e.currentTarget.value as keyof typeof SPANS)}>
            {Object.entries(SPANS).map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Trouble text={trouble} />
      {found !== undefined && <Report found={found} group={group} choose={setGroup} />}
      <div class="title">
        <h2>Boots, newest first</h2>
      </div>
      <ListTable
        list={boots}
        label="Boots"
        name={(boot) => `${boot.box_id} ${boot.boot}`}
        empty={<h2>No box has told of a boot in this time</h2>}
        columns={[
          { head: "Box", cell: (boot) => <a href={boxLink(boot.box_id)}>{boot.box_id}</a> },
          { head: "Switched on", cell: (boot) => <Age at={boot.began} /> },
          { head: "Site", cell: (boot) => boot.site },
          { head: "Release", cell: (boot) => boot.release },
          {
            head: "Power to online",
            figure: true,
            cell: (boot) => (boot.power_to_online_ms == null ? `not online${boot.reached == null ? "" : `, reached ${rungName(boot.reached)}`}` : lasting(boot.power_to_online_ms)),
          },
          { head: "What failed", cell: (boot) => <Failures boot={boot} /> },
        ]}
      />
    </main>
  );
}

function Report({ found, group, choose }: { found: BringUp; group: keyof typeof GROUPS; choose: (group: keyof typeof GROUPS) => void }) {
  const { times, funnel } = found;
  const powered = funnel[0]?.boxes ?? 0;
  const figures = [
    ["Boots", times.boots.toLocaleString("en")],
    ["Came online", times.online.toLocaleString("en")],
    ["Half within", lasting(times.median_ms)],
    ["Nine of ten within", lasting(times.p90_ms)],
    ["Slowest", lasting(times.slowest_ms)],
  ] as const;
  return (
    <>
      <section class="card" aria-label="Power to online">
        <dl class="figures">
          {figures.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      </section>
      <div class="title">
        <h2>How far boxes get</h2>
      </div>
      <Table
        label="How far boxes get"
        rows={funnel}
        name={(step) => step.step}
        columns={[
          { head: "Step", cell: (step) => bringUpStep(step.step) },
          { head: "Boxes", figure: true, cell: (step) => step.boxes.toLocaleString("en") },
          { head: "Of those powered", cell: (step) => <progress max={Math.max(powered, 1)} value={step.boxes} aria-label={`${step.boxes} of ${powered}`} /> },
        ]}
      />
      <div class="title">
        <h2>What holds them up</h2>
        <label class="aside">
          Told apart by{" "}
          <select value={group} onChange={(e) => choose(e.currentTarget.value as keyof typeof GROUPS)}>
            {Object.entries(GROUPS).map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
      </div>
      {found.items.length === 0 ? (
        <div class="empty card">
          <h2>Nothing did</h2>
        </div>
      ) : (
        <Table
          label="What holds them up"
          rows={found.items}
          name={(cause) => `${cause.group} ${cause.code}`}
          columns={[
            { head: "Why", cell: (cause) => <Why cause={cause} /> },
            ...(group === "" ? [] : [{ head: words(group), cell: (cause: BringUpCause) => cause.group || "–" }]),
            { head: "Held up", figure: true, cell: (cause) => lasting(cause.held_up_ms) },
            { head: "Longest", figure: true, cell: (cause) => lasting(cause.longest_ms) },
            { head: "Failures", figure: true, cell: (cause) => cause.failures.toLocaleString("en") },
            { head: "Boxes", figure: true, cell: (cause) => cause.boxes.toLocaleString("en") },
            { head: "What fixed it", cell: fixes },
          ]}
        />
      )}
    </>
  );
}

function Why({ cause }: { cause: Pick<BringUpCause, "code" | "title" | "rung"> }) {
  return (
    <>
      {cause.code} {cause.title}
      <small>{rungName(cause.rung)}</small>
    </>
  );
}

/** What ended the failures, most frequent first. */
function fixes(cause: BringUpCause): string {
  const ended = Object.entries(cause.fixes).filter(([, times]) => times > 0);
  const said = ended.sort((a, b) => b[1] - a[1]).map(([fix, times]) => `${words(fix)} ${times}`);
  if (cause.lasting > 0) said.push(`lasts ${cause.lasting}`);
  return said.join(", ");
}

function Failures({ boot }: { boot: BringUpBoot }) {
  if (boot.failures.length === 0) return <span class="quiet">nothing</span>;
  return (
    <details>
      <summary>
        {boot.failures
          .slice(0, 3)
          .map((failure) => failure.code)
          .join(", ")}
        {boot.failures.length > 3 && ` and ${boot.failures.length - 3} more`} <span class="age">{count(boot.failures.length, "failure")}</span>
      </summary>
      <ul class="list">
        {boot.failures.map((failure, index) => (
          <li key={index}>
            <strong>
              {failure.code} {failure.title}
            </strong>{" "}
            {failure.lasted_ms == null ? "lasts" : `for ${lasting(failure.lasted_ms)}, ended by: ${words(failure.fix ?? "")}`}
            <br />
            <span class="quiet">{failure.evidence}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}
