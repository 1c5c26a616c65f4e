import { useEffect, useState } from "preact/hooks";
import { call, get, may, told } from "./api";
import { Ask, Field } from "./dialog";
import { bytes } from "./format";
import { useAct } from "./hooks";
import { Mark, Section, Trouble } from "./marks";
import type { Box, Code, Limit, Priority, Reported, Uplink } from "./types";
import { between, DAYS, free, HOURS, LEAST, limitText, policyOf, spans, type Week } from "./week";

interface Of {
  box: Box;
  reported: Reported | null | undefined;
  buckets: readonly string[];
  codes: ReadonlyMap<string, Code>;
}

/** How a box uses its way to the buckets: what is in force, pause, limits, priorities. */
export function UplinkCard({ box, reported, buckets, codes }: Of) {
  const base = `/v1/boxes/${encodeURIComponent(box.id)}/uplink`;
  const [uplink, setUplink] = useState<Uplink>();
  const [trouble, setTrouble] = useState<string>();
  const [editing, setEditing] = useState(false);
  const act = useAct();
  const read = () =>
    get<Uplink>(base).then(
      (found) => {
        setUplink(found);
        setTrouble(undefined);
      },
      (error: unknown) => setTrouble(told(error)),
    );
  // Anew whenever something else is wanted of the box, or it says something else.
  useEffect(() => void read(), [box.desired_version, box.applied_version, reported?.uplink?.state, reported?.uplink?.bytes_per_sec, reported?.uplink?.code]);
  const turn = (what: "pause" | "resume") => void act.run(() => call<Uplink>("POST", `${base}/${what}`).then(setUplink));
  if (uplink === undefined) return <Trouble text={trouble} />;
  const { wanted } = uplink;
  return (
    <Section
      title="Uplink"
      aside={
        may("operator") &&
        box.state !== "revoked" && (
          <span class="actions">
            <button disabled={act.busy} onClick={() => turn(wanted.paused ? "resume" : "pause")}>
              {wanted.paused ? "Resume sending" : "Pause sending"}
            </button>
            <button onClick={() => setEditing(true)}>Limits…</button>
          </span>
        )
      }
    >
      <p>
        <Mark kind={uplink.state ?? "unknown"} text={saying(uplink)} />
      </p>
      {uplink.code != null && (
        <div>
          <code>{uplink.code}</code> {codes.get(uplink.code)?.title}
          <p>{codes.get(uplink.code)?.operator}</p>
        </div>
      )}
      {!uplink.applied && <p class="quiet">The box has not yet taken what is wanted.</p>}
      {wanted.week != null && (
        <p class="quiet">
          Limits by the hour, at UTC{offset(wanted.week.utc_offset_minutes)}. {DAYS[0]}: {day(wanted.week.limits[0] ?? [])}
        </p>
      )}
      {Object.entries(wanted.priorities).map(([bucket, priority]) => (
        <p key={bucket} class="quiet">
          {bucket} is {priority}
        </p>
      ))}
      <Trouble text={act.trouble ?? trouble} />
      {editing && <Limits uplink={uplink} buckets={buckets} send={(body) => call<Uplink>("PUT", base, body).then(setUplink)} close={() => setEditing(false)} />}
    </Section>
  );
}

function saying(uplink: Uplink): string {
  switch (uplink.state) {
    case "sending":
      return uplink.bytes_per_sec == null ? "sending, as fast as the line takes it" : `sending, ${bytes(uplink.bytes_per_sec)}/s at the most`;
    case "paused":
      return "paused: it takes files and sends none";
    case "waiting":
      return "waiting for an hour in which it may send";
    default:
      return "the box has not said";
  }
}

const offset = (minutes: number) => (minutes === 0 ? "" : `${minutes < 0 ? "−" : "+"}${Math.abs(minutes) / 60}`);
const day = (hours: readonly Limit[]) => spans(hours).map((span) => `${span.from}–${span.to} h ${limitText(span.limit)}`).join(", ");

function Limits({ uplink, buckets, send, close }: { uplink: Uplink; buckets: readonly string[]; send: (body: unknown) => Promise<unknown>; close: () => void }) {
  const { wanted } = uplink;
  const [week, setWeek] = useState<Week>(wanted.week?.limits ?? free());
  const [hoursOff, setHoursOff] = useState((wanted.week?.utc_offset_minutes ?? 0) / 60);
  const [priorities, setPriorities] = useState(wanted.priorities);
  const [days, setDays] = useState(DAYS.map((_, index) => index < 5));
  const [from, setFrom] = useState(8);
  const [to, setTo] = useState(18);
  const [kind, setKind] = useState<"limit" | "nothing" | "free">("limit");
  const [kib, setKib] = useState(1024);
  const limit: Limit = kind === "free" ? null : kind === "nothing" ? 0 : Math.max(LEAST, kib * 1024);
  const known = [...new Set([...buckets, ...Object.keys(priorities)])].sort();
  const save = () => send(policyOf(wanted.paused, week, Math.round(hoursOff * 60), priorities));
  return (
    <Ask title="Limits of the uplink" verb="Save" send={save} close={close}>
      <fieldset>
        <legend>Set hours</legend>
        {DAYS.map((name, index) => (
          <label key={name}>
            <input type="checkbox" checked={days[index] === true} onChange={() => setDays(days.map((on, at) => (at === index ? !on : on)))} /> {name.slice(0, 3)}{" "}
          </label>
        ))}
        <Field label="From hour">
          <input type="number" min={0} max={23} value={from} onInput={(e) => setFrom(e.currentTarget.valueAsNumber || 0)} />
        </Field>
        <Field label="To hour" hint="Before this hour; past midnight if it is the smaller one">
          <input type="number" min={0} max={24} value={to} onInput={(e) => setTo(e.currentTarget.valueAsNumber || 0)} />
        </Field>
        <Field label="Send">
          <select value={kind} onChange={(e) => setKind(e.currentTarget.value as typeof kind)}>
            <option value="limit">at most</option>
            <option value="nothing">nothing</option>
            <option value="free">as fast as the line takes it</option>
          </select>
        </Field>
        {kind === "limit" && (
          <Field label="KiB per second" hint="16 at the least">
            <input type="number" min={LEAST / 1024} value={kib} onInput={(e) => setKib(e.currentTarget.valueAsNumber || 0)} />
          </Field>
        )}
        <span class="actions">
          <button type="button" onClick={() => setWeek(between(week, days, from, to, limit))}>
            Set these hours
          </button>
          <button type="button" onClick={() => setWeek(free())}>
            Clear all
          </button>
        </span>
      </fieldset>
      <Field label="Hours before UTC" hint="The grid's clock; it knows no summer time">
        <input type="number" min={-14} max={14} step={0.25} value={hoursOff} onInput={(e) => setHoursOff(e.currentTarget.valueAsNumber || 0)} />
      </Field>
      <Grid week={week} />
      {known.map((bucket) => (
        <Field key={bucket} label={`Objects for ${bucket}`}>
          <select
            value={priorities[bucket] ?? "normal"}
            onChange={(e) => setPriorities({ ...priorities, [bucket]: e.currentTarget.value as Priority })}
          >
            <option value="urgent">before the others</option>
            <option value="normal">as they come</option>
            <option value="low">after the others</option>
          </select>
        </Field>
      ))}
    </Ask>
  );
}

/** The week in words, a line for each day: what a screen reader says is what is seen. */
function Grid({ week }: { week: Week }) {
  return (
    <table aria-label="Limits by the hour">
      <tbody>
        {DAYS.map((name, index) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{day(week[index] ?? HOURS.map(() => null))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
